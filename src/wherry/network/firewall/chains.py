"""What stands in dockerd's chains, as words of iptables-restore. PURE.

    filter FORWARD                   -j DOCKER-USER                   first: an administrator's own rules, never ours
                                     -j DOCKER-FORWARD
    filter DOCKER-FORWARD            -j DOCKER-CT, -j DOCKER-ISOLATION-STAGE-1, -j DOCKER-BRIDGE
                                     -i BRIDGE -j ACCEPT              containers may go out, and to each other
    filter DOCKER-CT                 -o BRIDGE ctstate RELATED,ESTABLISHED ACCEPT
    filter DOCKER-ISOLATION-STAGE-1  -i BRIDGE ! -o BRIDGE            jump to STAGE-2; internal: DROP
    filter DOCKER-ISOLATION-STAGE-2  -o BRIDGE                        DROP, but for what a published port let in
    filter DOCKER-BRIDGE             -o BRIDGE -j DOCKER
    filter DOCKER                    -d CONTAINER ! -i BRIDGE -o BRIDGE -p tcp --dport PORT -j ACCEPT    per port
                                     ! -i BRIDGE -o BRIDGE -j DROP
    nat PREROUTING, OUTPUT           addrtype --dst-type LOCAL -j DOCKER          (OUTPUT: ! -d 127.0.0.0/8)
    nat OUTPUT                       -d 127.0.0.0/8 -j wherry-BRIDGE              our own chain, with our ports alone:
                                     for dockerd's, docker-proxy listens there
    nat DOCKER                       -p tcp --dport PORT -j DNAT --to-destination CONTAINER:PORT         per port
    nat POSTROUTING                  -s SUBNET ! -o BRIDGE -j MASQUERADE
    raw PREROUTING                   -d CONTAINER ! -i BRIDGE -j DROP                                    per container

Names, places and forms are those of dockerd 28.5 as iptables-save shows them. What differs is what its docker-proxy
does there and no process does here: a client of the same subnet, or at 127.0.0.1, is masqueraded, and a container of
another network may come in by a published port. docs/compat.md lists each difference.

Every rule of ours ends its matches with `-m comment --comment wherry-BRIDGE`, the name of its engine. That is what
owning means: an engine removes rules with its own comment and no others.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from wherry.errors import InvalidArgument
from wherry.network.config import BRIDGE_NAME
from wherry.network.firewall.api import BridgeRules, Forward, Passage

TABLES = ("raw", "filter", "nat")
CHAINS = {
    "filter": (
        *("DOCKER", "DOCKER-BRIDGE", "DOCKER-CT", "DOCKER-FORWARD", "DOCKER-ISOLATION-STAGE-1"),
        *("DOCKER-ISOLATION-STAGE-2", "DOCKER-USER"),
    ),
    "nat": ("DOCKER",),
    "raw": (),
}
USER = "DOCKER-USER"
PROTOCOLS = {6: "tcp", 17: "udp", 132: "sctp"}
OWN = "nat"
"""The table that has a chain of the engine's own, with its comment as the name, in IPv4."""
OF_PORTS = {("filter", "DOCKER"), ("nat", "DOCKER"), ("raw", "PREROUTING")}
TAG = re.compile(r"wherry-[A-Za-z0-9_.-]+")
_WORD = re.compile(r"!|[A-Za-z0-9_.:/,\[\]-]+")
_LOOPBACK = "127.0.0.0/8"


def of_ports(table: str, chain: str) -> bool:
    """Whether a chain is as long as there are ports, so that the order of ours in it does not matter."""
    return (table, chain) in OF_PORTS or bool(TAG.fullmatch(chain))


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. words: matches and target as iptables-save writes them. first: before all others of its chain."""

    table: str
    chain: str
    words: tuple[str, ...]
    first: bool = False

    @property
    def text(self) -> str:
        """What follows the chain's name in a line of iptables-save; raises InvalidArgument for what is no word."""
        for word in self.words:
            if not _WORD.fullmatch(word):
                raise InvalidArgument(f"{word!r} cannot be part of a firewall rule")
        return " ".join(self.words)


@dataclass(frozen=True, slots=True)
class Jumps:
    """Rules that lead from one chain to others, in order; on_top: before everything else in it."""

    table: str
    chain: str
    texts: tuple[str, ...]
    on_top: bool = False


def jumps(family: int) -> tuple[Jumps, ...]:
    """Return what leads into the chains; it belongs to nobody: all engines and dockerd have the same.

    Without 127.0.0.0/8, as with dockerd: packets to its ports there must reach docker-proxy. To ::1 nothing can be led
    at all: its packets leave the loopback link by no setting.
    """
    local = "-m addrtype --dst-type LOCAL -j DOCKER"
    here = _LOOPBACK if family == 4 else "::1/128"
    return (
        Jumps("filter", "FORWARD", (f"-j {USER}", "-j DOCKER-FORWARD"), on_top=True),
        Jumps(
            *("filter", "DOCKER-FORWARD", ("-j DOCKER-CT", "-j DOCKER-ISOLATION-STAGE-1", "-j DOCKER-BRIDGE")),
            on_top=True,
        ),
        Jumps("nat", "PREROUTING", (local,)),
        Jumps("nat", "OUTPUT", (f"! -d {here} {local}",)),
    )


