"""Telling neighbours whose address is whose: ARP announcements and unsolicited neighbour advertisements.

A neighbour that remembers another MAC address for an IP address sends there for up to a minute, and longer when nobody
answers. RFC 5227, 3: an ARP request of an address for itself corrects that; RFC 4861, 7.2.6: for IPv6 an advertisement
with the flag "override" to all nodes. A neighbour that remembers nothing learns nothing from them.
packet(7); formats: RFC 826, RFC 4443, RFC 4861.
"""

from __future__ import annotations

import socket
import struct

_ETHERNET = struct.Struct("!6s6sH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_IPV6 = struct.Struct("!IHBB16s16s")
_ADVERTISEMENT = struct.Struct("!BBHI16sBB6s")

ETH_P_ARP, ETH_P_IPV6 = 0x0806, 0x86DD
ARP_REQUEST = 1
ICMPV6, ADVERTISEMENT, OVERRIDE, TARGET_LINK = 58, 136, 1 << 29, 2
ALL_NODES = socket.inet_pton(socket.AF_INET6, "ff02::1")


def opened(interface: str) -> socket.socket:
    """Return a socket that sends frames by a link of the thread's namespace, which it keeps. Raises OSError."""
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    try:
        made.bind((interface, 0))
    except OSError:
        made.close()
        raise
    return made


def arp(mac: bytes, address: str) -> bytes:
    """Return the frame that says that an IPv4 address is at a MAC address."""
    raw = socket.inet_aton(address)
    body = _ARP.pack(1, 0x0800, 6, 4, ARP_REQUEST, mac, raw, bytes(6), raw)
    return _ETHERNET.pack(b"\xff" * 6, mac, ETH_P_ARP) + body


def advertisement(mac: bytes, address: str) -> bytes:
    """Return the frame that says that an IPv6 address is at a MAC address."""
    raw = socket.inet_pton(socket.AF_INET6, address)
    size = _ADVERTISEMENT.size
    pseudo = raw + ALL_NODES + struct.pack("!II", size, ICMPV6)
    empty = _ADVERTISEMENT.pack(ADVERTISEMENT, 0, 0, OVERRIDE, raw, TARGET_LINK, 1, mac)
    body = _ADVERTISEMENT.pack(ADVERTISEMENT, 0, _checksum(pseudo + empty), OVERRIDE, raw, TARGET_LINK, 1, mac)
    header = _IPV6.pack(6 << 28, size, ICMPV6, 255, raw, ALL_NODES)
    return _ETHERNET.pack(bytes((0x33, 0x33, 0, 0, 0, 1)), mac, ETH_P_IPV6) + header + body


def _checksum(data: bytes) -> int:
    """Return the ones' complement sum of RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
