"""Links: rtnetlink(7), include/uapi/linux/if_link.h, net/core/rtnetlink.c."""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass

from wherry.kernel.netlink.codec import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Request,
    as_s32,
    as_text,
    as_u32,
    attribute,
    attributes,
    nested,
    text,
    u8,
    u16,
    u32,
)
from wherry.kernel.netlink.socket import NetlinkSocket

RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18

IFLA_ADDRESS = 1
IFLA_IFNAME = 3
IFLA_MTU = 4
IFLA_LINK = 5
IFLA_MASTER = 10
IFLA_LINKINFO = 18
IFLA_IFALIAS = 20
IFLA_STATS64 = 23
IFLA_GROUP = 27
IFLA_NET_NS_FD = 28
IFLA_EXT_MASK = 29
IFLA_LINK_NETNSID = 37
IFLA_INFO_KIND = 1
IFLA_INFO_DATA = 2
IFLA_INFO_SLAVE_KIND = 4
IFLA_INFO_SLAVE_DATA = 5
VETH_INFO_PEER = 1
IFLA_BR_FORWARD_DELAY = 1
IFLA_BRPORT_ISOLATED = 33
IFLA_BRPORT_MODE = 4
IFLA_BR_STP_STATE = 5
IFLA_BR_MCAST_SNOOPING = 23
IFLA_VLAN_ID = 1
IFLA_MACVLAN_MODE = 1
IFLA_IPVLAN_MODE = 1
IFLA_IPVLAN_FLAGS = 2

MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
IPVLAN_FLAGS = {"bridge": 0, "private": 1, "vepa": 2}
"""The numbers of include/uapi/linux/if_link.h by the names that people use. l3s: Linux 4.9; flags: 4.15."""

IFF_UP = 0x1
IFF_LOOPBACK = 0x8
LOOPBACK = 1
"""The loopback interface has this index in every namespace (net/core/dev.c, LOOPBACK_IFINDEX)."""