@dataclass(frozen=True, slots=True)
class _Network:
    """One family of a bridge, and who writes its rules."""

    tag: str
    family: int
    bridge: str
    subnet: str
    masquerade: bool
    mode: str
    icc: bool
    closed: bool
    trusted: tuple[str, ...]

    def rule(self, table: str, chain: str, matches: str, target: str, *, first: bool = False) -> Rule:
        comment = ("-m", "comment", "--comment", self.tag)
        return Rule(table, chain, (*matches.split(), *comment, "-j", *target.split()), first)


def _network(tag: str, family: int, rules: BridgeRules) -> _Network | None:
    subnet = rules.subnet if family == 4 else rules.subnet6
    if not subnet:
        return None
    for name in (rules.bridge, *rules.trusted):
        if not BRIDGE_NAME.fullmatch(name):
            raise InvalidArgument(f"invalid name {name!r} of a link")
    mode = rules.gateway_mode if family == 4 else rules.gateway_mode6
    return _Network(
        tag=tag,
        family=family,
        bridge=rules.bridge,
        subnet=str(ipaddress.ip_network(subnet)),
        masquerade=(rules.masquerade if family == 4 else rules.masquerade6) and mode.startswith("nat"),
        mode=mode,
        icc=rules.icc,
        closed=rules.internal or mode == "isolated",
        trusted=rules.trusted,
    )


def of_engine(tag: str, family: int) -> list[Rule]:
    """Return the rules that an engine has whatever its networks are: 127.0.0.0/8 is nobody's on a wire.

    route_localnet on a bridge would let its containers send there, and the host answer (CVE-2020-8558). What the host
    itself sends there may be for one of our ports.
    """
    if not TAG.fullmatch(tag):
        raise InvalidArgument(f"invalid name {tag!r} of an engine's rules")
    if family == 6:
        return []
    comment = ("-m", "comment", "--comment", tag, "-j")
    strange = [
        Rule("raw", "PREROUTING", (flag, _LOOPBACK, "!", "-i", "lo", *comment, "DROP")) for flag in ("-s", "-d")
    ]
    return [*strange, Rule("nat", "OUTPUT", ("-d", _LOOPBACK, *comment, tag))]


def of_bridge(tag: str, family: int, rules: BridgeRules) -> list[Rule]:
    """Return the rules of a bridge without its ports; none when it does not have the family."""
    net = _network(tag, family, rules)
    if net is None:
        return []
    return [*_isolation(net), *_forward(net), *_translation(net), *_passages(net, rules.passages)]


def _passages(net: _Network, passages: Iterable[Passage]) -> list[Rule]:
    """Let what is for a linked container pass, and what comes back, as dockerd does."""
    found = []
    for each in passages if net.family == 4 else ():
        protocol, port = PROTOCOLS[each.protocol], _port(each.port)
        source, target = (_single(ipaddress.ip_address(address)) for address in (each.source, each.target))
        within = f"-i {net.bridge} -o {net.bridge} -p {protocol} -m {protocol}"
        ways = f"-s {source} -d {target} {within} --dport {port}", f"-s {target} -d {source} {within} --sport {port}"
        found += [net.rule("filter", "DOCKER", way, "ACCEPT", first=True) for way in ways]
    return found


def _isolation(net: _Network) -> list[Rule]:
    one, two = "DOCKER-ISOLATION-STAGE-1", "DOCKER-ISOLATION-STAGE-2"
    name = net.bridge
    if net.closed:
        # Where br_netfilter is loaded, what stays on the bridge comes here too, and neighbours ask each other by
        # multicast (RFC 4861), whose addresses are in no subnet.
        into, out = f"! -s {net.subnet} -o {name}", f"! -d {net.subnet} -i {name}"
        if net.family == 6:
            into, out = f"! -i {name} -o {name}", f"-i {name} ! -o {name}"
        return [net.rule("filter", one, each, "DROP", first=True) for each in (into, out)]
    found = []
    if net.mode == "routed":
        known = f"-i {name} -m conntrack --ctstate RELATED,ESTABLISHED"
        found = [net.rule("filter", one, known, "ACCEPT"), net.rule("filter", one, f"-o {name}", "RETURN")]
    return [
        *found,
        net.rule("filter", one, f"-i {name} ! -o {name}", two),
        net.rule("filter", two, f"-o {name} -m conntrack ! --ctstate DNAT", "DROP"),
    ]


