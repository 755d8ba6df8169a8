"""Deleting entries of connection tracking: include/uapi/linux/netfilter/nfnetlink_conntrack.h.

IPCTNL_MSG_CT_DELETE with CTA_FILTER deletes all entries that match some fields of a tuple (ctnetlink_flush_conntrack,
net/netfilter/nf_conntrack_netlink.c, Linux 5.8).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable

from wherry.kernel.netlink.addr import family, packed
from wherry.kernel.netlink.codec import Request, attribute, nested
from wherry.kernel.netlink.socket import NETLINK_NETFILTER, NetlinkSocket

_SUBSYSTEM, _DELETE = 1, 2
_TUPLE_ORIG, _TUPLE_REPLY, _FILTER = 1, 2, 25
_SOURCE: dict[int, int] = {socket.AF_INET: 1, socket.AF_INET6: 3}
"""CTA_IP_V4_SRC, CTA_IP_V6_SRC."""
_IP_SRC, _PROTO_NUM, _DST_PORT = 1 << 0, 1 << 3, 1 << 5
"""CTA_FILTER_FLAG of the fields that are compared."""


def to_port(protocol: int, port: int, version: int = 4) -> Request:
    """Delete what was sent to a port of any address of a family."""
    fields = nested(2, attribute(1, bytes((protocol,))), attribute(3, struct.pack("!H", port)))
    chosen = socket.AF_INET6 if version == 6 else socket.AF_INET
    return _request(chosen, nested(_TUPLE_ORIG, fields), _PROTO_NUM | _DST_PORT, 0)


def answered_by(protocol: int, address: str) -> Request:
    """Delete what an address answers, or would answer, whatever the destination was before."""
    source = nested(1, attribute(_SOURCE[family(address)], packed(address)))
    fields = nested(2, attribute(1, bytes((protocol,))))
    return _request(family(address), nested(_TUPLE_REPLY, source, fields), 0, _IP_SRC | _PROTO_NUM)


def _request(of: int, tuples: bytes, orig: int, reply: int) -> Request:
    chosen = nested(_FILTER, attribute(1, struct.pack("=I", orig)), attribute(2, struct.pack("=I", reply)))
    header = struct.pack("!BBH", of, 1, 0)
    return Request(_SUBSYSTEM << 8 | _DELETE, header + tuples + chosen, "IPCTNL_MSG_CT_DELETE")


def delete(requests: Iterable[Request]) -> None:
    """Carry the deletions out; nothing to delete is fine. Raises OSError, EINVAL before Linux 5.8."""
    with NetlinkSocket(NETLINK_NETFILTER) as netlink:
        for each in requests:  # one message each: nfnetlink handles no more in one datagram outside of a batch
            netlink.apply(each)
