"""Which subnet a network gets when nobody says: the first that collides with nothing on this machine."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from wherry.errors import SystemFailure
from wherry.kernel.netlink import addr, route
from wherry.kernel.netlink.socket import NetlinkSocket
from wherry.network.hostfiles import nameservers

Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network

LINK_LOCAL = ipaddress.IPv6Network("fe80::/10")
MULTICAST = ipaddress.IPv6Network("ff00::/8")
ULA = ipaddress.IPv6Network("fd00::/8")


@dataclass(frozen=True, slots=True)
class Pool:
    """A block of addresses of which networks get subnets of one size. size: length of their prefix in bits."""

    base: Subnet
    size: int

    def first_free(self, taken: Iterable[tuple[int, int]]) -> Subnet | None:
        """Return the first subnet that overlaps none of these ranges, which are in order; None when there is none.

        Nothing is enumerated: a /48 has 65536 networks of 64 bits.
        """
        step = 1 << (self.base.max_prefixlen - self.size)
        start, end = int(self.base.network_address), int(self.base.broadcast_address)
        for low, high in taken:
            if high < start:
                continue
            if low > start + step - 1:
                break
            start = (high // step + 1) * step
        if start + step - 1 > end:
            return None
        kind = type(self.base)
        return kind((start, self.size))


def ipv4(text: str, size: int) -> Pool:
    """Return a block of IPv4 addresses."""
    return Pool(ipaddress.IPv4Network(text), size)


DEFAULT_POOLS = (
    *(ipv4(f"172.{second}.0.0/16", 16) for second in range(17, 20)),
    *(ipv4(f"172.{second}.0.0/14", 16) for second in (20, 24, 28)),
    ipv4("192.168.0.0/16", 20),
    ipv4("10.208.0.0/12", 24),
)
"""dockerd's pools in its order: 172.17.0.0/16 to 172.31.0.0/16, then /20s of 192.168.0.0/16, which are 31 networks.
What follows is ours: 4096 networks of 254 addresses, where few others are (Kubernetes has 10.96.0.0/12, 10.244.0.0/16).
"""


def pools(given: Sequence[Pool], global_id: bytes) -> tuple[Pool, ...]:
    """Return the blocks of an engine: those of its settings; for a family without any the built-in ones."""
    found = list(given)
    if not any(each.base.version == 4 for each in given):
        found += DEFAULT_POOLS
    if not any(each.base.version == 6 for each in given):
        found.append(unique_local(global_id))
    return tuple(found)


def unique_local(global_id: bytes) -> Pool:
    """Return the block of an engine in fd00::/8, by its 40 random bits (RFC 4193): 65536 networks of 64 bits."""
    number = int(ULA.network_address) | int.from_bytes(global_id, "big") << 80
    return Pool(ipaddress.IPv6Network((number, 48)), 64)


@dataclass(frozen=True, slots=True)
class AddressSpace:
    """The blocks that networks get their subnets of when nobody names one."""

    pools: Sequence[Pool] = field(default=DEFAULT_POOLS)

    def choose(self, version: int, taken: Iterable[Subnet], preferred: str = "") -> Subnet:
        """Return the preferred subnet (that of the last time) or the first one that overlaps nothing taken.

        version: 4 or 6. Raises SystemFailure, saying what to do.
        """
        occupied = [each for each in taken if each.version == version]
        if preferred:
            wanted = ipaddress.ip_network(preferred)
            if not any(overlapping(wanted, each) for each in occupied):
                return wanted
        ranges = sorted((int(each.network_address), int(each.broadcast_address)) for each in occupied)
        for pool in self.pools:
            if pool.base.version == version and (found := pool.first_free(ranges)) is not None:
                return found
        bridge, base = "--bip 10.200.0.1/16", "10.64.0.0/12,size=24"
        if version == 6:
            bridge, base = "--bip6 fd00:200::1/64", "fd00::/48,size=64"
        raise SystemFailure(
            "all predefined address pools have been fully subnetted: no IPv"
            f"{version} subnet is left that overlaps no network, route or name server of this machine. Remove networks "
            f"that nobody needs (docker network prune), name a subnet with --subnet (for the default bridge {bridge}), "
            f"or give the daemon more with --default-address-pool base={base}"
        )


def overlapping(one: Subnet, other: Subnet) -> bool:
    """Whether two subnets, of any family, have an address in common."""
    return one.version == other.version and (
        one.network_address in other or other.network_address in one  # blocks overlap only when one holds the other
    )


def taken(netlink: NetlinkSocket, but_link: int = 0) -> list[Subnet]:
    """Return what this machine uses: subnets of its links (but of one), routes, name servers. Raises OSError."""
    used: list[Subnet] = [
        ipaddress.ip_interface(f"{each.address}/{each.prefix}").network
        for each in addr.list_addresses(netlink)
        if not but_link or each.link != but_link
    ]
    used += [
        ipaddress.ip_network(f"{each.destination}/{each.prefix}")
        for kind in (socket.AF_INET, socket.AF_INET6)
        for each in route.list_routes(netlink, kind)
        if each.prefix and (not but_link or each.link != but_link)
    ]
    used += [ipaddress.ip_network(each) for each in nameservers()]
    return [each for each in used if not on_every_link(each)]


def on_every_link(subnet: Subnet) -> bool:
    """Whether every link has these addresses, so that they say nothing."""
    return isinstance(subnet, ipaddress.IPv6Network) and (subnet.subnet_of(LINK_LOCAL) or subnet.subnet_of(MULTICAST))