def _forward(net: _Network) -> list[Rule]:
    name = net.bridge
    into = f"! -i {name} -o {name}"
    found = [net.rule("filter", "DOCKER-BRIDGE", f"-o {name}", "DOCKER")]
    if net.closed:
        # the subnet's own addresses as a source, from outside, are not let in either
        within = net.rule("filter", "DOCKER-FORWARD", f"-i {name} -o {name}", "ACCEPT" if net.icc else "DROP")
        return [*found, net.rule("filter", "DOCKER", into, "DROP"), within]
    known = f"-o {name} -m conntrack --ctstate RELATED,ESTABLISHED"
    found.append(net.rule("filter", "DOCKER-CT", known, "ACCEPT"))
    if net.mode == "routed":
        protocol = "icmp" if net.family == 4 else "ipv6-icmp"
        found.append(net.rule("filter", "DOCKER", f"-o {name} -p {protocol}", "ACCEPT", first=True))
    if net.icc:
        found.append(net.rule("filter", "DOCKER-FORWARD", f"-i {name}", "ACCEPT"))
    else:
        neighbour = f"-i {name} -o {name} -m conntrack --ctstate DNAT"
        found.append(net.rule("filter", "DOCKER", neighbour, "ACCEPT", first=True))
        found.append(net.rule("filter", "DOCKER-FORWARD", f"-i {name} -o {name}", "DROP"))
        found.append(net.rule("filter", "DOCKER-FORWARD", f"-i {name} ! -o {name}", "ACCEPT"))
    found.append(net.rule("filter", "DOCKER", into, "ACCEPT" if net.mode == "nat-unprotected" else "DROP"))
    return found


def _translation(net: _Network) -> list[Rule]:
    found = []
    if net.masquerade and not net.closed:
        out = f"-s {net.subnet} ! -o {net.bridge}"
        found.append(net.rule("nat", "POSTROUTING", out, "MASQUERADE", first=True))
    if net.mode.startswith("nat") and not net.closed:
        back = f"-s {net.subnet} -o {net.bridge} -m conntrack --ctstate DNAT"
        found.append(net.rule("nat", "POSTROUTING", back, "MASQUERADE", first=True))
        if net.family == 4:
            found.append(
                net.rule("nat", "POSTROUTING", f"-s {_LOOPBACK} -o {net.bridge}", "MASQUERADE", first=True)
            )
    return found


def of_forward(tag: str, rules: BridgeRules, forward: Forward) -> list[Rule]:
    """Return the rules of a published port of a container behind a bridge."""
    net = _network(tag, forward.family, rules)
    protocol = PROTOCOLS.get(forward.protocol)
    if net is None or net.closed or protocol is None:
        return []
    port, inner = _port(forward.port), _port(forward.to_port)
    target = ipaddress.ip_address(forward.to_address)
    accept = _accepted(net, f"-d {_single(target)}", f"-p {protocol} -m {protocol} --dport {inner}")
    if net.mode == "routed":
        return accept
    match = f"-p {protocol} -m {protocol} --dport {port}"
    if forward.address:
        match = f"-d {_single(ipaddress.ip_address(forward.address))} {match}"
    if net.family == 6:
        match = f"! -s fe80::/10 {match}"
    where = f"[{target}]:{inner}" if net.family == 6 else f"{target}:{inner}"
    places = ["DOCKER"] if net.family == 6 or not _on_loopback(forward.address) else ["DOCKER", tag]
    return [*accept, *(net.rule("nat", place, match, f"DNAT --to-destination {where}") for place in places)]


def _on_loopback(address: str) -> bool:
    return not address or ipaddress.ip_address(address).is_loopback


def _accepted(net: _Network, target: str, port: str) -> list[Rule]:
    """Let what is for a published port pass; where of_target has nothing to say, only what was translated."""
    if net.mode == "nat-unprotected":
        return []
    words = f"{target} ! -i {net.bridge} -o {net.bridge} {port}"
    if net.masquerade or net.mode == "routed":
        return [net.rule("filter", "DOCKER", words, "ACCEPT", first=True)]
    trusted = [f"{target} -i {name} -o {net.bridge} {port}" for name in net.trusted]
    all_of_it = [*trusted, f"{words} -m conntrack --ctstate DNAT"]
    return [net.rule("filter", "DOCKER", each, "ACCEPT", first=True) for each in all_of_it]


def of_target(tag: str, rules: BridgeRules, address: str) -> list[Rule]:
    """Return the rules of a container that publishes ports: it is reached by them alone, not by its own address,
    but from trusted links.

    Without masquerading, answers to what it asked the world come to its own address, so that raw cannot tell them
    from others; then only what was translated is accepted.
    """
    target = ipaddress.ip_address(address)
    net = _network(tag, target.version, rules)
    if net is None or net.closed or net.mode != "nat" or not net.masquerade:
        return []
    only = f"-d {_single(target)}"
    trusted = [net.rule("raw", "PREROUTING", f"{only} -i {name}", "ACCEPT", first=True) for name in net.trusted]
    return [*trusted, net.rule("raw", "PREROUTING", f"{only} ! -i {net.bridge}", "DROP")]


def behind(known: Iterable[BridgeRules], address: str) -> BridgeRules | None:
    """Return the bridge whose subnet an address is in."""
    target = ipaddress.ip_address(address)
    for each in known:
        subnet = each.subnet if target.version == 4 else each.subnet6
        if subnet and target in ipaddress.ip_network(subnet):
            return each
    return None


def _single(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    return f"{address}/{address.max_prefixlen}"


def _port(number: int) -> int:
    if not 0 < number < 65536:
        raise InvalidArgument(f"invalid port {number}")
    return number