IFNAMSIZ = 16
_IFINFO = struct.Struct("=BxHiII")
_STATS = struct.Struct("=8Q")


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface as the kernel describes it; the counters are those of IFLA_STATS64.

    peer: of a veth, the index of its other end, in the namespace that this one knows under the number peer_netns;
    -1: in this namespace.
    """

    index: int
    name: str
    kind: str
    mac: str
    mtu: int
    flags: int
    master: int
    alias: str
    group: int
    peer: int = 0
    peer_netns: int = -1
    rx_packets: int = 0
    tx_packets: int = 0
    rx_bytes: int = 0
    tx_bytes: int = 0
    rx_errors: int = 0
    tx_errors: int = 0
    rx_dropped: int = 0
    tx_dropped: int = 0

    @property
    def up(self) -> bool:
        """Whether the interface is administratively up."""
        return bool(self.flags & IFF_UP)


@dataclass(frozen=True, slots=True)
class VethPeer:
    """The far end of a veth pair: where it goes and what it is called there. It is made down."""

    name: str
    netns_fd: int
    mac: str


def mac_bytes(mac: str) -> bytes:
    """Return the six bytes of "02:42:ac:11:00:02"; raises ValueError for anything else."""
    data = bytes.fromhex(mac.replace(":", ""))
    if len(data) != 6 or len(mac) != 17:
        raise ValueError(f"not an Ethernet address: {mac}")
    return data


def new_veth(name: str, peer: VethPeer, *, master: int = 0, mtu: int = 0, group: int = 0) -> Request:
    """Make a pair: this end up and a port of `master`, the other one in a namespace, with its final name and address.

    One message instead of the usual create, move, rename and set address. EEXIST: the name is taken.
    """
    size = u32(IFLA_MTU, mtu) if mtu else b""
    far = (
        _IFINFO.pack(0, 0, 0, 0, 0)
        + text(IFLA_IFNAME, peer.name)
        + attribute(IFLA_ADDRESS, mac_bytes(peer.mac))
        + size
        + u32(IFLA_NET_NS_FD, peer.netns_fd)
    )
    info = nested(IFLA_LINKINFO, text(IFLA_INFO_KIND, "veth"), nested(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, far)))
    body = _IFINFO.pack(0, 0, 0, IFF_UP, IFF_UP) + text(IFLA_IFNAME, name) + size + info
    body += u32(IFLA_MASTER, master) if master else b""
    body += u32(IFLA_GROUP, group) if group else b""
    return Request(RTM_NEWLINK, body, "RTM_NEWLINK veth", name, NLM_F_CREATE | NLM_F_EXCL)


def new_bridge(name: str, *, mac: str, mtu: int = 0, multicast_snooping: bool = True) -> Request:
    """Make a bridge, up. Its own address keeps it from taking over the lowest one among its ports. EEXIST."""
    options = nested(IFLA_INFO_DATA, u32(IFLA_BR_STP_STATE, 0), u8(IFLA_BR_MCAST_SNOOPING, int(multicast_snooping)))
    body = (
        _IFINFO.pack(0, 0, 0, IFF_UP, IFF_UP)
        + text(IFLA_IFNAME, name)
        + attribute(IFLA_ADDRESS, mac_bytes(mac))
        + (u32(IFLA_MTU, mtu) if mtu else b"")
        + nested(IFLA_LINKINFO, text(IFLA_INFO_KIND, "bridge"), options)
    )
    return Request(RTM_NEWLINK, body, "RTM_NEWLINK bridge", name, NLM_F_CREATE | NLM_F_EXCL)


def new_vlan(name: str, parent: int, vlan: int) -> Request:
    """Make a link for one VLAN of a parent, up. EOPNOTSUPP: no 8021q in this kernel; EEXIST: the name is taken.

    ENETDOWN: the parent is down.
    """
    info = nested(IFLA_LINKINFO, text(IFLA_INFO_KIND, "vlan"), nested(IFLA_INFO_DATA, u16(IFLA_VLAN_ID, vlan)))
    return _new(name, "vlan", u32(IFLA_LINK, parent) + info)


def new_dummy(name: str) -> Request:
    """Make a link that leads nowhere, up. EOPNOTSUPP: no dummy in this kernel; EEXIST: the name is taken."""
    return _new(name, "dummy", nested(IFLA_LINKINFO, text(IFLA_INFO_KIND, "dummy")))


def _new(name: str, kind: str, attributes_: bytes) -> Request:
    body = _IFINFO.pack(0, 0, 0, IFF_UP, IFF_UP) + text(IFLA_IFNAME, name) + attributes_
    return Request(RTM_NEWLINK, body, f"RTM_NEWLINK {kind}", name, NLM_F_CREATE | NLM_F_EXCL)


def new_macvlan(name: str, parent: int, mode: str, netns_fd: int, *, mac: str = "") -> Request:
    """Make a link with a MAC address of its own on a parent, in a namespace and down.

    mode: of MACVLAN_MODES. EOPNOTSUPP: no macvlan in this kernel; EBUSY: the parent is a port of a bridge or has ipvlan
    links; EINVAL: it has a link already, and one of both is in the mode passthru, or the parent cannot have any.
    """
    data = nested(IFLA_INFO_DATA, u32(IFLA_MACVLAN_MODE, MACVLAN_MODES[mode]))
    address = attribute(IFLA_ADDRESS, mac_bytes(mac)) if mac else b""
    return _sublink(name, parent, netns_fd, "macvlan", address, data)


def new_ipvlan(name: str, parent: int, mode: str, flag: str, netns_fd: int) -> Request:
    """Make a link with its parent's MAC address, in a namespace and down.

    mode: of IPVLAN_MODES, flag: of IPVLAN_FLAGS. EOPNOTSUPP: no ipvlan in this kernel; EBUSY: the parent has macvlan
    links or is a port of a bridge.
    """
    wanted = u16(IFLA_IPVLAN_MODE, IPVLAN_MODES[mode]) + u16(IFLA_IPVLAN_FLAGS, IPVLAN_FLAGS[flag])
    data = nested(IFLA_INFO_DATA, wanted)
    return _sublink(name, parent, netns_fd, "ipvlan", b"", data)


def _sublink(name: str, parent: int, netns_fd: int, kind: str, address: bytes, data: bytes) -> Request:
    """IFLA_LINK is a number of the namespace that the socket is of, also where the link is made in another one."""
    body = (
        _IFINFO.pack(0, 0, 0, 0, 0)
        + text(IFLA_IFNAME, name)
        + address
        + u32(IFLA_LINK, parent)
        + u32(IFLA_NET_NS_FD, netns_fd)
        + nested(IFLA_LINKINFO, text(IFLA_INFO_KIND, kind), data)
    )
    return Request(RTM_NEWLINK, body, f"RTM_NEWLINK {kind}", name, NLM_F_CREATE | NLM_F_EXCL)


def set_up(index: int, *, up: bool = True) -> Request:
    """Set a link up or down."""
    return Request(RTM_NEWLINK, _IFINFO.pack(0, 0, index, IFF_UP if up else 0, IFF_UP), "RTM_NEWLINK", f"link {index}")


def set_attributes(link: int | str, *values: bytes, missing_ok: bool = False) -> Request:
    """Change attributes of a link, given by index or name; the values come from `mtu`, `master`, `renamed`, ..."""
    index, name = (link, b"") if isinstance(link, int) else (0, text(IFLA_IFNAME, link))
    body = _IFINFO.pack(0, 0, index, 0, 0) + name + b"".join(values)
    tolerate = frozenset({errno.ENODEV}) if missing_ok else frozenset()
    return Request(RTM_NEWLINK, body, "RTM_NEWLINK", f"link {link}", tolerate=tolerate)


def mtu(value: int) -> bytes:
    """Return the attribute that sets the MTU."""
    return u32(IFLA_MTU, value)


def master(index: int) -> bytes:
    """Return the attribute that makes the link a port of a bridge; 0 takes it out."""
    return u32(IFLA_MASTER, index)


def isolated() -> bytes:
    """Return the attribute of a bridge's port that keeps it from other ports that have it (Linux 4.18)."""
    data = nested(IFLA_INFO_SLAVE_DATA, u8(IFLA_BRPORT_ISOLATED, 1))
    return nested(IFLA_LINKINFO, text(IFLA_INFO_SLAVE_KIND, "bridge"), data)


