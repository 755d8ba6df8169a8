"""Which subnet a network gets when nobody says: the first that collides with nothing on this machine."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Iterator

from wherry.errors import SystemFailure
from wherry.kernel.netlink import addr, route
from wherry.kernel.netlink.socket import NetlinkSocket
from wherry.network.hostfiles import nameservers

Subnet = ipaddress.IPv4Network


def candidates() -> Iterator[Subnet]:
    """Yield dockerd's default pools in its order: 172.17.0.0/16 to 172.31.0.0/16, then /20s of 192.168.0.0/16."""
    for second in range(17, 32):
        yield Subnet(f"172.{second}.0.0/16")
    yield from Subnet("192.168.0.0/16").subnets(new_prefix=20)


def taken(netlink: NetlinkSocket, but_link: int = 0) -> list[Subnet]:
    """Return what this machine uses: subnets of its links (but of one), routes, name servers. Raises OSError."""
    used = [
        ipaddress.IPv4Interface(f"{each.address}/{each.prefix}").network
        for each in addr.list_addresses(netlink, socket.AF_INET)
        if not but_link or each.link != but_link
    ]
    used += [
        Subnet(f"{each.destination}/{each.prefix}")
        for each in route.list_routes(netlink, socket.AF_INET)
        if each.prefix and (not but_link or each.link != but_link)
    ]
    return used + [Subnet(each) for each in nameservers() if ":" not in each]


def choose(taken: Iterable[Subnet], preferred: str = "") -> Subnet:
    """Return the preferred subnet (that of the last time) or the first one that overlaps nothing taken."""
    occupied = list(taken)
    wanted = [Subnet(preferred)] if preferred else []
    for subnet in (*wanted, *candidates()):
        if not any(subnet.overlaps(each) for each in occupied):
            return subnet
    raise SystemFailure(
        "could not find an available, non-overlapping IPv4 address pool among the defaults: name one yourself, with "
        "--subnet for a network, or with --bip 10.200.0.1/16 for the default bridge"
    )
