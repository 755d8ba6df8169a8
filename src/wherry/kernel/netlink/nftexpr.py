"""Expressions of nf_tables, of which rules are lists: include/uapi/linux/netfilter/nf_tables.h.

An expression works on registers. Each function here returns one matching or acting step, with register 1 between load
and comparison, and the 4-byte registers from NFT_REG32_00 on for keys and data of several parts. What differs between
IPv4 and IPv6 is where a header has its addresses: those functions take an address or subnet and see the family by it.
"""

from __future__ import annotations

import ipaddress
import struct

from wherry.kernel.netlink.addr import packed
from wherry.kernel.netlink.codec import attribute, be32, be64, nested, text
from wherry.kernel.netlink.nft import DATA_VALUE, DATA_VERDICT, IFNAMSIZ, NFPROTO_IPV4, NFPROTO_IPV6

META_IIFNAME, META_OIFNAME, META_L4PROTO = 6, 7, 16
CMP_EQ, CMP_NEQ = 0, 1
CT_STATE, CT_STATUS = 0, 2
CT_DNAT = 1 << 5
"""IPS_DST_NAT: the destination of the connection was changed."""
RTN_LOCAL = 2
CT_RELATED, CT_ESTABLISHED = 1 << 2, 1 << 1
LOOKUP_INVERT = 1
DYNSET_ADD = 0
_REGISTER, _SECOND_REGISTER = 1, 2
_WORD = 8
"""NFT_REG32_00: the first of the 4-byte registers that make up the others, for keys and data of several parts."""
_VERDICT_REGISTER = 0
_SOURCE = {4: (12, 4), 6: (8, 16)}
_DESTINATION = {4: (16, 4), 6: (24, 16)}
"""Offset and length of an address in the header: RFC 791, RFC 8200."""
_PROTOCOLS = {4: NFPROTO_IPV4, 6: NFPROTO_IPV6}

Subnet = ipaddress.IPv4Network | ipaddress.IPv6Network


def expression(name: str, *parameters: bytes) -> bytes:
    """Return the two attributes of an expression inside its list element."""
    return text(1, name) + nested(2, *parameters)


def interface_key(name: str) -> bytes:
    """Return an interface name as it stands in a register: padded with NUL to 16 bytes."""
    return name.encode().ljust(IFNAMSIZ, b"\0")


def joined_type(*types: int) -> int:
    """Return the type of a key or data of several parts, each of which takes 4 bytes (nft(8): 6 bits per part)."""
    found = 0
    for each in types:
        found = found << 6 | each
    return found


def port_key(address: str, protocol: int, port: int) -> bytes:
    """Return address . protocol . port, or without an address protocol . port, as `load_port_key` loads it."""
    return (packed(address) if address else b"") + bytes((protocol, 0, 0, 0)) + struct.pack("!HH", port, 0)


def address_and_port(address: str, port: int) -> bytes:
    """Return address . port as data of a map, in network order, the port in 4 bytes."""
    return packed(address) + struct.pack("!HH", port, 0)


