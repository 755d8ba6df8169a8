"""nf_tables: include/uapi/linux/netfilter/nf_tables.h, nfnetlink.h; nft(8) shows what these messages made.

A `Ruleset` collects requests and sends them as one transaction: the kernel takes all of them or none
(nfnetlink_rcv_batch, net/netfilter/nfnetlink.c). A rule is a list of expressions that work on registers;
the functions below return one matching or acting step each, with register 1 between load and comparison.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable, Mapping

from wherry.kernel.netlink.addr import packed
from wherry.kernel.netlink.codec import (
    HEADER,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_REQUEST,
    Request,
    as_text,
    attribute,
    attributes,
    be32,
    be64,
    nested,
    text,
)
from wherry.kernel.netlink.socket import NETLINK_NETFILTER, NetlinkSocket

NFPROTO_INET = 1
NFPROTO_IPV4 = 2
NFPROTO_IPV6 = 10
SUBSYSTEM = 10
NFNL_MSG_BATCH_BEGIN = 0x10
NFNL_MSG_BATCH_END = 0x11
NEWTABLE, GETTABLE, DELTABLE, NEWCHAIN, GETCHAIN, DELCHAIN, NEWRULE = range(7)
NEWSET, NEWSETELEM, DELSETELEM = 9, 12, 14

HOOK_PREROUTING, HOOK_INPUT, HOOK_FORWARD, HOOK_OUTPUT, HOOK_POSTROUTING = range(5)
PRIORITY_RAW, PRIORITY_DSTNAT, PRIORITY_FILTER, PRIORITY_SRCNAT = -300, -100, 0, 100
NF_DROP, NF_ACCEPT = 0, 1
NFT_JUMP, NFT_RETURN = -3, -5

IFNAME_TYPE, IPV4_TYPE, PROTOCOL_TYPE, PORT_TYPE = 41, 7, 12, 13
"""How nft(8) displays a set's keys; the kernel only stores these numbers."""

SET_INTERVAL, SET_MAP = 0x4, 0x8
META_IIFNAME, META_OIFNAME, META_L4PROTO = 6, 7, 16
CMP_EQ, CMP_NEQ = 0, 1
CT_STATE, CT_STATUS = 0, 2
CT_DNAT = 1 << 5
"""IPS_DST_NAT: the destination of the connection was changed."""
RTN_LOCAL = 2
CT_RELATED, CT_ESTABLISHED = 1 << 2, 1 << 1
LOOKUP_INVERT = 1
IFNAMSIZ = 16

_LIST_ELEMENT = 1
_DATA_VALUE, _DATA_VERDICT = 1, 2
_REGISTER, _SECOND_REGISTER = 1, 2
_WORD = 8
"""NFT_REG32_00: the first of the 4-byte registers that make up the others, for keys and data of several parts."""
_ELEMENTS = 500
"""Elements in one message: the attribute that holds them has a length of 16 bits."""
_VERDICT_REGISTER = 0


