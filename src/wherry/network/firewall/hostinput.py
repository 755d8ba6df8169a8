"""Published ports as the host's own firewall says: ufw, firewalld or rules of the administrator's in INPUT.

What goes to a published port is translated before INPUT and forwarded, so that rules of INPUT never see it. Here the
first packet of a client is kept from translation and goes through INPUT as if a program of the host were meant. A chain
after all others sees it only when every one of them has accepted it: a drop anywhere is final. It notes the client and
drops the packet; the client sends it again, TCP after a second, and is translated from then on for `SECONDS`.

So the kernel itself judges, by all of the host's rules in nf_tables or the legacy kind of iptables, with sets, rates
and sources. No program takes part, and nobody has to understand the rules.

    table ip wherry_input_BRIDGE                     one per engine and family; ip6 likewise
      set inside                                     lo and all bridges of the engine: they are not asked about
      set published, set published-at                protocol . port; address . protocol . port
      set admitted                                   iifname . saddr . daddr . protocol . port, for SECONDS
      chain prerouting   nat dstnat - 1              iifname @inside return
                                                     fib daddr type local jump asked
      chain asked                                    return for @admitted; jump held for @published-at, @published
      chain held                                     dnat to ip daddr: translated to what it is, so by nobody else
      chain input        filter, behind all others   return for @inside and ct state established,related
                                                     fib daddr type local jump came
      chain came                                     jump admit for @published-at, @published
      chain admit                                    add @admitted; drop

A set that is full admits nobody new. Both chains leave link-local addresses alone, as the translation does.
"""

from __future__ import annotations

import errno
import ipaddress
import threading
from collections.abc import Collection, Iterable

from wherry.kernel.netlink import nft, nftexpr
from wherry.kernel.netlink.nftwatch import Transaction
from wherry.network.firewall.api import BridgeRules, Firewall, Forward
from wherry.network.firewall.chains import behind
from wherry.network.firewall.nftrules import PROTOCOLS

SECONDS = 60
"""How long a client is not asked about again."""
MOST = 65536
"""Clients that are admitted at a time, by family."""
LAST = 1 << 30
"""Priority: after every chain of a firewall, before connections are entered into the table (INT_MAX)."""
_ADDRESS = {4: (nft.IPV4_TYPE, 4), 6: (nft.IPV6_TYPE, 16)}
_SETS = ("published", "published-at")
_LINK_LOCAL = ipaddress.IPv6Network("fe80::/10")


