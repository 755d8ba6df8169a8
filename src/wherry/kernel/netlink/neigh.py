"""Neighbour entries, the ARP and NDP caches: rtnetlink(7), include/uapi/linux/neighbour.h."""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass

from wherry.kernel.netlink.addr import family, packed
from wherry.kernel.netlink.codec import NLM_F_CREATE, NLM_F_REPLACE, Request, attribute, attributes
from wherry.kernel.netlink.link import mac_bytes
from wherry.kernel.netlink.socket import NetlinkSocket

RTM_NEWNEIGH = 28
RTM_DELNEIGH = 29
RTM_GETNEIGH = 30
NDA_DST = 1
NDA_LLADDR = 2
NUD_REACHABLE = 0x02
NUD_PERMANENT = 0x80

_NDMSG = struct.Struct("=BxHiHBB")


@dataclass(frozen=True, slots=True)
class Neighbour:
    """What a link knows of one neighbour; mac is "" while it is being asked for."""

    link: int
    address: str
    mac: str
    state: int


def set_neighbour(link: int, address: str, mac: str, *, permanent: bool = False) -> Request:
    """Enter a neighbour, in place of what was known of that address."""
    state = NUD_PERMANENT if permanent else NUD_REACHABLE
    body = _NDMSG.pack(family(address), 0, link, state, 0, 0)
    body += attribute(NDA_DST, packed(address)) + attribute(NDA_LLADDR, mac_bytes(mac))
    return Request(RTM_NEWNEIGH, body, "RTM_NEWNEIGH", address, NLM_F_CREATE | NLM_F_REPLACE)


def delete_neighbour(link: int, address: str) -> Request:
    """Forget a neighbour; one that is not known is fine."""
    body = _NDMSG.pack(family(address), 0, link, 0, 0, 0) + attribute(NDA_DST, packed(address))
    tolerate = frozenset({errno.ENOENT, errno.ENODEV})
    return Request(RTM_DELNEIGH, body, "RTM_DELNEIGH", address, tolerate=tolerate)


def list_neighbours(netlink: NetlinkSocket, kind: int = socket.AF_INET) -> list[Neighbour]:
    """Return the neighbours of all links."""
    found = []
    for reply in netlink.dump(Request(RTM_GETNEIGH, _NDMSG.pack(kind, 0, 0, 0, 0, 0), "RTM_GETNEIGH")):
        family_, _pad, link, state, _flags, _type = _NDMSG.unpack_from(reply.body)
        values = attributes(reply.body, _NDMSG.size)
        if NDA_DST in values and family_ in (socket.AF_INET, socket.AF_INET6):
            address = socket.inet_ntop(family_, values[NDA_DST])
            found.append(Neighbour(link, address, values.get(NDA_LLADDR, b"").hex(":"), state))
    return found
