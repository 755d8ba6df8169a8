"""nf_tables: include/uapi/linux/netfilter/nf_tables.h, nfnetlink.h; nft(8) shows what these messages made.

A `Ruleset` collects requests and sends them as one transaction: the kernel takes all of them or none
(nfnetlink_rcv_batch, net/netfilter/nfnetlink.c). What rules are made of is in nftexpr.py.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable, Mapping

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

IFNAME_TYPE, IPV4_TYPE, IPV6_TYPE, PROTOCOL_TYPE, PORT_TYPE = 41, 7, 8, 12, 13
"""How nft(8) displays a set's keys; the kernel only stores these numbers."""

SET_INTERVAL, SET_MAP, SET_TIMEOUT, SET_EVAL = 0x4, 0x8, 0x10, 0x20
IFNAMSIZ = 16

_LIST_ELEMENT = 1
DATA_VALUE, DATA_VERDICT = 1, 2
_ELEMENTS = 500
"""Elements in one message: the attribute that holds them has a length of 16 bits."""


class Ruleset:
    """A transaction on the tables of one family, or of several: see `beside`."""

    def __init__(self, family: int = NFPROTO_IPV4) -> None:
        """Begin with nothing to do."""
        self._family = family
        self._requests: list[Request] = []

    def beside(self, family: int) -> Ruleset:
        """Return what adds requests for another family to this same transaction; either commits all of it."""
        other = Ruleset(family)
        other._requests = self._requests
        return other

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

    def passing_set(self, table: str, name: str, key_type: int, key_length: int, *, seconds: int, most: int) -> None:
        """Make a set to which rules add keys, each for some seconds; with `most` in it nothing is added."""
        body = text(1, table) + text(2, name) + be32(3, SET_TIMEOUT | SET_EVAL) + _key(key_type, key_length)
        body += nested(9, be32(1, most)) + be64(11, seconds * 1000)
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
            nested(_LIST_ELEMENT, nested(1, attribute(DATA_VALUE, key)), nested(2, attribute(DATA_VALUE, value)))
            for key, value in entries.items()
        ]
        self._elements(NEWSETELEM, "NFT_MSG_NEWSETELEM", table, name, elements)

    def _set_id(self) -> bytes:
        return be32(10, len(self._requests) + 1)

    def add_elements(self, table: str, name: str, keys: Iterable[bytes]) -> None:
        """Put keys into a set; those that are in it stay."""
        elements = [nested(_LIST_ELEMENT, nested(1, attribute(DATA_VALUE, key))) for key in keys]
        self._elements(NEWSETELEM, "NFT_MSG_NEWSETELEM", table, name, elements)

    def add_verdicts(self, table: str, name: str, verdicts: dict[bytes, bytes]) -> None:
        """Put keys with their verdicts (from `verdict_data`) into a map."""
        elements = [
            nested(_LIST_ELEMENT, nested(1, attribute(DATA_VALUE, key)), nested(2, data))
            for key, data in verdicts.items()
        ]
        self._elements(NEWSETELEM, "NFT_MSG_NEWSETELEM", table, name, elements)

    def delete_elements(self, table: str, name: str, keys: Iterable[bytes]) -> None:
        """Take keys out of a set or map. ENOENT fails the transaction."""
        elements = [nested(_LIST_ELEMENT, nested(1, attribute(DATA_VALUE, key))) for key in keys]
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
