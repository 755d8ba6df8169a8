"""The packet filter through nf_tables, without nft(8) or iptables.

    table ip wherry-BRIDGE                one per engine, with the name of its default bridge
      set bridges                         all bridges of the engine
      map from                            bridge : jump to its chain
      chain postrouting  nat srcnat       ip saddr SUBNET oifname != BRIDGE masquerade      (one per bridge)
      chain forward      filter           oifname @bridges ct state established,related accept
                                          iifname vmap @from
                                          oifname @bridges counter drop
      chain from-BRIDGE  (one per bridge) oifname BRIDGE accept          (drop: containers may not talk to each other)
                                          oifname @bridges counter drop
                                          accept                         (drop: internal)
    table ip wherry_forwarding            there while forwarding is on because an engine turned it on
      set outside                         the links of the host at that time
      chain forward      filter           iifname @outside oifname @outside counter drop

dockerd makes the policy of FORWARD drop in that case, which cuts off virtual machines and other engines. What must not
happen is only that the host becomes a router between links between which it was none, and that is what the guard says;
a link made later, such as another engine's bridge, is not in the set. The underscore cannot collide: "wherry-" is
followed by the name of a bridge.

What a packet costs does not grow with the number of networks: a set and a map are looked up by hash. The rules of
postrouting are read once per connection.

An accept ends only the chain it stands in: other tables, an administrator's or dockerd's, may still drop the packet.
"""

from __future__ import annotations

import errno
import ipaddress
import threading
from collections.abc import Collection, Iterable

from wherry.errors import NotImplementedHere
from wherry.kernel.netlink import nft
from wherry.network.firewall.api import BridgeRules

PREFIX = "wherry-"
GUARD = "wherry_forwarding"
MISSING = {errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.ENOENT}


class Nftables:
    """Firewall. Thread-safe."""

    def __init__(self, table: str, known: Iterable[BridgeRules] = ()) -> None:
        """Use a table of that name. known: rules that belong to it and come with the first `install`."""
        self._table = table
        self._lock = threading.Lock()
        self._rules = {each.bridge: each for each in known}

    def install(self, rules: BridgeRules) -> None:
        """Replace the table by one that has these rules too."""
        with self._lock:
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
                _drop(self._table)
            self._rules = wanted

    def renew(self) -> None:
        """Replace the table by one with the same rules; it may have been flushed or deleted."""
        with self._lock:
            if self._rules:
                self._replace(self._rules.values())

    def _replace(self, wanted: Collection[BridgeRules]) -> None:
        table = self._table
        change = nft.Ruleset()
        _emptied(change, table)
        change.set(table, "bridges", nft.IFNAME_TYPE, nft.IFNAMSIZ)
        change.add_elements(table, "bridges", [nft.interface_key(each.bridge) for each in wanted])
        for each in wanted:
            _from_bridge(change, table, each)
        jumps = {nft.interface_key(each.bridge): nft.verdict_data(nft.NFT_JUMP, _chain(each)) for each in wanted}
        change.verdict_map(table, "from", nft.IFNAME_TYPE, nft.IFNAMSIZ)
        change.add_verdicts(table, "from", jumps)
        change.base_chain(table, "forward", "filter", nft.HOOK_FORWARD, nft.PRIORITY_FILTER)
        change.rule(table, "forward", *_INTO_OURS, *nft.of_known_connection(), nft.verdict(nft.NF_ACCEPT))
        change.rule(table, "forward", nft.load_meta(nft.META_IIFNAME), nft.verdict_from("from"))
        change.rule(table, "forward", *_INTO_OURS, nft.counter(), nft.verdict(nft.NF_DROP))
        if any(each.masquerade for each in wanted):
            change.base_chain(table, "postrouting", "nat", nft.HOOK_POSTROUTING, nft.PRIORITY_SRCNAT)
        for each in wanted:
            if each.masquerade:
                _masquerade(change, table, each)
        _commit(change)

    def guard(self, outside: Collection[str]) -> None:
        """Make the guard's table."""
        change = nft.Ruleset()
        _emptied(change, GUARD)
        change.set(GUARD, "outside", nft.IFNAME_TYPE, nft.IFNAMSIZ)
        change.add_elements(GUARD, "outside", [nft.interface_key(name) for name in outside])
        change.base_chain(GUARD, "forward", "filter", nft.HOOK_FORWARD, nft.PRIORITY_FILTER)
        change.rule(
            GUARD,
            "forward",
            nft.load_meta(nft.META_IIFNAME),
            nft.in_set("outside"),
            nft.load_meta(nft.META_OIFNAME),
            nft.in_set("outside"),
            nft.counter(),
            nft.verdict(nft.NF_DROP),
        )
        _commit(change)

    def guarded(self) -> bool:
        """Whether the guard's table is there."""
        return nft.table_exists(GUARD)

    def unguard(self) -> None:
        """Delete the guard's table."""
        _drop(GUARD)

    def others(self) -> bool:
        """Whether there are tables of other engines."""
        return any(name.startswith(PREFIX) and name != self._table for name in nft.list_tables())


_INTO_OURS = (nft.load_meta(nft.META_OIFNAME), nft.in_set("bridges"))


def _chain(rules: BridgeRules) -> str:
    return f"from-{rules.bridge}"


def _from_bridge(change: nft.Ruleset, table: str, rules: BridgeRules) -> None:
    """Make the chain of what comes from a bridge; every packet that enters it has its verdict there."""
    chain = _chain(rules)
    change.chain(table, chain)
    among = nft.verdict(nft.NF_ACCEPT if rules.icc else nft.NF_DROP)
    change.rule(table, chain, *nft.to_interface(rules.bridge), among)
    change.rule(table, chain, *_INTO_OURS, nft.counter(), nft.verdict(nft.NF_DROP))
    change.rule(table, chain, nft.verdict(nft.NF_DROP if rules.internal else nft.NF_ACCEPT))


def _masquerade(change: nft.Ruleset, table: str, rules: BridgeRules) -> None:
    subnet = ipaddress.IPv4Network(rules.subnet)
    change.rule(
        table,
        "postrouting",
        *nft.from_subnet4(str(subnet.network_address), subnet.prefixlen),
        *nft.to_interface(rules.bridge, equal=False),
        nft.counter(),
        nft.masquerade(),
    )


def _emptied(change: nft.Ruleset, table: str) -> None:
    """Begin the table afresh. Making it first lets the deletion succeed in any case (DESTROYTABLE needs 6.3)."""
    change.table(table)
    change.delete_table(table)
    change.table(table)


def _drop(table: str) -> None:
    change = nft.Ruleset()
    change.table(table)
    change.delete_table(table)
    _commit(change)


def _commit(change: nft.Ruleset) -> None:
    try:
        change.commit()
    except OSError as error:
        if error.errno not in MISSING:
            raise
        raise NotImplementedHere(
            f"this kernel lacks what the nftables firewall needs ({error.strerror}; modules nf_tables, nft_chain_nat, "
            "nft_masq, nft_ct): load them; "
            "the iptables backend does not exist yet"
        ) from error