class Ruleset:
    """A transaction on the tables of one family."""

    def __init__(self, family: int = NFPROTO_IPV4) -> None:
        """Begin with nothing to do."""
        self._family = family
        self._requests: list[Request] = []

    def _add(self, kind: int, operation: str, subject: str, body: bytes, flags: int = 0, tolerate: int = 0) -> None:
        header = struct.pack("!BBH", self._family, 0, 0)
        allowed = frozenset({tolerate}) if tolerate else frozenset()
        self._requests.append(Request(SUBSYSTEM << 8 | kind, header + body, operation, subject, flags, allowed))

    def table(self, name: str) -> None:
        """Make a table; one that exists stays as it is."""
        self._add(NEWTABLE, "NFT_MSG_NEWTABLE", name, text(1, name) + be32(2, 0), NLM_F_CREATE)

    def delete_table(self, name: str) -> None:
        """Delete a table with all it holds. ENOENT fails the transaction: make it before, in the same one."""
        self._add(DELTABLE, "NFT_MSG_DELTABLE", name, text(1, name))

    def base_chain(self, table: str, name: str, type_: str, hook: int, priority: int) -> None:
        """Make a chain of type filter or nat that the kernel enters at a hook; its policy is accept."""
        where = nested(4, be32(1, hook), be32(2, priority))
        body = text(1, table) + text(3, name) + where + be32(5, NF_ACCEPT) + text(7, type_)
        self._add(NEWCHAIN, "NFT_MSG_NEWCHAIN", f"{table} {name}", body, NLM_F_CREATE)

    def chain(self, table: str, name: str) -> None:
        """Make a chain that is entered by a jump."""
        self._add(NEWCHAIN, "NFT_MSG_NEWCHAIN", f"{table} {name}", text(1, table) + text(3, name), NLM_F_CREATE)

    def rule(self, table: str, chain: str, *expressions: bytes) -> None:
        """Append a rule to a chain."""
        listed = nested(4, *(nested(_LIST_ELEMENT, each) for each in expressions))
        body = text(1, table) + text(2, chain) + listed
        self._add(NEWRULE, "NFT_MSG_NEWRULE", f"{table} {chain}", body, NLM_F_CREATE | NLM_F_APPEND)

    def set(self, table: str, name: str, key_type: int, key_length: int) -> None:
        """Make a named set of keys."""
        body = text(1, table) + text(2, name) + be32(3, 0) + _key(key_type, key_length)
        self._add(NEWSET, "NFT_MSG_NEWSET", f"{table} {name}", body + self._set_id(), NLM_F_CREATE)

    def verdict_map(self, table: str, name: str, key_type: int, key_length: int) -> None:
        """Make a map from keys to verdicts."""
        body = text(1, table) + text(2, name) + be32(3, SET_MAP) + _key(key_type, key_length)
        body += be32(6, 0xFFFFFF00) + be32(7, 16)  # NFT_DATA_VERDICT; the length is not looked at
        self._add(NEWSET, "NFT_MSG_NEWSET", f"{table} {name}", body + self._set_id(), NLM_F_CREATE)

    def data_map(self, table: str, name: str, key: tuple[int, int], data: tuple[int, int]) -> None:
        """Make a map from keys to data, each as (type, length); see `joined_type` for several parts."""
        body = text(1, table) + text(2, name) + be32(3, SET_MAP) + _key(*key)
        body += be32(6, data[0]) + be32(7, data[1])
        self._add(NEWSET, "NFT_MSG_NEWSET", f"{table} {name}", body + self._set_id(), NLM_F_CREATE)

    def add_data(self, table: str, name: str, entries: Mapping[bytes, bytes]) -> None:
        """Put keys with their data into a map. EEXIST when a key is there with other data."""
        elements = [
            nested(_LIST_ELEMENT, nested(1, attribute(_DATA_VALUE, key)), nested(2, attribute(_DATA_VALUE, value)))
            for key, value in entries.items()
        ]
        self._elements(NEWSETELEM, "NFT_MSG_NEWSETELEM", table, name, elements)

    def _set_id(self) -> bytes:
        return be32(10, len(self._requests) + 1)

    def add_elements(self, table: str, name: str, keys: Iterable[bytes]) -> None:
        """Put keys into a set; those that are in it stay."""
        elements = [nested(_LIST_ELEMENT, nested(1, attribute(_DATA_VALUE, key))) for key in keys]
        self._elements(NEWSETELEM, "NFT_MSG_NEWSETELEM", table, name, elements)

    def add_verdicts(self, table: str, name: str, verdicts: dict[bytes, bytes]) -> None:
        """Put keys with their verdicts (from `verdict_data`) into a map."""
        elements = [
            nested(_LIST_ELEMENT, nested(1, attribute(_DATA_VALUE, key)), nested(2, data))
            for key, data in verdicts.items()
        ]
        self._elements(NEWSETELEM, "NFT_MSG_NEWSETELEM", table, name, elements)

    def delete_elements(self, table: str, name: str, keys: Iterable[bytes]) -> None:
        """Take keys out of a set or map. ENOENT fails the transaction."""
        elements = [nested(_LIST_ELEMENT, nested(1, attribute(_DATA_VALUE, key))) for key in keys]
        self._elements(DELSETELEM, "NFT_MSG_DELSETELEM", table, name, elements)

    def _elements(self, kind: int, operation: str, table: str, name: str, elements: list[bytes]) -> None:
        for start in range(0, len(elements), _ELEMENTS):
            body = text(1, table) + text(2, name) + nested(3, *elements[start : start + _ELEMENTS])
            self._add(kind, operation, f"{table} {name}", body, NLM_F_CREATE if kind == NEWSETELEM else 0)

    def commit(self) -> None:
        """Send everything as one transaction. Raises OSError for the first request that the kernel refused."""
        with NetlinkSocket(NETLINK_NETFILTER) as netlink:
            netlink.batch(self._requests, begin=_frame(NFNL_MSG_BATCH_BEGIN), end=_frame(NFNL_MSG_BATCH_END))


