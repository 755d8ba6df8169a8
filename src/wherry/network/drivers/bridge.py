"""The driver "bridge": a bridge on the host, and a veth pair per endpoint with one end as its port.

A link is known as ours by its group number, a hash of the bridge's name, which the kernel keeps through every crash;
a bridge by its alias. What somebody else made is used (`--bridge br0`) but never deleted. Two engines cannot have the
same bridge: its name is claimed for as long as the engine lives.

MAC addresses are 02:42 and the IPv4 address, or follow from the IPv6 address where there is no other. So an address
that goes to another container keeps its MAC, and no neighbour's cache, the host's or another container's, is ever
wrong; dockerd 28 has random ones and must announce each (RFC 5227).
"""

from __future__ import annotations

import errno
import hashlib
import ipaddress
import os
import socket
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import replace

from msgspec import structs

from wherry.errors import Conflict, InvalidArgument, SystemFailure
from wherry.kernel.netlink import addr, link, neigh
from wherry.kernel.netlink.claim import Claim
from wherry.kernel.netlink.link import Link
from wherry.kernel.netlink.socket import NetlinkSocket
from wherry.network import forwarding, sysctls
from wherry.network.api import Endpoint
from wherry.network.bridgeplan import ALIAS, BridgePlan
from wherry.network.driver import START, START_WAIT, Joined
from wherry.network.firewall.api import BridgeRules, Firewall, Passage
from wherry.network.ipam import subnets
from wherry.network.records import Attached, Network

Address = ipaddress.IPv4Interface | ipaddress.IPv6Interface
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
NAME_ATTEMPTS = 8
BATCH = 64
"""Links that are gone already are answered with an error each, and all answers must fit into the socket's buffer."""


