"""Whether a subnet that somebody names would cut the host off from what it uses."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

from wherry.errors import Forbidden
from wherry.kernel.netlink import addr, route
from wherry.kernel.netlink.socket import NetlinkSocket
from wherry.network.hostfiles import nameservers
from wherry.network.ipam.subnets import Subnet, on_every_link, overlapping


def check(netlink: NetlinkSocket, wanted: Iterable[Subnet], ours: Iterable[str]) -> list[str]:
    """Return what of the host's own overlaps with these subnets, as sentences. ours: bridges of our networks.

    Raises Forbidden when the host would look for its router or name server in the new network. dockerd checks nothing
    of this. Raises OSError.
    """
    but = {socket.if_nametoindex(name) for name in ours}
    routes = [
        each
        for kind in (socket.AF_INET, socket.AF_INET6)
        for each in route.list_routes(netlink, kind)
        if each.link not in but
    ]
    needed = [(each.gateway, "the router that this host sends everything to") for each in routes if _leads_out(each)]
    needed += [(each, "a name server of this host") for each in nameservers()]
    addresses = [each for each in addr.list_addresses(netlink) if each.link not in but]
    warnings = []
    for subnet in wanted:
        for address, what in needed:
            if ipaddress.ip_address(address) in subnet:
                raise Forbidden(f"subnet {subnet} holds {address}, {what}: this host could not reach it any more")
        used = [ipaddress.ip_network(f"{each.destination}/{each.prefix}") for each in routes if each.prefix]
        used += [ipaddress.ip_interface(f"{each.address}/{each.prefix}").network for each in addresses]
        found = dict.fromkeys(str(each) for each in used if not on_every_link(each) and overlapping(subnet, each))
        warnings += [f"subnet {subnet} overlaps with {each}, which this host uses" for each in found]
    return warnings


def _leads_out(found: route.Route) -> bool:
    return not found.prefix and bool(found.gateway) and not ipaddress.ip_address(found.gateway).is_link_local