def _key(type_: int, length: int) -> bytes:
    """Return the attributes that describe a set's key; the last one tells nft(8) its byte order (1 host, 2 network)."""
    order = struct.pack("=BBI", 0, 4, 1 if type_ == IFNAME_TYPE else 2)
    return be32(4, type_) + be32(5, length) + attribute(13, order)


def _frame(kind: int) -> bytes:
    body = struct.pack("!BBH", socket.AF_UNSPEC, 0, SUBSYSTEM)
    return HEADER.pack(HEADER.size + len(body), kind, NLM_F_REQUEST, 0, 0) + body


def list_tables(family: int = NFPROTO_IPV4) -> list[str]:
    """Return the names of the tables of a family. Raises OSError, EPROTONOSUPPORT without nf_tables in the kernel."""
    request = Request(SUBSYSTEM << 8 | GETTABLE, struct.pack("!BBH", family, 0, 0), "NFT_MSG_GETTABLE")
    with NetlinkSocket(NETLINK_NETFILTER) as netlink:
        return [as_text(attributes(reply.body, 4).get(1)) for reply in netlink.dump(request)]


def table_exists(name: str, family: int = NFPROTO_IPV4) -> bool:
    """Whether the family has a table of that name."""
    body = struct.pack("!BBH", family, 0, 0) + text(1, name)
    try:
        with NetlinkSocket(NETLINK_NETFILTER) as netlink:
            netlink.ask(Request(SUBSYSTEM << 8 | GETTABLE, body, "NFT_MSG_GETTABLE", name))
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        return False
    return True


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
    """Return address . port as data of a map, in network order, each part 4 bytes."""
    return packed(address) + struct.pack("!HH", port, 0)


def load_port_key(*, address: bool) -> tuple[bytes, ...]:
    """Load the IPv4 packet's destination (address . protocol . port, or the last two) as the key of a map."""
    first = _WORD + (1 if address else 0)
    destination = expression("payload", be32(1, _WORD), be32(2, 1), be32(3, 16), be32(4, 4))
    return (
        *((destination,) if address else ()),
        expression("meta", be32(2, META_L4PROTO), be32(1, first)),
        expression("payload", be32(1, first + 1), be32(2, 2), be32(3, 2), be32(4, 2)),
    )


def destination_from(name: str) -> tuple[bytes, ...]:
    """Look the loaded key up in a map to address . port, and send the packet there. Only in a nat chain."""
    lookup = expression("lookup", text(1, name), be32(2, _WORD), be32(3, _WORD))
    nat = expression("nat", be32(1, 1), be32(2, NFPROTO_IPV4), be32(3, _WORD), be32(5, _WORD + 1))
    return lookup, nat


def to_this_host() -> tuple[bytes, ...]:
    """Match packets to an address of this host (fib daddr type local)."""
    fib = expression("fib", be32(1, _REGISTER), be32(2, 3), be32(3, 1 << 1))
    return fib, compared(struct.pack("=I", RTN_LOCAL))


