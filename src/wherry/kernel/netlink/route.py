"""Routes: rtnetlink(7), include/uapi/linux/rtnetlink.h."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from wherry.kernel.netlink.addr import family, packed
from wherry.kernel.netlink.codec import NLM_F_CREATE, NLM_F_EXCL, Request, as_u32, attribute, attributes, u32
from wherry.kernel.netlink.socket import NetlinkSocket

RTM_NEWROUTE = 24
RTM_DELROUTE = 25
RTM_GETROUTE = 26
RTA_DST = 1
RTA_OIF = 4
RTA_GATEWAY = 5
RTA_PRIORITY = 6
RTA_TABLE = 15
RT_TABLE_MAIN = 254
RTPROT_BOOT = 3
RT_SCOPE_UNIVERSE = 0
RT_SCOPE_LINK = 253
RTN_UNICAST = 1

_RTMSG = struct.Struct("=BBBBBBBBI")


@dataclass(frozen=True, slots=True)
class Route:
    """A unicast route; destination "" with prefix 0 is the default route, gateway "" a directly connected one."""

    destination: str
    prefix: int
    gateway: str
    link: int
    table: int


def new_route(destination: str, prefix: int, *, gateway: str = "", link: int = 0) -> Request:
    """Add a route to the main table; destination "" is the default route. EEXIST; ENETUNREACH: no way to it."""
    return _request(RTM_NEWROUTE, destination, prefix, gateway, link)


def delete_route(destination: str, prefix: int, *, gateway: str = "", link: int = 0) -> Request:
    """Take a route out of the main table. ESRCH when it is not there."""
    return _request(RTM_DELROUTE, destination, prefix, gateway, link)


def _request(kind: int, destination: str, prefix: int, gateway: str, link: int) -> Request:
    scope = RT_SCOPE_UNIVERSE if gateway else RT_SCOPE_LINK
    body = _RTMSG.pack(family(destination or gateway), prefix, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, scope, RTN_UNICAST, 0)
    body += attribute(RTA_DST, packed(destination)) if destination else b""
    body += attribute(RTA_GATEWAY, packed(gateway)) if gateway else b""
    body += u32(RTA_OIF, link) if link else b""
    name = "RTM_NEWROUTE" if kind == RTM_NEWROUTE else "RTM_DELROUTE"
    flags = NLM_F_CREATE | NLM_F_EXCL if kind == RTM_NEWROUTE else 0
    return Request(kind, body, name, f"{destination or 'default'}/{prefix} via {gateway or f'link {link}'}", flags)


def list_routes(netlink: NetlinkSocket, kind: int = socket.AF_INET) -> list[Route]:
    """Return the unicast routes of all tables."""
    request = Request(RTM_GETROUTE, _RTMSG.pack(kind, 0, 0, 0, 0, 0, 0, 0, 0), "RTM_GETROUTE")
    found = []
    for reply in netlink.dump(request):
        family_, prefix, _source, _tos, table, _protocol, _scope, type_, _flags = _RTMSG.unpack_from(reply.body)
        values = attributes(reply.body, _RTMSG.size)
        if type_ != RTN_UNICAST or family_ not in (socket.AF_INET, socket.AF_INET6):
            continue
        destination, gateway = (values.get(each, b"") for each in (RTA_DST, RTA_GATEWAY))
        found.append(
            Route(
                socket.inet_ntop(family_, destination) if destination else "",
                prefix,
                socket.inet_ntop(family_, gateway) if gateway else "",
                as_u32(values.get(RTA_OIF)),
                as_u32(values.get(RTA_TABLE)) or table,
            )
        )
    return found