class BridgeDriver:
    """Driver of one bridge."""

    attachable = True

    def __init__(self, plan: BridgePlan, firewall: Firewall) -> None:
        """Know what to do; `open` does it."""
        self._plan = plan
        self._firewall = firewall
        self._index = 0
        self._ours = True
        self._exposed = False
        self._rules: BridgeRules | None = None
        self._claim: Claim | None = None
        digest = hashlib.sha256(plan.name.encode()).digest()
        self._group = 1 << 30 | int.from_bytes(digest[:4], "big") >> 3 << 1
        self._doomed = self._group | 1

    def open(self, network: Network, avoid: Collection[subnets.Subnet] = ()) -> Network:
        """Make the bridge or take it up, with its address and rules. Undone as a whole when a step fails."""
        name = self._plan.name
        with Claim(START, wait=START_WAIT), NetlinkSocket() as netlink, ExitStack() as undo:
            claim = self._claimed(name)
            undo.callback(claim.close)
            found = link.find_link(netlink, name)
            if found is not None and found.kind != "bridge":
                raise InvalidArgument(f"{name} exists and is no bridge: {self._plan.advice}")
            self._ours = found is None or self._plan.owns(found.alias)
            gateways = self._choose(netlink, network, found, avoid)
            network = self._with_subnets(network, gateways)
            if found is None:
                undo.callback(netlink.apply, link.delete_link(name))
                found = self._make(netlink, name)
            self._set_up(netlink, found, gateways)
            undo.callback(self._firewall.uninstall, name)
            self._rules = self._plan.rules(network)
            self._firewall.install(self._rules)
            if self._plan.ip_forward and not self._plan.internal:
                forwarding.enable(netlink, self._firewall, [each.version for each in gateways])
            undo.pop_all()
            self._claim, self._index = claim, found.index
        return structs.replace(network, options=dict(self._plan.shown))

    def _claimed(self, name: str) -> Claim:
        try:
            return Claim(f"bridge {name}")
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise Conflict(f"bridge {name} is in use by another engine on this machine: {self._plan.advice}") from error

    def _choose(
        self, netlink: NetlinkSocket, network: Network, found: Link | None, avoid: Collection[subnets.Subnet]
    ) -> list[Address]:
        """Return the bridge's addresses: those asked for, that it has, those of the last time, or free ones."""
        plan, index = self._plan, found.index if found else 0
        wanted = [(4, plan.address, network.subnet)] if plan.ipv4 else []
        wanted += [(6, plan.address6, network.subnet6)] if plan.ipv6 else []
        chosen: list[Address] = []
        for version, address, before in wanted:
            if plan.isolated(version) and before:  # an address of its subnet stands for that
                chosen.append(ipaddress.ip_interface(address or before))
                continue
            present = self._present(netlink, index, version) if index and not address else ""
            if not address and not present and not self._ours:
                advice = f"give it one, or {plan.subnet_advice}"
                raise InvalidArgument(f"bridge {plan.name} has no IPv{version} address: {advice}")
            if address or present:
                chosen.append(ipaddress.ip_interface(address or present))
                continue
            fallback = plan.fallback if version == 4 else plan.fallback6
            occupied = [*subnets.taken(netlink, index), *avoid]
            subnet = ipaddress.ip_network(fallback) if fallback else plan.space.choose(version, occupied, before)
            chosen.append(ipaddress.ip_interface(f"{subnet.network_address + 1}/{subnet.prefixlen}"))
        return chosen

    def _present(self, netlink: NetlinkSocket, index: int, version: int) -> str:
        """Return the first address of a family that a bridge has, with its prefix; "" without any."""
        return next((f"{each.address}/{each.prefix}" for each in _addresses(netlink, index, version)), "")

    def _with_subnets(self, network: Network, gateways: Collection[Address]) -> Network:
        """Return the network with the subnets and gateways that were chosen."""
        for each in gateways:
            subnet, address = str(each.network), str(each.ip)
            if each.version == 4:
                address = network.gateway if self._plan.isolated(4) else address
                network = structs.replace(network, subnet=subnet, gateway=address)
            else:
                address = network.gateway6 if self._plan.isolated(6) else address
                network = structs.replace(network, subnet6=subnet, gateway6=address)
        return network

    def _make(self, netlink: NetlinkSocket, name: str) -> Link:
        mac = bytes((0x02, 0x42)) + os.urandom(4)
        netlink.apply(
            link.new_bridge(name, mac=mac.hex(":"), mtu=self._plan.mtu),
            link.set_attributes(name, link.alias(self._plan.alias)),
        )
        made = link.find_link(netlink, name)
        if made is None:
            raise SystemFailure(f"bridge {name} disappeared while it was being made")
        return made

    def _set_up(self, netlink: NetlinkSocket, bridge: Link, gateways: Collection[Address]) -> None:
        """Bring an existing bridge to its addresses.

        Without IPv6 on it, no container reaches the host's fe80:: address. accept_ra: the host must not take routes
        from a container (CVE-2020-13401).
        """
        requests = [] if bridge.up else [link.set_up(bridge.index)]
        own = [each for each in gateways if self._plan.has_gateway(each.version)]
        wanted = {(str(each.ip), each.network.prefixlen): each for each in own}
        with_ipv6 = any(each.version == 6 for each in own)
        if self._ours or with_ipv6:
            conf = f"net/ipv6/conf/{bridge.name}"
            sysctls.write(f"{conf}/accept_ra", "0", missing_ok=True)
            sysctls.write(f"{conf}/disable_ipv6", "0" if with_ipv6 else "1", missing_ok=not with_ipv6)
        found = [each for version in (4, 6) for each in _addresses(netlink, bridge.index, version)]
        have = [(each.address, each.prefix) for each in found]
        if self._ours:
            requests += [addr.delete_address(bridge.index, *each) for each in have if each not in wanted]
        for each, gateway in wanted.items():
            if each not in have:
                broadcast = str(gateway.network.broadcast_address) if gateway.version == 4 else ""
                requests.append(addr.new_address(bridge.index, *each, broadcast=broadcast))
        netlink.apply(*requests)

    def mac(self, endpoint: Endpoint) -> str:
        """Return the MAC address that belongs to an address."""
        return (bytes((0x02, 0x42)) + _four_bytes(endpoint)).hex(":")

    def attach(self, netlink: NetlinkSocket, network: Network, endpoint: Endpoint, netns_fd: int) -> Joined:
        """Make a veth pair between the bridge and a namespace.

        Where containers may not talk to each other, their ports are isolated: the bridge forwards nothing between them.
        """
        if not self._index:
            raise SystemFailure(f"network {network.name} is down: the log of the engine's start says why")
        peer = link.VethPeer(endpoint.interface, netns_fd, endpoint.mac)
        for attempt in range(NAME_ATTEMPTS):
            name = f"veth{os.urandom(4).hex()[:7]}"
            pair = link.new_veth(name, peer, master=self._index, mtu=self._plan.mtu, group=self._group)
            try:
                netlink.apply(pair, *(() if self._plan.icc else (link.set_attributes(name, link.isolated()),)))
            except OSError as error:
                if error.errno != errno.EEXIST or attempt == NAME_ATTEMPTS - 1:
                    raise
                continue
            return Joined(endpoint, name)
        raise AssertionError("unreachable: the last attempt raises")

    def expose(self, name: str) -> None:
        """Let a container of a link reach its own published ports, and the host all from 127.0.0.1.

        Where br_netfilter is loaded, a packet that a container sends to its own published port is bridged back to the
        port that it came from (net/bridge/br_netfilter_hooks.c, bridged-dnat), which only happens with hairpin on.
        route_localnet (ip-sysctl.rst) lets packets of 127.0.0.1 out by the bridge, from the first that needs it on. The
        firewall's chain "raw" is there by then, and keeps containers from sending to 127.0.0.1 of the host.
        """
        with NetlinkSocket() as netlink:
            netlink.apply(link.set_attributes(name, link.hairpin()))
        if not self._exposed:
            sysctls.write(f"net/ipv4/conf/{self._plan.name}/route_localnet", "1")
            self._exposed = True

    def let_pass(self, passages: tuple[Passage, ...]) -> None:
        """Let containers that may not talk to each other do so by these ways, and no others; nothing with icc.

        Their ports are isolated, so packets go by way of the host, which answers for all addresses of the subnet then
        (proxy_arp_pvlan, RFC 3069, ip-sysctl.rst) and at once (proxy_delay, arp(7)), and routes back into the bridge.
        """
        if self._plan.icc or self._rules is None:
            return
        if passages:
            sysctls.write(f"net/ipv4/neigh/{self._plan.name}/proxy_delay", "0")
            sysctls.write(f"net/ipv4/conf/{self._plan.name}/proxy_arp_pvlan", "1")
        self._rules = replace(self._rules, passages=passages)
        self._firewall.install(self._rules)

    def detach(self, netlink: NetlinkSocket, network: Network, ended: Collection[Attached]) -> None:
        """Delete veth pairs, all at once. Those whose namespace has ended are gone already, which is fine.

        The host forgets them as neighbours too: below gc_thresh1 of arp(7) the kernel never would.
        """
        self._delete(netlink, [each.host_link for each in ended if each.host_link])
        self._forget(netlink, [text for each in ended for text in (each.endpoint.ipv4, each.endpoint.ipv6) if text])

    def _forget(self, netlink: NetlinkSocket, addresses: Sequence[str]) -> None:
        requests = [neigh.delete_neighbour(self._index, each) for each in addresses] if self._index else []
        for start in range(0, len(requests), BATCH):
            netlink.apply(*requests[start : start + BATCH])

    def _delete(self, netlink: NetlinkSocket, links: Collection[str]) -> None:
        into = link.group(self._doomed)
        moves = [link.set_attributes(name, into, missing_ok=True) for name in links]
        for start in range(0, len(moves), BATCH):
            netlink.apply(*moves[start : start + BATCH])
        netlink.apply(link.delete_group(self._doomed))

    def sweep(self, netlink: NetlinkSocket, network: Network, keep: Collection[Attached]) -> None:
        """Delete our links but those of running containers, which are put back when the bridge had to be made again."""
        kept = {each.host_link for each in keep}
        ours = [each for each in link.list_links(netlink) if each.group in (self._group, self._doomed)]
        self._delete(netlink, [each.name for each in ours if each.name not in kept])
        living = {text for each in keep for text in (each.endpoint.ipv4, each.endpoint.ipv6)}
        known = [each for kind in _FAMILIES.values() for each in neigh.list_neighbours(netlink, kind)]
        passing = [each for each in known if each.link == self._index and not each.state & neigh.NUD_PERMANENT]
        self._forget(netlink, [each.address for each in passing if each.address not in living])
        lost = [each.name for each in ours if each.name in kept and each.master != self._index]
        if self._index and lost:
            netlink.apply(*(link.set_attributes(name, link.master(self._index), missing_ok=True) for name in lost))

    def close(self, network: Network, *, remove: bool) -> None:
        """Give the bridge up; with remove delete what we made and turn forwarding off if no one else needs it."""
        if self._claim is None:
            if remove:  # it could not be brought up, but the firewall was told of it
                self._firewall.uninstall(self._plan.name)
            return
        with Claim(START, wait=START_WAIT), NetlinkSocket() as netlink:
            if remove:
                self.sweep(netlink, network, ())
                self._firewall.uninstall(self._plan.name)
                if self._ours:
                    netlink.apply(link.delete_link(self._plan.name))
                elif self._exposed:
                    sysctls.write(f"net/ipv4/conf/{self._plan.name}/route_localnet", "0", missing_ok=True)
                forwarding.disable(netlink, self._firewall, self._plan.name)
            self._claim.close()
            self._claim = None
            self._index = 0


