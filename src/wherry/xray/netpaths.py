"""The ways of packets that say most about a network: in by a published port, out, back, unasked, and between two.

Outside is a client of TEST-NET-2 or of 2001:db8::/32 (RFC 5737, 3849), addresses that nobody has. It comes in where the
default route goes out.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import replace

from wherry.kernel.netlink.link import IFF_LOOPBACK
from wherry.models.xray_network import Path, PublishedPort, Sysctl
from wherry.xray import netsysctls
from wherry.xray.netsubject import AskedPort, NetworkSubject
from wherry.xray.network import MAIN_TABLE, View
from wherry.xray.packet import Host, Packet
from wherry.xray.path import Walk, join
from wherry.xray.ruleset import Ruleset

CLIENTS = {4: "198.51.100.10", 6: "2001:db8::10"}
NOWHERE = "no route"
HTTPS = 443
HTTP = 80


def leaves_by(host: View, address: str) -> str:
    """Return the link by which the host sends to an address, by the longest prefix of its main table; "" for none."""
    wanted = ipaddress.ip_address(address)
    names = {each.index: each.name for each in host.links}
    best, link = -1, 0
    for each in host.routes:
        default = "::" if wanted.version == 6 else "0.0.0.0"
        if each.table != MAIN_TABLE or (":" in (each.destination or each.gateway)) != (wanted.version == 6):
            continue
        network = ipaddress.ip_network(f"{each.destination or default}/{each.prefix}", strict=False)
        if wanted in network and each.prefix > best:
            best, link = each.prefix, each.link
    return names.get(link, "")


def ways_out(host: View) -> tuple[str, ...]:
    """Return the links that default routes go out by, the first one first."""
    names = {each.index: each.name for each in host.links}
    found = [names.get(each.link, "") for each in host.routes if each.table == MAIN_TABLE and not each.destination]
    return tuple(dict.fromkeys(each for each in found if each))


class Ways:
    """Makes the paths of one network."""

    def __init__(self, subject: NetworkSubject, rules: Ruleset, host: View, sysctls: Sequence[Sysctl]) -> None:
        """Know everything; nothing is read any more but elements of sets."""
        self._subject = subject
        self._rules = rules
        self._view = host
        self._sysctls = sysctls
        named = {each.index: each.name for each in host.links}
        addresses: dict[str, list[str]] = {}
        for each in host.addresses:
            addresses.setdefault(named.get(each.link, ""), []).append(each.address)
        self._host = Host(addresses, {name: index for index, name in named.items()})

    def all(self, ports: Sequence[AskedPort]) -> tuple[tuple[Path, ...], tuple[PublishedPort, ...]]:
        """Return every path, and the published ports with what the rules make of them."""
        published = [(port, self._published(port)) for port in ports]
        shown = tuple(
            PublishedPort(
                protocol=port.protocol,
                address=port.address,
                port=port.port,
                container=port.container,
                to_address=port.to_address,
                to_port=port.to_port,
                mapped=self._leads(port, path),
            )
            for port, path in published
        )
        others = [path for family in self._families() for path in self._ways(family)]
        return (*(path for _, path in published), *others), shown

    def _leads(self, port: AskedPort, path: Path) -> bool:
        there = path.ends_as.endswith(f" to {join(port.to_address, port.to_port)}")
        return there and (path.arrives or (6 if ":" in port.to_address else 4) not in self._subject.routed)

    def _families(self) -> list[int]:
        return [family for family in (4, 6) if any((":" in each) == (family == 6) for each in self._subject.subnets)]

    def _ways(self, family: int) -> Iterator[Path]:
        own = self._address(family)
        if not own:
            return
        subject, outside, client = self._subject, self._outside(family), CLIENTS[family]
        asks = Packet("tcp", own, client, HTTPS, comes_in=subject.bridge)
        yield self._walk("out", asks, ("prerouting", "forward", "postrouting"))
        back = Packet("tcp", client, own, 40000, HTTPS, outside, subject.bridge, "established")
        yield self._walk("answer", back, ("forward", "postrouting"))
        for link, source in self._strangers(family, outside, client):
            unasked = Packet("tcp", source, own, self._port(family), comes_in=link, goes_out=subject.bridge)
            yield self._walk("foreign", unasked, ("prerouting", "forward", "postrouting"))
        yield from self._among(family, own)

    def _strangers(self, family: int, outside: str, client: str) -> Iterator[tuple[str, str]]:
        """Yield who is no member: somebody outside, and who is in another network of the engine."""
        if outside:
            yield outside, client
        for bridge in self._subject.others:
            address = self._host.first(bridge, family)
            if address:
                yield bridge, str(ipaddress.ip_address(address) + 1)

    def _among(self, family: int, own: str) -> Iterator[Path]:
        """Yield the way between two containers; it meets rules only where br_netfilter makes it."""
        name = netsysctls.BRIDGED6 if family == 6 else netsysctls.BRIDGED
        hooks = ("prerouting", "forward", "postrouting") if netsysctls.value(self._sysctls, name) == "1" else ()
        bridge = self._subject.bridge
        other = str(ipaddress.ip_address(own) + 1)
        yield self._walk("among", Packet("tcp", other, own, self._port(family), 40000, bridge, bridge), hooks)

    def _address(self, family: int) -> str:
        """Return the address of a container, or of one that could be in the network."""
        for member in self._subject.members:
            for each in member.addresses:
                if (":" in each) == (family == 6):
                    return each.partition("/")[0]
        subnets = [each for each in self._subject.subnets if (":" in each) == (family == 6)]
        return str(ipaddress.ip_network(subnets[0])[2]) if subnets else ""

    def _port(self, family: int) -> int:
        ports = [each.to_port for each in self._subject.ports if (":" in each.to_address) == (family == 6)]
        return ports[0] if ports else HTTP

    def _outside(self, family: int) -> str:
        """Return the link to the outside: that of the default route, else one that is no network of containers."""
        found = leaves_by(self._view, CLIENTS[family])
        if found:
            return found
        for each in self._view.links:
            plain = each.kind in ("", "veth", "vlan", "bond") and not each.master and not each.flags & IFF_LOOPBACK
            if plain and each.up and self._host.first(each.name, family):
                return each.name
        return ""

    def _published(self, port: AskedPort) -> Path:
        family = 6 if ":" in port.to_address else 4
        if family in self._subject.routed:
            packet = Packet(port.protocol, CLIENTS[family], port.to_address, port.to_port)
            packet = replace(packet, comes_in=self._outside(family), goes_out=self._subject.bridge)
            return self._walk("published", packet, ("prerouting", "forward", "postrouting"))
        if port.address.startswith("127.") or port.address == "::1":
            packet = Packet(port.protocol, port.address, port.address, port.port, goes_out="lo")
            return self._walk("published", packet, ("output", "postrouting"))
        outside = self._outside(family)
        address = port.address or self._host.first(outside, family) or self._host.first(self._subject.bridge, family)
        packet = Packet(port.protocol, CLIENTS[family], address, port.port, comes_in=outside)
        return self._walk("published", packet, ("prerouting", "forward", "postrouting"))

    def _walk(self, kind: str, packet: Packet, hooks: Sequence[str]) -> Path:
        walk = Walk(self._rules, self._host, packet)
        arrives = True
        for hook in hooks:
            if hook in ("forward", "postrouting") and not self._routed(walk, packet):
                walk.through("input")
                arrives = False
                break
            if hook == "forward" and not walk.packet.goes_out:
                walk.refused(NOWHERE, "no route of the host leads there: drop it")
            elif hook != "forward" or self._forwards(walk, packet):
                walk.through(hook)
            if walk.stopped_by >= 0:
                arrives = False
                break
        end = walk.packet
        return Path(
            kind=kind,
            family=packet.family,
            protocol=packet.protocol,
            source=join(packet.source, packet.source_port),
            destination=join(packet.destination, packet.port),
            from_link=packet.comes_in,
            to_link=end.goes_out,
            steps=tuple(walk.steps),
            arrives=arrives,
            stopped_by=walk.stopped_by,
            ends_as=f"{join(end.source, end.source_port)} to {join(end.destination, end.port)}",
        )

    def _routed(self, walk: Walk, asked: Packet) -> bool:
        """Decide where it leaves, once its destination is known; False: it is for the host itself."""
        if self._host.has(walk.packet.destination):
            return False
        if not asked.goes_out or walk.packet.destination != asked.destination:
            walk.packet = replace(walk.packet, goes_out=leaves_by(self._view, walk.packet.destination))
        return True

    def _forwards(self, walk: Walk, asked: Packet) -> bool:
        """Whether the kernel passes packets on from that link at all; a setting that says no is a step like a rule."""
        if walk.packet.comes_in == walk.packet.goes_out == self._subject.bridge:
            return True  # bridged, not routed
        link, six = asked.comes_in, asked.family == 6
        for name in (netsysctls.FORWARDING6,) if six else (netsysctls.shown(f"net/ipv4/conf/{link}/forwarding"),):
            if netsysctls.value(self._sysctls, name) == "0":
                walk.refused(f"{name} = 0", "this host passes nothing on from there: drop it")
                return False
        return True
