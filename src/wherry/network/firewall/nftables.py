"""The packet filter through nf_tables, without nft(8) or iptables.

    table ip wherry-BRIDGE                one per engine, with the name of its default bridge; ip6: when it needs one
      set bridges                         all bridges of the engine
      map from                            bridge : jump to its chain
      map published                       protocol . port : address . port of a container       (one per port)
      map published-at                    address . protocol . port : address . port
      set routed, set open                bridges without translation; address . protocol . port of what is published
                                          there, or by containers that trusted links may reach past the translation
      chain raw          filter raw       iifname != lo ip saddr 127.0.0.0/8 drop, and daddr             (not in ip6)
      chain prerouting   nat dstnat       fib daddr type local jump published
      chain output       nat dstnat       fib daddr type local jump published
      chain published                     return for fe80::/10 and ::1                                   (ip6 alone)
                                          dnat to ip daddr . meta l4proto . th dport map @published-at
                                          dnat to meta l4proto . th dport map @published
      chain postrouting  nat srcnat       ip saddr SUBNET oifname != BRIDGE masquerade      (one per bridge)
                                          ip saddr SUBNET oifname BRIDGE ct status dnat masquerade
                                          ip saddr 127.0.0.0/8 oifname @bridges masquerade
      chain forward      filter           oifname @bridges ct state established,related accept
                                          iifname vmap @from
                                          oifname @bridges ct status dnat accept
                                          oifname @routed jump into-routed                  (where there are any)
                                          oifname @unprotected accept                       (where there are any)
                                          iifname . oifname @trusted (and) @open accept     (where there are any)
                                          oifname @bridges counter drop
      chain into-routed                   meta l4proto icmp accept
                                          ip daddr . meta l4proto . th dport @open accept
      chain from-BRIDGE  (one per bridge) oifname @bridges ct status dnat accept     (not for one that is internal)
                                          oifname BRIDGE ip saddr A ip daddr B th dport P accept    (one per passage)
                                          oifname BRIDGE accept          (drop: containers may not talk to each other)
                                          oifname @bridges counter drop
                                          accept                         (drop: internal)
    table ip wherry_forwarding            there while forwarding is on because an engine turned it on; ip6 likewise
      set outside                         the links of the host at that time
      chain forward      filter           iifname @outside oifname @outside counter drop

A table of each family, and not one of the family inet: a map has keys and data of one length, so that every map and set
of addresses would be there twice all the same, and every rule about an address would first have to ask for the family.
Who has no network with IPv6 has no table ip6. Both are replaced in one transaction. A bridge without a family is in its
table nevertheless, as one that is closed: what a container sends with addresses that it gave to itself goes nowhere.

Nothing in ip6 stops neighbour discovery. It is not routed: a forward chain sees it only with br_netfilter loaded, and
then it goes from a bridge to itself. Link-local addresses belong to a link; the kernel routes none of them, and a
published port is none of theirs. ::1 is not translated: no setting lets its packets leave the loopback link, as
route_localnet does for 127.0.0.1, so that a client at ::1 is refused at once and goes on to 127.0.0.1.

dockerd makes the policy of FORWARD drop when it turns forwarding on, which cuts off virtual machines and other
engines. What must not happen is only that the host becomes a router between links between which it was none, and that
is what the guard says; a link made later, such as another engine's bridge, is not in the set. The underscore cannot
collide: "wherry-" is followed by the name of a bridge.

A client outside keeps its address. One in the same subnet as the container is shown as the bridge: the container would
answer it directly, past the translation. So is a client at 127.0.0.1, whose packets leave by the bridge because of
route_localnet there; packets of 127.0.0.0/8 from any link are dropped before that can do harm (CVE-2020-8558).

What a packet costs does not grow with the number of networks: a set and a map are looked up by hash. The rules of
postrouting are read once per connection.

An accept ends only the chain it stands in: other tables, an administrator's or dockerd's, may still drop the packet.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Collection, Iterable

from wherry.errors import NotImplementedHere
from wherry.kernel.netlink import nft, nftexpr
from wherry.kernel.netlink.nftwatch import Transaction
from wherry.network.firewall.api import BridgeRules, Forward
from wherry.network.firewall.nftrules import PROTOCOLS, Contents

PREFIX = "wherry-"
GUARD = "wherry_forwarding"
MISSING = {errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.ENOENT}


class Nftables:
    """Firewall. Thread-safe."""

    def __init__(self, table: str, known: Iterable[BridgeRules] = (), forwards: Iterable[Forward] = ()) -> None:
        """Use a table of that name. known, forwards: what belongs to it and comes with the first `install`."""
        self._table = table
        self._lock = threading.Lock()
        self._rules = {each.bridge: each for each in known}
        self._forwards = {each.place: each for each in forwards}
        self._families: tuple[int, ...] = ()
        """Those that have a table; none is known before the first `install`."""

    def forward(self, gone: Iterable[Forward], fresh: Iterable[Forward]) -> None:
        """Change elements of the maps; all of the tables when somebody else has changed them (ENOENT, EEXIST)."""
        with self._lock:
            new = {each.place: each for each in fresh}
            old = {each.place: each for each in gone if self._forwards.get(each.place) == each}
            old |= {place: self._forwards[place] for place in new if place in self._forwards}
            if not old and not new:
                return
            wanted = self._forwards.copy()
            for place in old:
                del wanted[place]
            wanted |= new
            change = nft.Ruleset()
            for version in (4, 6):
                part = change.beside(PROTOCOLS[version])
                contents = Contents(self._table, version, self._rules.values())
                contents.remove(part, [each for each in old.values() if each.family == version], wanted.values())
                contents.add(part, [each for each in new.values() if each.family == version])
            try:
                change.commit()
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EEXIST):
                    raise
                self._replace(self._rules.values(), wanted.values())
            self._forwards = wanted

    def refresh(self) -> None:
        """Replace the table by what it should be."""
        with self._lock:
            if self._rules:
                self._replace(self._rules.values())

    def install(self, rules: BridgeRules) -> None:
        """Replace the table by one that has these rules too; the first time it has all that are known.

        So an engine that starts does not write its table once for each network.
        """
        with self._lock:
            if self._families and self._rules.get(rules.bridge) == rules:
                return
            wanted = {**self._rules, rules.bridge: rules}
            self._replace(wanted.values())
            self._rules = wanted

    def uninstall(self, bridge: str) -> None:
        """Replace the table by one without the rules of a bridge; delete it with the last ones."""
        with self._lock:
            wanted = {name: rules for name, rules in self._rules.items() if name != bridge}
            if wanted:
                self._replace(wanted.values())
            else:
                self._withdraw()
            self._rules = wanted

    def _replace(self, wanted: Collection[BridgeRules], forwards: Collection[Forward] | None = None) -> None:
        held = self._forwards.values() if forwards is None else forwards
        change = nft.Ruleset()
        needed = (4, 6) if any(each.subnet6 for each in wanted) else (4,)
        for version in (4, 6):
            part = change.beside(PROTOCOLS[version])
            if version in needed:
                _emptied(part, self._table)
                Contents(self._table, version, wanted).write(part, held)
            elif self._may_exist(version):
                _without(part, self._table)
        _commit(change)
        self._families = needed

    def _may_exist(self, version: int) -> bool:
        """Whether there may be a table of a family, be it of an engine that died."""
        if not self._families:
            return nft.table_exists(self._table, PROTOCOLS[version])
        return version in self._families

    def _withdraw(self) -> None:
        change = nft.Ruleset()
        _without(change, self._table)
        if self._may_exist(6):
            _without(change.beside(nft.NFPROTO_IPV6), self._table)
        _commit(change)
        self._families = (4,)

    def guard(self, outside: Collection[str], version: int) -> None:
        """Make the guard's table."""
        change = nft.Ruleset(PROTOCOLS[version])
        _emptied(change, GUARD)
        change.set(GUARD, "outside", nft.IFNAME_TYPE, nft.IFNAMSIZ)
        change.add_elements(GUARD, "outside", [nftexpr.interface_key(name) for name in outside])
        change.base_chain(GUARD, "forward", "filter", nft.HOOK_FORWARD, nft.PRIORITY_FILTER)
        change.rule(
            GUARD,
            "forward",
            nftexpr.load_meta(nftexpr.META_IIFNAME),
            nftexpr.in_set("outside"),
            nftexpr.load_meta(nftexpr.META_OIFNAME),
            nftexpr.in_set("outside"),
            nftexpr.counter(),
            nftexpr.verdict(nft.NF_DROP),
        )
        _commit(change)

    def guarded(self, version: int) -> bool:
        """Whether the guard's table is there."""
        return nft.table_exists(GUARD, PROTOCOLS[version])

    def unguard(self, version: int) -> None:
        """Delete the guard's table."""
        change = nft.Ruleset(PROTOCOLS[version])
        _without(change, GUARD)
        _commit(change)

    def others(self) -> bool:
        """Whether there are tables of other engines."""
        return any(name.startswith(PREFIX) and name != self._table for name in nft.list_tables())

    def bridges(self) -> tuple[str, ...]:
        """Return the bridges that have rules."""
        return tuple(self._rules)

    def misses(self, change: Transaction | None) -> bool:
        """Whether the table is gone, or something in it: we replace the table as a whole, in one transaction."""
        if change is None:
            return not all(nft.table_exists(self._table, PROTOCOLS[version]) for version in self._families)
        ours = [each for each in change.removals if each.table in (self._table, GUARD)]
        tables = {(each.table, each.family) for each in ours if each.kind == "table"}
        if tables:
            return not all(nft.table_exists(*table) for table in tables)
        return bool(ours)


def _emptied(change: nft.Ruleset, table: str) -> None:
    """Begin the table afresh. Making it first lets the deletion succeed in any case (DESTROYTABLE needs 6.3)."""
    _without(change, table)
    change.table(table)


def _without(change: nft.Ruleset, table: str) -> None:
    change.table(table)
    change.delete_table(table)


def _commit(change: nft.Ruleset) -> None:
    try:
        change.commit()
    except OSError as error:
        if error.errno not in MISSING:
            raise
        raise NotImplementedHere(
            f"this kernel lacks what the nftables firewall needs ({error.strerror}; modules nf_tables, nft_chain_nat, "
            'nft_masq, nft_ct, nft_fib_ipv4): load them, or choose "firewall-backend": "iptables"'
        ) from error
