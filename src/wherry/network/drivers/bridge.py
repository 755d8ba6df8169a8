"""The driver "bridge": a bridge on the host, and a veth pair per endpoint with one end as its port.

A link is known as ours by its group number, a hash of the bridge's name, which the kernel keeps through every crash;
a bridge by its alias. What somebody else made is used (`--bridge br0`) but never deleted. Two engines cannot have the
same bridge: its name is claimed for as long as the engine lives.

MAC addresses are 02:42 and the IPv4 address. So an address that goes to another container keeps its MAC, and no ARP
cache, the host's or another container's, is ever wrong; dockerd 28 has random ones and must announce each (RFC 5227).
"""

from __future__ import annotations

import errno
import hashlib
import ipaddress
import os
import socket
from collections.abc import Collection
from contextlib import ExitStack

from msgspec import structs

from wherry.errors import Conflict, InvalidArgument, SystemFailure
from wherry.kernel.netlink import addr, link
from wherry.kernel.netlink.claim import Claim
from wherry.kernel.netlink.link import Link
from wherry.kernel.netlink.socket import NetlinkSocket
from wherry.network import forwarding, sysctls
from wherry.network.api import Endpoint
from wherry.network.bridgeplan import ALIAS, BridgePlan
from wherry.network.driver import START, START_WAIT, Joined
from wherry.network.firewall.api import Firewall
from wherry.network.ipam import subnets
from wherry.network.records import Attached, Network

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
            gateway = self._choose(netlink, network, found, avoid)
            if found is None:
                undo.callback(netlink.apply, link.delete_link(name))
                found = self._make(netlink, name)
            self._set_up(netlink, found, gateway)
            undo.callback(self._firewall.uninstall, name)
            self._firewall.install(self._plan.rules(str(gateway.network)))
            if self._plan.ip_forward and not self._plan.internal:
                forwarding.enable(netlink, self._firewall)
            undo.pop_all()
            self._claim, self._index = claim, found.index
        subnet, address = str(gateway.network), str(gateway.ip)
        return structs.replace(network, subnet=subnet, gateway=address, options=dict(self._plan.shown))

    def _claimed(self, name: str) -> Claim:
        try:
            return Claim(f"bridge {name}")
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise Conflict(f"bridge {name} is in use by another engine on this machine: {self._plan.advice}") from error

    def _choose(
        self, netlink: NetlinkSocket, network: Network, found: Link | None, avoid: Collection[subnets.Subnet]
    ) -> ipaddress.IPv4Interface:
        """Return the bridge's address: the one asked for, the one it has, that of the last time, or a free one."""
        if self._plan.address:
            return ipaddress.IPv4Interface(self._plan.address)
        index = found.index if found else 0
        for each in addr.list_addresses(netlink, socket.AF_INET):
            if index and each.link == index:
                return ipaddress.IPv4Interface(f"{each.address}/{each.prefix}")
        if not self._ours:
            advice = f"give it one, or {self._plan.subnet_advice}"
            raise InvalidArgument(f"bridge {self._plan.name} has no IPv4 address: {advice}")
        subnet = subnets.choose([*subnets.taken(netlink, index), *avoid], network.subnet)
        return ipaddress.IPv4Interface(f"{subnet.network_address + 1}/{subnet.prefixlen}")

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

    def _set_up(self, netlink: NetlinkSocket, bridge: Link, gateway: ipaddress.IPv4Interface) -> None:
        """Bring an existing bridge to its address. Without IPv6 on it, no container reaches the host's fe80:: address.

        accept_ra: the host must not take routes from a container (CVE-2020-13401).
        """
        requests = [] if bridge.up else [link.set_up(bridge.index)]
        have = [each for each in addr.list_addresses(netlink, socket.AF_INET) if each.link == bridge.index]
        wanted = (str(gateway.ip), gateway.network.prefixlen)
        if self._ours:
            for name in ("disable_ipv6", "accept_ra"):
                path = f"net/ipv6/conf/{bridge.name}/{name}"
                sysctls.write(path, "1" if name == "disable_ipv6" else "0", missing_ok=True)
            requests += [
                addr.delete_address(bridge.index, each.address, each.prefix)
                for each in have
                if (each.address, each.prefix) != wanted
            ]
        if wanted not in [(each.address, each.prefix) for each in have]:
            broadcast = str(gateway.network.broadcast_address)
            requests.append(addr.new_address(bridge.index, *wanted, broadcast=broadcast))
        netlink.apply(*requests)

    def mac(self, endpoint: Endpoint) -> str:
        """Return the MAC address that belongs to an address."""
        return (bytes((0x02, 0x42)) + socket.inet_aton(endpoint.ipv4)).hex(":")

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

    def detach(self, netlink: NetlinkSocket, network: Network, ended: Collection[Attached]) -> None:
        """Delete veth pairs, all at once. Those whose namespace has ended are gone already, which is fine."""
        self._delete(netlink, [each.host_link for each in ended if each.host_link])

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


def strays(netlink: NetlinkSocket, owner: str, known: Collection[str]) -> list[str]:
    """Return the bridges that an engine made for networks that it does not know: one that was killed in between."""
    prefix = f"{ALIAS} {owner} "
    bridges = [each for each in link.list_links(netlink) if each.kind == "bridge" and each.alias.startswith(prefix)]
    return [each.name for each in bridges if each.alias.removeprefix(prefix) not in known]