def load_port_key(*, address: bool, version: int = 4) -> tuple[bytes, ...]:
    """Load the packet's destination (address . protocol . port, or the last two) as the key of a map."""
    offset, length = _DESTINATION[version]
    first = _WORD + (length // 4 if address else 0)
    destination = expression("payload", be32(1, _WORD), be32(2, 1), be32(3, offset), be32(4, length))
    return (
        *((destination,) if address else ()),
        expression("meta", be32(2, META_L4PROTO), be32(1, first)),
        expression("payload", be32(1, first + 1), be32(2, 2), be32(3, 2), be32(4, 2)),
    )


def load_client_key(version: int) -> tuple[bytes, ...]:
    """Load iifname . source address . destination address . protocol . destination port as the key of a set."""
    first = _WORD + IFNAMSIZ // 4
    length = _SOURCE[version][1]
    words = length // 4
    addresses = [
        expression("payload", be32(1, first + place * words), be32(2, 1), be32(3, offset), be32(4, length))
        for place, offset in enumerate((_SOURCE[version][0], _DESTINATION[version][0]))
    ]
    return (
        expression("meta", be32(2, META_IIFNAME), be32(1, _WORD)),
        *addresses,
        expression("meta", be32(2, META_L4PROTO), be32(1, first + 2 * words)),
        expression("payload", be32(1, first + 2 * words + 1), be32(2, 2), be32(3, 2), be32(4, 2)),
    )


def added_to(name: str) -> bytes:
    """Put the loaded key of several parts into a set, for the set's time. The rule ends here when the set is full."""
    return expression("dynset", text(1, name), be32(3, DYNSET_ADD), be32(4, _WORD))


def destination_kept(version: int) -> tuple[bytes, ...]:
    """Say that the connection's destination is what it is: no later nat chain of the hook is asked. In nat chains."""
    offset, length = _DESTINATION[version]
    return load_network(offset, length), expression("nat", be32(1, 1), be32(2, _PROTOCOLS[version]), be32(3, _REGISTER))


def load_both_interfaces() -> tuple[bytes, ...]:
    """Load iifname . oifname as the key of a set."""
    second = _WORD + IFNAMSIZ // 4
    return (
        expression("meta", be32(2, META_IIFNAME), be32(1, _WORD)),
        expression("meta", be32(2, META_OIFNAME), be32(1, second)),
    )


def joined_in_set(name: str) -> bytes:
    """Go on with the rule only when the loaded key of several parts is in a set."""
    return expression("lookup", text(1, name), be32(2, _WORD))


def destination_from(name: str, version: int = 4) -> tuple[bytes, ...]:
    """Look the loaded key up in a map to address . port, and send the packet there. Only in a nat chain."""
    lookup = expression("lookup", text(1, name), be32(2, _WORD), be32(3, _WORD))
    port = _WORD + _DESTINATION[version][1] // 4
    nat = expression("nat", be32(1, 1), be32(2, _PROTOCOLS[version]), be32(3, _WORD), be32(5, port))
    return lookup, nat


def to_this_host() -> tuple[bytes, ...]:
    """Match packets to an address of this host (fib daddr type local)."""
    fib = expression("fib", be32(1, _REGISTER), be32(2, 3), be32(3, 1 << 1))
    return fib, compared(struct.pack("=I", RTN_LOCAL))


def of_changed_destination() -> tuple[bytes, ...]:
    """Match packets of connections whose destination was changed (ct status dnat)."""
    mask = struct.pack("=I", CT_DNAT)
    return load_ct(CT_STATUS), masked(mask), compared(bytes(4), equal=False)


def to_subnet(subnet: Subnet) -> tuple[bytes, ...]:
    """Match packets whose destination is in a subnet."""
    return _within(subnet, _DESTINATION[subnet.version])


def from_subnet(subnet: Subnet) -> tuple[bytes, ...]:
    """Match packets whose source is in a subnet."""
    return _within(subnet, _SOURCE[subnet.version])


def _within(subnet: Subnet, place: tuple[int, int]) -> tuple[bytes, ...]:
    mask = () if subnet.prefixlen == subnet.max_prefixlen else (masked(subnet.netmask.packed),)
    return (load_network(*place), *mask, compared(subnet.network_address.packed))


def load_meta(key: int) -> bytes:
    """Load meta data of the packet into the register."""
    return expression("meta", be32(2, key), be32(1, _REGISTER))


def load_network(offset: int, length: int) -> bytes:
    """Load bytes of the network header into the register."""
    return expression("payload", be32(1, _REGISTER), be32(2, 1), be32(3, offset), be32(4, length))


def load_transport(offset: int, length: int) -> bytes:
    """Load bytes of the header of TCP or UDP into the register."""
    return expression("payload", be32(1, _REGISTER), be32(2, 2), be32(3, offset), be32(4, length))


def load_ct(key: int) -> bytes:
    """Load what connection tracking knows of the packet into the register."""
    return expression("ct", be32(2, key), be32(1, _REGISTER))


def masked(mask: bytes) -> bytes:
    """Keep only the bits of the mask in the register."""
    zero = attribute(DATA_VALUE, bytes(len(mask)))
    return expression(
        "bitwise",
        be32(1, _REGISTER),
        be32(2, _REGISTER),
        be32(3, len(mask)),
        nested(4, attribute(DATA_VALUE, mask)),
        nested(5, zero),
    )


def compared(value: bytes, *, equal: bool = True) -> bytes:
    """Go on with the rule only when the register has (or has not) this value."""
    operator = CMP_EQ if equal else CMP_NEQ
    return expression("cmp", be32(1, _REGISTER), be32(2, operator), nested(3, attribute(DATA_VALUE, value)))


def in_set(name: str, *, inverted: bool = False) -> bytes:
    """Go on with the rule only when the register's value is (or is not) in a set."""
    return expression("lookup", text(1, name), be32(2, _REGISTER), be32(5, LOOKUP_INVERT if inverted else 0))


def verdict_from(name: str) -> bytes:
    """Look the register's value up in a verdict map and do what it says."""
    return expression("lookup", text(1, name), be32(2, _REGISTER), be32(3, _VERDICT_REGISTER))


def verdict_data(code: int, chain: str = "") -> bytes:
    """Return a verdict as data: NF_ACCEPT, NF_DROP, NFT_RETURN, or NFT_JUMP with its chain."""
    return nested(DATA_VERDICT, be32(1, code), text(2, chain) if chain else b"")


def verdict(code: int, chain: str = "") -> bytes:
    """End the rule with a verdict."""
    return expression("immediate", be32(1, _VERDICT_REGISTER), nested(2, verdict_data(code, chain)))


def counter() -> bytes:
    """Count the packets and bytes that come this far."""
    return expression("counter", be64(1, 0), be64(2, 0))


def masquerade() -> bytes:
    """Give the packet the address of the interface it leaves by. Only in a nat chain at postrouting."""
    return expression("masq")


def destination4(address: str, port: int) -> tuple[bytes, ...]:
    """Send the packet to another address and port. Only in a nat chain at prerouting or output."""
    values = {_REGISTER: packed(address), _SECOND_REGISTER: struct.pack("!H", port)}
    loads = [
        expression("immediate", be32(1, register), nested(2, attribute(DATA_VALUE, value)))
        for register, value in values.items()
    ]
    nat = expression("nat", be32(1, 1), be32(2, NFPROTO_IPV4), be32(3, _REGISTER), be32(5, _SECOND_REGISTER))
    return (*loads, nat)


def to_port_of(address: str, protocol: int, port: int) -> tuple[bytes, ...]:
    """Match packets to an address and a port of TCP or UDP (offset 2 in both)."""
    return (
        *to_subnet(ipaddress.ip_network(address)),
        *of_protocol(protocol),
        *(load_transport(2, 2), compared(struct.pack("!H", port))),
    )


def from_interface(name: str, *, equal: bool = True) -> tuple[bytes, ...]:
    """Match packets that came in by an interface (iifname)."""
    return load_meta(META_IIFNAME), compared(interface_key(name), equal=equal)


def to_interface(name: str, *, equal: bool = True) -> tuple[bytes, ...]:
    """Match packets that will leave by an interface (oifname)."""
    return load_meta(META_OIFNAME), compared(interface_key(name), equal=equal)


def of_protocol(protocol: int) -> tuple[bytes, ...]:
    """Match packets of a protocol (meta l4proto)."""
    return load_meta(META_L4PROTO), compared(bytes((protocol,)))


def of_known_connection() -> tuple[bytes, ...]:
    """Match packets of connections that were let through before, and their errors (ct state established,related)."""
    mask = struct.pack("=I", CT_ESTABLISHED | CT_RELATED)
    return load_ct(CT_STATE), masked(mask), compared(bytes(4), equal=False)
