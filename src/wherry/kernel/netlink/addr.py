"""Addresses of links: rtnetlink(7), include/uapi/linux/if_addr.h."""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass

from wherry.kernel.netlink.codec import NLM_F_CREATE, NLM_F_EXCL, Request, attribute, attributes, u32
from wherry.kernel.netlink.socket import NetlinkSocket

RTM_NEWADDR = 20
RTM_DELADDR = 21
RTM_GETADDR = 22
IFA_ADDRESS = 1
IFA_LOCAL = 2
IFA_BROADCAST = 4
IFA_FLAGS = 8
IFA_F_NODAD = 0x02

_IFADDR = struct.Struct("=BBBBI")


@dataclass(frozen=True, slots=True)
class Address:
    """An address of the link with index `link`."""

    link: int
    address: str
    prefix: int


def packed(address: str) -> bytes:
    """Return the 4 or 16 bytes of an address; raises OSError (EINVAL) for text that is none."""
    try:
        return socket.inet_pton(family(address), address)
    except OSError as error:
        raise OSError(errno.EINVAL, "inet_pton: not an IP address", address) from error


def family(address: str) -> int:
    """Return AF_INET6 for text with a colon, else AF_INET."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def new_address(link: int, address: str, prefix: int, *, broadcast: str = "") -> Request:
    """Add an address. IPv6 skips duplicate address detection: we give addresses out and know that they are free.

    EEXIST when the link has it already.
    """
    raw = packed(address)
    kind = family(address)
    body = _IFADDR.pack(kind, prefix, 0, 0, link) + attribute(IFA_LOCAL, raw) + attribute(IFA_ADDRESS, raw)
    if kind == socket.AF_INET6:
        body += u32(IFA_FLAGS, IFA_F_NODAD)
    elif broadcast:
        body += attribute(IFA_BROADCAST, packed(broadcast))
    return Request(RTM_NEWADDR, body, "RTM_NEWADDR", f"{address}/{prefix}", NLM_F_CREATE | NLM_F_EXCL)


def delete_address(link: int, address: str, prefix: int) -> Request:
    """Take an address away; one that is not there is fine."""
    raw = packed(address)
    body = _IFADDR.pack(family(address), prefix, 0, 0, link) + attribute(IFA_LOCAL, raw) + attribute(IFA_ADDRESS, raw)
    tolerate = frozenset({errno.EADDRNOTAVAIL})
    return Request(RTM_DELADDR, body, "RTM_DELADDR", f"{address}/{prefix}", tolerate=tolerate)


def list_addresses(netlink: NetlinkSocket, kind: int = socket.AF_UNSPEC) -> list[Address]:
    """Return all addresses of the namespace."""
    request = Request(RTM_GETADDR, _IFADDR.pack(kind, 0, 0, 0, 0), "RTM_GETADDR")
    found = []
    for reply in netlink.dump(request):
        family_, prefix, _flags, _scope, link = _IFADDR.unpack_from(reply.body)
        values = attributes(reply.body, _IFADDR.size)
        raw = values.get(IFA_LOCAL) or values.get(IFA_ADDRESS)
        if raw and family_ in (socket.AF_INET, socket.AF_INET6):
            found.append(Address(link, socket.inet_ntop(family_, raw), prefix))
    return found
