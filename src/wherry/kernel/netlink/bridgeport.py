"""Ports of bridges as the kernel has them: include/uapi/linux/if_link.h, net/bridge/br_netlink.c."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from wherry.kernel.netlink.codec import Request, as_text, as_u32, attributes
from wherry.kernel.netlink.link import (
    IFLA_BRPORT_ISOLATED,
    IFLA_BRPORT_MODE,
    IFLA_INFO_SLAVE_DATA,
    IFLA_INFO_SLAVE_KIND,
    IFLA_LINKINFO,
    IFLA_MASTER,
    RTM_GETLINK,
    RTM_NEWLINK,
)
from wherry.kernel.netlink.socket import NetlinkSocket

IFLA_BRPORT_STATE = 1
STATES = ("disabled", "listening", "learning", "forwarding", "blocking")
_IFINFO = struct.Struct("=BxHiII")


@dataclass(frozen=True, slots=True)
class BridgePort:
    """A port of the bridge with index `bridge`. state: disabled while the link or its other end is down.

    hairpin: a packet may go out where it came in; isolated: it exchanges none with other isolated ports.
    """

    index: int
    bridge: int
    state: str
    hairpin: bool
    isolated: bool


def list_ports(netlink: NetlinkSocket) -> list[BridgePort]:
    """Return the ports of all bridges of the namespace. Raises OSError."""
    found = []
    for reply in netlink.dump(Request(RTM_GETLINK, _IFINFO.pack(0, 0, 0, 0, 0), "RTM_GETLINK")):
        if reply.type != RTM_NEWLINK:
            continue
        _family, _type, index, _flags, _change = _IFINFO.unpack_from(reply.body)
        values = attributes(reply.body, _IFINFO.size)
        info = attributes(values.get(IFLA_LINKINFO, b""))
        if as_text(info.get(IFLA_INFO_SLAVE_KIND)) != "bridge":
            continue
        own = attributes(info.get(IFLA_INFO_SLAVE_DATA, b""))
        state, hairpin, isolated = (
            (own.get(each) or b"\0")[0] for each in (IFLA_BRPORT_STATE, IFLA_BRPORT_MODE, IFLA_BRPORT_ISOLATED)
        )
        shown = STATES[state] if state < len(STATES) else str(state)
        found.append(BridgePort(index, as_u32(values.get(IFLA_MASTER)), shown, bool(hairpin), bool(isolated)))
    return found