def hairpin() -> bytes:
    """Return the attribute of a bridge's port that lets a packet go out where it came in (Linux 2.6.32)."""
    data = nested(IFLA_INFO_SLAVE_DATA, u8(IFLA_BRPORT_MODE, 1))
    return nested(IFLA_LINKINFO, text(IFLA_INFO_SLAVE_KIND, "bridge"), data)


def address(mac: str) -> bytes:
    """Return the attribute that sets the MAC address."""
    return attribute(IFLA_ADDRESS, mac_bytes(mac))


def renamed(name: str) -> bytes:
    """Return the attribute that renames a link given by index."""
    return text(IFLA_IFNAME, name)


def alias(value: str) -> bytes:
    """Return the attribute that sets the description of a link (ip link shows it as "alias"); at most 255 bytes.

    Only of one that is there: rtnl_create_link in net/core/rtnetlink.c passes it over.
    """
    return attribute(IFLA_IFALIAS, value.encode())


def group(number: int) -> bytes:
    """Return the attribute that puts a link into a group, for `delete_group`."""
    return u32(IFLA_GROUP, number)


def moved(netns_fd: int) -> bytes:
    """Return the attribute that moves a link into another namespace."""
    return u32(IFLA_NET_NS_FD, netns_fd)


def delete_link(link: int | str, *, missing_ok: bool = True) -> Request:
    """Delete a link, and with a veth its other end wherever it is."""
    index, name = (link, b"") if isinstance(link, int) else (0, text(IFLA_IFNAME, link))
    tolerate = frozenset({errno.ENODEV}) if missing_ok else frozenset()
    return Request(RTM_DELLINK, _IFINFO.pack(0, 0, index, 0, 0) + name, "RTM_DELLINK", str(link), tolerate=tolerate)


def delete_group(number: int) -> Request:
    """Delete all links of a group at once: one wait for RCU readers instead of one per link."""
    body = _IFINFO.pack(0, 0, 0, 0, 0) + u32(IFLA_GROUP, number)
    return Request(RTM_DELLINK, body, "RTM_DELLINK", f"group {number}", tolerate=frozenset({errno.ENODEV}))


def list_links(netlink: NetlinkSocket) -> list[Link]:
    """Return all links of the namespace."""
    request = Request(RTM_GETLINK, _IFINFO.pack(0, 0, 0, 0, 0), "RTM_GETLINK")
    return [_decode(reply.body) for reply in netlink.dump(request) if reply.type == RTM_NEWLINK]


def find_link(netlink: NetlinkSocket, name: str) -> Link | None:
    """Return the link of that name, None when there is none."""
    request = Request(RTM_GETLINK, _IFINFO.pack(0, 0, 0, 0, 0) + text(IFLA_IFNAME, name), "RTM_GETLINK", name)
    try:
        return _decode(netlink.ask(request).body)
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
        return None


def _decode(body: bytes) -> Link:
    _family, _type, index, flags, _change = _IFINFO.unpack_from(body)
    found = attributes(body, _IFINFO.size)
    info = attributes(found.get(IFLA_LINKINFO, b""))
    counters = found.get(IFLA_STATS64)
    return Link(
        index,
        as_text(found.get(IFLA_IFNAME)),
        as_text(info.get(IFLA_INFO_KIND)),
        found.get(IFLA_ADDRESS, b"").hex(":"),
        as_u32(found.get(IFLA_MTU)),
        flags,
        as_u32(found.get(IFLA_MASTER)),
        as_text(found.get(IFLA_IFALIAS)),
        as_u32(found.get(IFLA_GROUP)),
        as_u32(found.get(IFLA_LINK)),
        as_s32(found[IFLA_LINK_NETNSID]) if IFLA_LINK_NETNSID in found else -1,
        *(_STATS.unpack_from(counters) if counters else ()),
    )
