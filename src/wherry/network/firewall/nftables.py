"""The packet filter through nf_tables, without nft(8) or iptables.

    table ip wherry-BRIDGE                one per engine, with the name of its default bridge
      set bridges                         all bridges of the engine
      map from                            bridge : jump to its chain
      map published                       protocol . port : address . port of a container       (one per port)
      map published-at                    address . protocol . port : address . port
      chain raw          filter raw       iifname != lo ip saddr 127.0.0.0/8 drop, and daddr
      chain prerouting   nat dstnat       fib daddr type local jump published
      chain output       nat dstnat       fib daddr type local jump published
      chain published                     dnat to ip daddr . meta l4proto . th dport map @published-at
                                          dnat to meta l4proto . th dport map @published
      chain postrouting  nat srcnat       ip saddr SUBNET oifname != BRIDGE masquerade      (one per bridge)
                                          ip saddr SUBNET oifname BRIDGE ct status dnat masquerade
                                          ip saddr 127.0.0.0/8 oifname @bridges masquerade
      chain forward      filter           oifname @bridges ct state established,related accept
                                          iifname vmap @from
                                          oifname @bridges ct status dnat accept
                                          oifname @bridges counter drop
      chain from-BRIDGE  (one per bridge) oifname @bridges ct status dnat accept     (not for one that is internal)
                                          oifname BRIDGE ip saddr A ip daddr B th dport P accept    (one per passage)
                                          oifname BRIDGE accept          (drop: containers may not talk to each other)
                                          oifname @bridges counter drop
                                          accept                         (drop: internal)
    table ip wherry_forwarding            there while forwarding is on because an engine turned it on; ip6 likewise
      set outside                         the links of the host at that time
      chain forward      filter           iifname @outside oifname @outside counter drop

dockerd makes the policy of FORWARD drop in that case, which cuts off virtual machines and other engines. What must not
happen is only that the host becomes a router between links between which it was none, and that is what the guard says;
a link made later, such as another engine's bridge, is not in the set. The underscore cannot collide: "wherry-" is
followed by the name of a bridge.

A client outside keeps its address. One in the same subnet as the container is shown as the bridge: the container would
answer it directly, past the translation. So is a client at 127.0.0.1, whose packets leave by the bridge because of
route_localnet there; packets of 127.0.0.0/8 from any link are dropped before that can do harm (CVE-2020-8558).

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
from wherry.kernel.netlink.nftwatch import Transaction
from wherry.network.firewall.api import BridgeRules, Forward

PREFIX = "wherry-"
GUARD = "wherry_forwarding"
_FAMILIES = {4: nft.NFPROTO_IPV4, 6: nft.NFPROTO_IPV6}
MISSING = {errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.ENOENT}


class Nftables:
    """Firewall. Thread-safe."""

    def __init__(self, table: str, known: Iterable[BridgeRules] = (), forwards: Iterable[Forward] = ()) -> None:
        """Use a table of that name. known, forwards: what belongs to it and comes with the first `install`."""
        self._table = table
        self._lock = threading.Lock()
        self._rules = {each.bridge: each for each in known}
        self._forwards = {each.place: each for each in forwards}

    def forward(self, gone: Iterable[Forward], fresh: Iterable[Forward]) -> None:
        """Change elements of the maps; all of the table when somebody else has changed it (ENOENT, EEXIST)."""
        with self._lock:
            new = {each.place: each for each in fresh}
            old = [each for each in gone if self._forwards.get(each.place) == each and each.place not in new]
            old += [self._forwards[place] for place in new if place in self._forwards]
            wanted = {place: each for place, each in self._forwards.items() if each not in old} | new
            if not old and not new:
                return
            change = nft.Ruleset()
            for name in _MAPS:
                keys = [_forward_key(each) for each in old if _map_of(each) == name]
                change.delete_elements(self._table, name, keys)
                _add_forwards(change, self._table, name, new.values())
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

    def _replace(self, wanted: Collection[BridgeRules], forwards: Collection[Forward] | None = None) -> None:
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
        change.rule(table, "forward", *_INTO_OURS, *nft.of_changed_destination(), nft.verdict(nft.NF_ACCEPT))
        change.rule(table, "forward", *_INTO_OURS, nft.counter(), nft.verdict(nft.NF_DROP))
        change.base_chain(table, "postrouting", "nat", nft.HOOK_POSTROUTING, nft.PRIORITY_SRCNAT)
        for each in wanted:
            _masquerade(change, table, each)
        loopback = nft.from_subnet4("127.0.0.0", 8)
        change.rule(table, "postrouting", *loopback, *_INTO_OURS, nft.counter(), nft.masquerade())
        _published(change, table, self._forwards.values() if forwards is None else forwards)
        _commit(change)

    def guard(self, outside: Collection[str], version: int) -> None:
        """Make the guard's table."""
        change = nft.Ruleset(_FAMILIES[version])
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

    def guarded(self, version: int) -> bool:
        """Whether the guard's table is there."""
        return nft.table_exists(GUARD, _FAMILIES[version])

    def unguard(self, version: int) -> None:
        """Delete the guard's table."""
        _drop(GUARD, _FAMILIES[version])

    def others(self) -> bool:
        """Whether there are tables of other engines."""
        return any(name.startswith(PREFIX) and name != self._table for name in nft.list_tables())

    def bridges(self) -> tuple[str, ...]:
        """Return the bridges that have rules."""
        return tuple(self._rules)

    def misses(self, change: Transaction | None) -> bool:
        """Whether the table is gone, or something in it: we replace the table as a whole, in one transaction."""
        if change is None:
            return not nft.table_exists(self._table)
        ours = [each for each in change.removals if each.table in (self._table, GUARD)]
        tables = {(each.table, each.family) for each in ours if each.kind == "table"}
        if tables:
            return not all(nft.table_exists(*table) for table in tables)
        return bool(ours)