def _four_bytes(endpoint: Endpoint) -> bytes:
    """Return an IPv4 address; without one, of IPv6, the last bits mixed with a hash of all before them.

    So two addresses of a subnet that differ in the last 32 bits only, as those that the engine chooses, never meet.
    """
    if endpoint.ipv4:
        return ipaddress.IPv4Address(endpoint.ipv4).packed
    address = ipaddress.IPv6Address(endpoint.ipv6).packed
    before = hashlib.sha256(address[:12]).digest()
    return bytes(own ^ other for own, other in zip(address[12:], before[:4], strict=True))


def _addresses(netlink: NetlinkSocket, index: int, version: int) -> list[addr.Address]:
    """Return the addresses of a link that somebody gave it: not what the kernel makes for every one (fe80::)."""
    found = [each for each in addr.list_addresses(netlink, _FAMILIES[version]) if each.link == index]
    return [each for each in found if not ipaddress.ip_address(each.address).is_link_local]


def strays(netlink: NetlinkSocket, owner: str, known: Collection[str]) -> list[str]:
    """Return the bridges that an engine made for networks that it does not know: one that was killed in between."""
    prefix = f"{ALIAS} {owner} "
    bridges = [each for each in link.list_links(netlink) if each.kind == "bridge" and each.alias.startswith(prefix)]
    return [each.name for each in bridges if each.alias.removeprefix(prefix) not in known]
