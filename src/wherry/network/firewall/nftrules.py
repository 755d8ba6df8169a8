"""What stands in the table of one family: nftables.py draws it, and sends it to the kernel."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from wherry.kernel.netlink import nft, nftexpr
from wherry.network.firewall.api import BridgeRules, Forward, Passage

_INTO_OURS = (nftexpr.load_meta(nftexpr.META_OIFNAME), nftexpr.in_set("bridges"))
_LOOPBACK = ipaddress.IPv4Network("127.0.0.0/8")
_LINK_LOCAL = ipaddress.IPv6Network("fe80::/10")
_LEFT_ALONE = (
    nftexpr.from_subnet(_LINK_LOCAL),
    nftexpr.to_subnet(_LINK_LOCAL),
    nftexpr.to_subnet(ipaddress.IPv6Network("::1/128")),
)
_ICMP = {4: 1, 6: 58}
PROTOCOLS = {4: nft.NFPROTO_IPV4, 6: nft.NFPROTO_IPV6}
_ADDRESS = {4: (nft.IPV4_TYPE, 4), 6: (nft.IPV6_TYPE, 16)}
_MAPS = ("published", "published-at")
_OPEN = "open"


@dataclass(frozen=True, slots=True)
class _Bridge:
    """One bridge as one family sees it. closed: nothing of this family is routed out of it or into it."""

    name: str
    subnet: nftexpr.Subnet | None
    masquerade: bool
    mode: str
    icc: bool
    closed: bool
    trusted: tuple[str, ...]
    passages: tuple[Passage, ...]

    @property
    def chain(self) -> str:
        return f"from-{self.name}"


def _seen(rules: BridgeRules, version: int) -> _Bridge:
    four = version == 4
    subnet = rules.subnet if four else rules.subnet6
    mode = rules.gateway_mode if four else rules.gateway_mode6
    closed = rules.internal or not subnet or mode == "isolated"
    return _Bridge(
        rules.bridge,
        ipaddress.ip_network(subnet) if subnet else None,
        (rules.masquerade if four else rules.masquerade6) and mode.startswith("nat") and not closed,
        mode,
        rules.icc,
        closed,
        () if closed else rules.trusted,
        tuple(each for each in rules.passages if (":" in each.target) != four),
    )


class Contents:
    """What the table of a family has to hold for these bridges."""

    def __init__(self, table: str, version: int, rules: Iterable[BridgeRules]) -> None:
        """version: 4 or 6."""
        self.version = version
        self._table = table
        self._bridges = [_seen(each, version) for each in rules]
        self._routed = [each for each in self._bridges if each.mode == "routed" and not each.closed]
        self._trusting = [each for each in self._bridges if each.trusted]

    def write(self, change: nft.Ruleset, forwards: Collection[Forward]) -> None:
        """Fill a table that has nothing in it yet."""
        self._sets(change)
        for bridge in self._bridges:
            self._from_bridge(change, bridge)
        self._forward(change)
        self._postrouting(change)
        self._published(change)
        self.add(change, [each for each in forwards if each.family == self.version])

    def _rule(self, change: nft.Ruleset, chain: str, *expressions: bytes) -> None:
        change.rule(self._table, chain, *expressions)

    # Bridges

    def _sets(self, change: nft.Ruleset) -> None:
        table = self._table
        change.set(table, "bridges", nft.IFNAME_TYPE, nft.IFNAMSIZ)
        change.add_elements(table, "bridges", [nftexpr.interface_key(each.name) for each in self._bridges])
        if self._routed or self._trusting:
            change.set(table, _OPEN, *self._place_key)
        if self._routed:
            change.set(table, "routed", nft.IFNAME_TYPE, nft.IFNAMSIZ)
            change.add_elements(table, "routed", [nftexpr.interface_key(each.name) for each in self._routed])
            change.chain(table, "into-routed")
            icmp = nftexpr.of_protocol(_ICMP[self.version])
            self._rule(change, "into-routed", *icmp, nftexpr.verdict(nft.NF_ACCEPT))
            self._rule(change, "into-routed", *self._to_open_port, nftexpr.verdict(nft.NF_ACCEPT))

    def _from_bridge(self, change: nft.Ruleset, bridge: _Bridge) -> None:
        """Make the chain of what comes from a bridge; every packet that enters it has its verdict there."""
        chain = bridge.chain
        change.chain(self._table, chain)
        if not bridge.closed:
            led = (*_INTO_OURS, *nftexpr.of_changed_destination())
            self._rule(change, chain, *led, nftexpr.verdict(nft.NF_ACCEPT))
        for each in bridge.passages:
            source = nftexpr.from_subnet(ipaddress.ip_network(each.source))
            ends = (*source, *nftexpr.to_port_of(each.target, each.protocol, each.port))
            accept = (nftexpr.counter(), nftexpr.verdict(nft.NF_ACCEPT))
            self._rule(change, chain, *nftexpr.to_interface(bridge.name), *ends, *accept)
        among = nftexpr.verdict(nft.NF_ACCEPT if bridge.icc else nft.NF_DROP)
        if bridge in self._routed and not bridge.icc:
            self._into_routed(change, chain)
        self._rule(change, chain, *nftexpr.to_interface(bridge.name), among)
        if not bridge.closed and (bridge not in self._routed or bridge.icc):
            self._into_routed(change, chain)
        self._rule(change, chain, *_INTO_OURS, nftexpr.counter(), nftexpr.verdict(nft.NF_DROP))
        self._rule(change, chain, nftexpr.verdict(nft.NF_DROP if bridge.closed else nft.NF_ACCEPT))

    def _into_routed(self, change: nft.Ruleset, chain: str) -> None:
        if self._routed:
            into = (nftexpr.load_meta(nftexpr.META_OIFNAME), nftexpr.in_set("routed"))
            self._rule(change, chain, *into, nftexpr.verdict(nft.NFT_JUMP, "into-routed"))

    def _forward(self, change: nft.Ruleset) -> None:
        table = self._table
        jumps = {
            nftexpr.interface_key(each.name): nftexpr.verdict_data(nft.NFT_JUMP, each.chain) for each in self._bridges
        }
        change.verdict_map(table, "from", nft.IFNAME_TYPE, nft.IFNAMSIZ)
        change.add_verdicts(table, "from", jumps)
        change.base_chain(table, "forward", "filter", nft.HOOK_FORWARD, nft.PRIORITY_FILTER)
        accept = nftexpr.verdict(nft.NF_ACCEPT)
        self._rule(change, "forward", *_INTO_OURS, *nftexpr.of_known_connection(), accept)
        self._rule(change, "forward", nftexpr.load_meta(nftexpr.META_IIFNAME), nftexpr.verdict_from("from"))
        self._rule(change, "forward", *_INTO_OURS, *nftexpr.of_changed_destination(), accept)
        self._into_routed(change, "forward")
        self._from_outside(change)
        self._rule(change, "forward", *_INTO_OURS, nftexpr.counter(), nftexpr.verdict(nft.NF_DROP))

    def _from_outside(self, change: nft.Ruleset) -> None:
        """Let everything into unprotected bridges, and what trusted links send to published ports untranslated."""
        table, accept = self._table, nftexpr.verdict(nft.NF_ACCEPT)
        bare = [each.name for each in self._bridges if each.mode == "nat-unprotected" and not each.closed]
        if bare:
            change.set(table, "unprotected", nft.IFNAME_TYPE, nft.IFNAMSIZ)
            change.add_elements(table, "unprotected", [nftexpr.interface_key(each) for each in bare])
            into = (nftexpr.load_meta(nftexpr.META_OIFNAME), nftexpr.in_set("unprotected"))
            self._rule(change, "forward", *into, accept)
        pairs = [(link, each.name) for each in self._trusting for link in each.trusted]
        if pairs:
            keys = [nftexpr.interface_key(link) + nftexpr.interface_key(name) for link, name in pairs]
            kind = nftexpr.joined_type(nft.IFNAME_TYPE, nft.IFNAME_TYPE)
            change.set(table, "trusted", kind, 2 * nft.IFNAMSIZ)
            change.add_elements(table, "trusted", keys)
            both = (*nftexpr.load_both_interfaces(), nftexpr.joined_in_set("trusted"))
            self._rule(change, "forward", *both, *self._to_open_port, accept)

    def _postrouting(self, change: nft.Ruleset) -> None:
        change.base_chain(self._table, "postrouting", "nat", nft.HOOK_POSTROUTING, nft.PRIORITY_SRCNAT)
        masquerade = (nftexpr.counter(), nftexpr.masquerade())
        for bridge in self._bridges:
            if bridge.subnet is None or bridge.closed or not bridge.mode.startswith("nat"):
                continue
            inside = nftexpr.from_subnet(bridge.subnet)
            if bridge.masquerade:
                out = nftexpr.to_interface(bridge.name, equal=False)
                self._rule(change, "postrouting", *inside, *out, *masquerade)
            back = (*nftexpr.to_interface(bridge.name), *nftexpr.of_changed_destination())
            self._rule(change, "postrouting", *inside, *back, *masquerade)
        if self.version == 4:
            self._rule(change, "postrouting", *nftexpr.from_subnet(_LOOPBACK), *_INTO_OURS, *masquerade)

    # Ports

    @property
    def _to_open_port(self) -> tuple[bytes, ...]:
        return (*nftexpr.load_port_key(address=True, version=self.version), nftexpr.joined_in_set(_OPEN))

    @property
    def _place_key(self) -> tuple[int, int]:
        kind, length = _ADDRESS[self.version]
        return nftexpr.joined_type(kind, nft.PROTOCOL_TYPE, nft.PORT_TYPE), length + 8

    def _published(self, change: nft.Ruleset) -> None:
        """Make the maps of published ports and the chains that look into them."""
        table, (kind, length) = self._table, _ADDRESS[self.version]
        target = (nftexpr.joined_type(kind, nft.PORT_TYPE), length + 4)
        change.data_map(table, "published", (nftexpr.joined_type(nft.PROTOCOL_TYPE, nft.PORT_TYPE), 8), target)
        change.data_map(table, "published-at", self._place_key, target)
        change.chain(table, "published")
        if self.version == 6:
            for match in _LEFT_ALONE:
                self._rule(change, "published", *match, nftexpr.verdict(nft.NFT_RETURN))
        for name in reversed(_MAPS):
            key = nftexpr.load_port_key(address=name == "published-at", version=self.version)
            self._rule(change, "published", *key, *nftexpr.destination_from(name, self.version))
        for chain, hook in (("prerouting", nft.HOOK_PREROUTING), ("output", nft.HOOK_OUTPUT)):
            change.base_chain(table, chain, "nat", hook, nft.PRIORITY_DSTNAT)
            jump = nftexpr.verdict(nft.NFT_JUMP, "published")
            self._rule(change, chain, *nftexpr.to_this_host(), jump)
        if self.version == 4:
            self._raw(change)

    def _raw(self, change: nft.Ruleset) -> None:
        change.base_chain(self._table, "raw", "filter", nft.HOOK_PREROUTING, nft.PRIORITY_RAW)
        for match in (nftexpr.from_subnet, nftexpr.to_subnet):
            outside = nftexpr.from_interface("lo", equal=False)
            drop = (nftexpr.counter(), nftexpr.verdict(nft.NF_DROP))
            self._rule(change, "raw", *outside, *match(_LOOPBACK), *drop)

    def add(self, change: nft.Ruleset, forwards: Iterable[Forward]) -> None:
        """Make elements for forwards of this family."""
        chosen = list(forwards)
        for name in _MAPS:
            targets = {
                _key(each): nftexpr.address_and_port(each.to_address, each.to_port)
                for each in chosen
                if _map_of(each) == name and not _behind(self._routed, each)
            }
            change.add_data(self._table, name, targets)
        change.add_elements(self._table, _OPEN, self._open(chosen))

    def remove(self, change: nft.Ruleset, forwards: Collection[Forward], left: Iterable[Forward]) -> None:
        """Take the elements of forwards of this family away. left: those that stay, which may lead to the same port."""
        led = [each for each in forwards if not _behind(self._routed, each)]
        for name in _MAPS:
            change.delete_elements(self._table, name, [_key(each) for each in led if _map_of(each) == name])
        opened = self._open(forwards)
        if opened:
            change.delete_elements(self._table, _OPEN, opened - {_open_key(each) for each in left})

    def _open(self, forwards: Iterable[Forward]) -> set[bytes]:
        around = [*self._routed, *self._trusting]
        return {_open_key(each) for each in forwards if _behind(around, each)}


def _behind(bridges: Collection[_Bridge], forward: Forward) -> bool:
    if not bridges:
        return False
    address = ipaddress.ip_address(forward.to_address)
    return any(each.subnet is not None and address in each.subnet for each in bridges)


def _map_of(forward: Forward) -> str:
    return "published-at" if forward.address else "published"


def _key(forward: Forward) -> bytes:
    return nftexpr.port_key(forward.address, forward.protocol, forward.port)


def _open_key(forward: Forward) -> bytes:
    return nftexpr.port_key(forward.to_address, forward.protocol, forward.to_port)