_INTO_OURS = (nft.load_meta(nft.META_OIFNAME), nft.in_set("bridges"))


def _chain(rules: BridgeRules) -> str:
    return f"from-{rules.bridge}"


def _from_bridge(change: nft.Ruleset, table: str, rules: BridgeRules) -> None:
    """Make the chain of what comes from a bridge; every packet that enters it has its verdict there."""
    chain = _chain(rules)
    change.chain(table, chain)
    if not rules.internal:
        change.rule(table, chain, *_INTO_OURS, *nft.of_changed_destination(), nft.verdict(nft.NF_ACCEPT))
    for each in rules.passages:
        ends = (*nft.from_subnet4(each.source, 32), *nft.to_address4(each.target, each.protocol, each.port))
        change.rule(table, chain, *nft.to_interface(rules.bridge), *ends, nft.counter(), nft.verdict(nft.NF_ACCEPT))
    among = nft.verdict(nft.NF_ACCEPT if rules.icc else nft.NF_DROP)
    change.rule(table, chain, *nft.to_interface(rules.bridge), among)
    change.rule(table, chain, *_INTO_OURS, nft.counter(), nft.verdict(nft.NF_DROP))
    change.rule(table, chain, nft.verdict(nft.NF_DROP if rules.internal else nft.NF_ACCEPT))


def _masquerade(change: nft.Ruleset, table: str, rules: BridgeRules) -> None:
    if not rules.subnet:
        return
    subnet = ipaddress.IPv4Network(rules.subnet)
    inside = nft.from_subnet4(str(subnet.network_address), subnet.prefixlen)
    if rules.masquerade:
        out = nft.to_interface(rules.bridge, equal=False)
        change.rule(table, "postrouting", *inside, *out, nft.counter(), nft.masquerade())
    if not rules.internal:
        back = (*nft.to_interface(rules.bridge), *nft.of_changed_destination())
        change.rule(table, "postrouting", *inside, *back, nft.counter(), nft.masquerade())


_MAPS = ("published", "published-at")
_TARGET = (nft.joined_type(nft.IPV4_TYPE, nft.PORT_TYPE), 8)
_PORT_KEY = (nft.joined_type(nft.PROTOCOL_TYPE, nft.PORT_TYPE), 8)
_PLACE_KEY = (nft.joined_type(nft.IPV4_TYPE, nft.PROTOCOL_TYPE, nft.PORT_TYPE), 12)


def _published(change: nft.Ruleset, table: str, forwards: Collection[Forward]) -> None:
    """Make the maps of published ports and the chains that look into them."""
    change.data_map(table, "published", _PORT_KEY, _TARGET)
    change.data_map(table, "published-at", _PLACE_KEY, _TARGET)
    for name in _MAPS:
        _add_forwards(change, table, name, forwards)
    change.chain(table, "published")
    for name in reversed(_MAPS):
        key = nft.load_port_key(address=name == "published-at")
        change.rule(table, "published", *key, *nft.destination_from(name))
    for chain, hook in (("prerouting", nft.HOOK_PREROUTING), ("output", nft.HOOK_OUTPUT)):
        change.base_chain(table, chain, "nat", hook, nft.PRIORITY_DSTNAT)
        change.rule(table, chain, *nft.to_this_host(), nft.verdict(nft.NFT_JUMP, "published"))
    change.base_chain(table, "raw", "filter", nft.HOOK_PREROUTING, nft.PRIORITY_RAW)
    for match in (nft.from_subnet4, nft.to_subnet4):
        outside = nft.from_interface("lo", equal=False)
        change.rule(table, "raw", *outside, *match("127.0.0.0", 8), nft.counter(), nft.verdict(nft.NF_DROP))


def _map_of(forward: Forward) -> str:
    return "published-at" if forward.address else "published"


def _forward_key(forward: Forward) -> bytes:
    return nft.port_key(forward.address, forward.protocol, forward.port)


def _add_forwards(change: nft.Ruleset, table: str, name: str, forwards: Iterable[Forward]) -> None:
    chosen = [each for each in forwards if _map_of(each) == name]
    targets = {_forward_key(each): nft.address_and_port(each.to_address, each.to_port) for each in chosen}
    change.add_data(table, name, targets)


def _emptied(change: nft.Ruleset, table: str) -> None:
    """Begin the table afresh. Making it first lets the deletion succeed in any case (DESTROYTABLE needs 6.3)."""
    change.table(table)
    change.delete_table(table)
    change.table(table)


def _drop(table: str, family: int = nft.NFPROTO_IPV4) -> None:
    change = nft.Ruleset(family)
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
            'nft_masq, nft_ct, nft_fib_ipv4): load them, or choose "firewall-backend": "iptables"'
        ) from error