class HostInput:
    """Firewall. Asks the host about what comes from outside, and leaves the rest to a backend. Thread-safe."""

    def __init__(
        self, backend: Firewall, owner: str, known: Iterable[BridgeRules] = (), forwards: Iterable[Forward] = ()
    ) -> None:
        """owner: the name of the backend's rules. known, forwards: what comes with the first `install`."""
        self._backend = backend
        self._table = table_of(owner)
        self._lock = threading.Lock()
        self._rules = {each.bridge: each for each in known}
        self._forwards = {each.place: each for each in forwards}
        self._written = False

    def install(self, rules: BridgeRules) -> None:
        """Ask first, then let the backend translate."""
        with self._lock:
            wanted = {**self._rules, rules.bridge: rules}
            if not self._written or wanted != self._rules:
                self._rules = wanted
                self._replace()
        self._backend.install(rules)

    def uninstall(self, bridge: str) -> None:
        """The table goes with the last bridge."""
        self._backend.uninstall(bridge)
        with self._lock:
            if self._rules.pop(bridge, None) is not None or not self._rules:
                self._replace()

    def forward(self, gone: Iterable[Forward], fresh: Iterable[Forward]) -> None:
        """Ask about fresh ports before they are translated, and about those that go until they no longer are."""
        old, new = list(gone), list(fresh)
        with self._lock:
            before = dict(self._forwards)
            self._forwards |= {each.place: each for each in new}
            self._exchange(before)
        try:
            self._backend.forward(old, new)
        except BaseException:
            with self._lock:
                asked, self._forwards = self._forwards, before
                self._exchange(asked)
            raise
        with self._lock:
            before = dict(self._forwards)
            for each in old:
                if self._forwards.get(each.place) == each and each not in new:
                    del self._forwards[each.place]
            self._exchange(before)

    def refresh(self) -> None:
        """Write the table anew, then have the backend do the same."""
        with self._lock:
            if self._rules:
                self._replace()
        self._backend.refresh()

    def guard(self, outside: Collection[str], version: int) -> None:
        """As the backend."""
        self._backend.guard(outside, version)

    def guarded(self, version: int) -> bool:
        """As the backend."""
        return self._backend.guarded(version)

    def unguard(self, version: int) -> None:
        """As the backend."""
        self._backend.unguard(version)

    def others(self) -> bool:
        """As the backend."""
        return self._backend.others()

    def bridges(self) -> tuple[str, ...]:
        """As the backend."""
        return self._backend.bridges()

    def misses(self, change: Transaction | None) -> bool:
        """Whether the table is gone, or something in it: we replace it as a whole, in one transaction."""
        return self._lost(change) or self._backend.misses(change)

    def _lost(self, change: Transaction | None) -> bool:
        if not self._written:
            return False
        taken = [] if change is None else [each for each in change.removals if each.table == self._table]
        if change is None or any(each.kind == "table" for each in taken):
            return not all(nft.table_exists(self._table, family) for family in PROTOCOLS.values())
        return bool(taken)

    # The table

    def _keys(self, version: int, name: str, forwards: Iterable[Forward]) -> set[bytes]:
        """Return what a set has to hold. A routed network publishes nothing at the host's addresses."""
        found = set()
        for each in forwards:
            network = behind(self._rules.values(), each.to_address)
            mode = "" if network is None else network.gateway_mode if version == 4 else network.gateway_mode6
            if each.family == version and bool(each.address) == (name == "published-at") and mode != "routed":
                found.add(nftexpr.port_key(each.address, each.protocol, each.port))
        return found

    def _exchange(self, before: dict[tuple[int, int, str, int], Forward]) -> None:
        """Change the elements of the sets; all of it when somebody else has changed them."""
        if not self._written:
            return
        change, changed = nft.Ruleset(), False
        for version in PROTOCOLS:
            part = change.beside(PROTOCOLS[version])
            for name in _SETS:
                have = self._keys(version, name, before.values())
                wanted = self._keys(version, name, self._forwards.values())
                part.delete_elements(self._table, name, have - wanted)
                part.add_elements(self._table, name, wanted - have)
                changed = changed or have != wanted
        try:
            if changed:
                change.commit()
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            self._replace()

    def _replace(self) -> None:
        change = nft.Ruleset()
        for version in PROTOCOLS:
            part = change.beside(PROTOCOLS[version])
            part.table(self._table)
            part.delete_table(self._table)
            if self._rules:
                part.table(self._table)
                self._write(part, version)
        change.commit()
        self._written = bool(self._rules)

    def _write(self, change: nft.Ruleset, version: int) -> None:
        table, (kind, length) = self._table, _ADDRESS[version]
        change.set(table, "inside", nft.IFNAME_TYPE, nft.IFNAMSIZ)
        change.add_elements(table, "inside", [nftexpr.interface_key(each) for each in ("lo", *self._rules)])
        change.set(table, "published", nftexpr.joined_type(nft.PROTOCOL_TYPE, nft.PORT_TYPE), 8)
        change.set(table, "published-at", nftexpr.joined_type(kind, nft.PROTOCOL_TYPE, nft.PORT_TYPE), length + 8)
        for name in _SETS:
            change.add_elements(table, name, self._keys(version, name, self._forwards.values()))
        parts = (nft.IFNAME_TYPE, kind, kind, nft.PROTOCOL_TYPE, nft.PORT_TYPE)
        size = nft.IFNAMSIZ + 2 * length + 8
        change.passing_set(table, "admitted", nftexpr.joined_type(*parts), size, seconds=SECONDS, most=MOST)
        for name in ("held", "asked", "admit", "came"):
            change.chain(table, name)
        client = nftexpr.load_client_key(version)
        change.rule(table, "held", *nftexpr.destination_kept(version))
        change.rule(table, "asked", *client, nftexpr.joined_in_set("admitted"), nftexpr.verdict(nft.NFT_RETURN))
        change.rule(table, "admit", *client, nftexpr.added_to("admitted"))
        change.rule(table, "admit", nftexpr.counter(), nftexpr.verdict(nft.NF_DROP))
        for chain, target in (("asked", "held"), ("came", "admit")):
            for name in reversed(_SETS):
                key = nftexpr.load_port_key(address=name == "published-at", version=version)
                change.rule(table, chain, *key, nftexpr.joined_in_set(name), nftexpr.verdict(nft.NFT_JUMP, target))
        change.base_chain(table, "prerouting", "nat", nft.HOOK_PREROUTING, nft.PRIORITY_DSTNAT - 1)
        change.base_chain(table, "input", "filter", nft.HOOK_INPUT, LAST)
        change.rule(table, "input", *nftexpr.of_known_connection(), nftexpr.verdict(nft.NFT_RETURN))
        for chain, target in (("prerouting", "asked"), ("input", "came")):
            self._spare(change, chain, version)
            change.rule(table, chain, *nftexpr.to_this_host(), nftexpr.verdict(nft.NFT_JUMP, target))

    def _spare(self, change: nft.Ruleset, chain: str, version: int) -> None:
        back = nftexpr.verdict(nft.NFT_RETURN)
        change.rule(self._table, chain, nftexpr.load_meta(nftexpr.META_IIFNAME), nftexpr.in_set("inside"), back)
        if version == 6:
            for match in (nftexpr.from_subnet, nftexpr.to_subnet):
                change.rule(self._table, chain, *match(_LINK_LOCAL), back)


def table_of(owner: str) -> str:
    """Return the name of the table that belongs to rules of that name."""
    return f"wherry_input_{owner.removeprefix('wherry-')}"


def remove(owner: str) -> None:
    """Delete what an engine left that asked the host, when this one does not. Raises OSError."""
    for family in PROTOCOLS.values():
        if nft.table_exists(table_of(owner), family):
            change = nft.Ruleset(family)
            change.delete_table(table_of(owner))
            change.commit()