def of_changed_destination() -> tuple[bytes, ...]:
    """Match packets of connections whose destination was changed (ct status dnat)."""
    mask = struct.pack("=I", CT_DNAT)
    return load_ct(CT_STATUS), masked(mask), compared(bytes(4), equal=False)


def to_subnet4(network: str, prefix: int) -> tuple[bytes, ...]:
    """Match packets whose IPv4 destination is in a subnet (offset 16 of the header, RFC 791)."""
    mask = (0xFFFFFFFF << (32 - prefix) & 0xFFFFFFFF).to_bytes(4, "big")
    return load_network(16, 4), masked(mask), compared(packed(network))


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
    zero = attribute(_DATA_VALUE, bytes(len(mask)))
    return expression(
        "bitwise",
        be32(1, _REGISTER),
        be32(2, _REGISTER),
        be32(3, len(mask)),
        nested(4, attribute(_DATA_VALUE, mask)),
        nested(5, zero),
    )


def compared(value: bytes, *, equal: bool = True) -> bytes:
    """Go on with the rule only when the register has (or has not) this value."""
    operator = CMP_EQ if equal else CMP_NEQ
    return expression("cmp", be32(1, _REGISTER), be32(2, operator), nested(3, attribute(_DATA_VALUE, value)))


def in_set(name: str, *, inverted: bool = False) -> bytes:
    """Go on with the rule only when the register's value is (or is not) in a set."""
    return expression("lookup", text(1, name), be32(2, _REGISTER), be32(5, LOOKUP_INVERT if inverted else 0))


def verdict_from(name: str) -> bytes:
    """Look the register's value up in a verdict map and do what it says."""
    return expression("lookup", text(1, name), be32(2, _REGISTER), be32(3, _VERDICT_REGISTER))


def verdict_data(code: int, chain: str = "") -> bytes:
    """Return a verdict as data: NF_ACCEPT, NF_DROP, NFT_RETURN, or NFT_JUMP with its chain."""
    return nested(_DATA_VERDICT, be32(1, code), text(2, chain) if chain else b"")


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
        expression("immediate", be32(1, register), nested(2, attribute(_DATA_VALUE, value)))
        for register, value in values.items()
    ]
    nat = expression("nat", be32(1, 1), be32(2, NFPROTO_IPV4), be32(3, _REGISTER), be32(5, _SECOND_REGISTER))
    return (*loads, nat)


def to_address4(address: str, protocol: int, port: int) -> tuple[bytes, ...]:
    """Match packets to an IPv4 address and a port of TCP or UDP (offsets 16 of IP, 2 of both)."""
    return (
        *(load_network(16, 4), compared(packed(address))),
        *(load_meta(META_L4PROTO), compared(bytes((protocol,)))),
        *(load_transport(2, 2), compared(struct.pack("!H", port))),
    )


def from_interface(name: str, *, equal: bool = True) -> tuple[bytes, ...]:
    """Match packets that came in by an interface (iifname)."""
    return load_meta(META_IIFNAME), compared(interface_key(name), equal=equal)


def to_interface(name: str, *, equal: bool = True) -> tuple[bytes, ...]:
    """Match packets that will leave by an interface (oifname)."""
    return load_meta(META_OIFNAME), compared(interface_key(name), equal=equal)


def from_subnet4(network: str, prefix: int) -> tuple[bytes, ...]:
    """Match packets whose IPv4 source is in a subnet (offset 12 of the header, RFC 791)."""
    mask = (0xFFFFFFFF << (32 - prefix) & 0xFFFFFFFF).to_bytes(4, "big")
    return load_network(12, 4), masked(mask), compared(packed(network))


def of_known_connection() -> tuple[bytes, ...]:
    """Match packets of connections that were let through before, and their errors (ct state established,related)."""
    mask = struct.pack("=I", CT_ESTABLISHED | CT_RELATED)
    return load_ct(CT_STATE), masked(mask), compared(bytes(4), equal=False)
