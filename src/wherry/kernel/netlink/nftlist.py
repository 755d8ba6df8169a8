"""Reading nf_tables: chains, rules and set elements of all tables of a network namespace.

The attributes are those of include/uapi/linux/netfilter/nf_tables.h; how a rule's expressions read, `nfttext` knows.
A dump that the ruleset changed under is answered with NLM_F_DUMP_INTR, and `NetlinkSocket.dump` asks again.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from wherry.kernel.netlink import nfttext
from wherry.kernel.netlink.codec import Request, as_be32, as_be64, as_text, attributes, listed
from wherry.kernel.netlink.nft import GETCHAIN, SUBSYSTEM
from wherry.kernel.netlink.socket import NETLINK_NETFILTER, NetlinkSocket

GETRULE, GETSET, GETSETELEM = 7, 10, 13
FAMILIES = {1: "inet", 2: "ip", 5: "netdev", 7: "bridge", 10: "ip6"}
HOOKS = ("prerouting", "input", "forward", "output", "postrouting", "ingress")
_MISSING = frozenset({errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.ENOENT})
_EVERY_FAMILY = 0


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain. hook: "" for one that is entered by a jump; then type, priority and policy say nothing."""

    family: str
    table: str
    name: str
    type: str = ""
    hook: str = ""
    priority: int = 0
    policy: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule in the words of nft(8). packets, bytes: of its counter, -1 without one. sets: those it looks into.

    words: the text cut where its conditions and statements end, with those that others imply.
    """

    family: str
    table: str
    chain: str
    handle: int
    text: str
    packets: int = -1
    bytes: int = -1
    sets: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Element:
    """An element of a set or map in the words of nft(8); verdict: what a map answers, "" in a set."""

    family: str
    table: str
    set: str
    key: str
    verdict: str = ""


def list_chains(netlink: NetlinkSocket) -> list[Chain]:
    """Return the chains of all tables; none without nf_tables in the kernel. Raises OSError."""
    return [_chain(body) for body in _dump(netlink, GETCHAIN, "NFT_MSG_GETCHAIN")]


def list_rules(netlink: NetlinkSocket) -> list[Rule]:
    """Return the rules of all tables, chain by chain in their order. Raises OSError."""
    return [_rule(body) for body in _dump(netlink, GETRULE, "NFT_MSG_GETRULE")]


def list_elements(netlink: NetlinkSocket, family: str, table: str, set_: str) -> list[Element]:
    """Return the elements of one set or map; none when it is gone. Raises OSError."""
    number = next(number for number, name in FAMILIES.items() if name == family)
    names = struct.pack("=HH", 5 + len(table), 1) + table.encode() + b"\0"
    names += b"\0" * (-len(names) % 4) + struct.pack("=HH", 5 + len(set_), 2) + set_.encode() + b"\0"
    names += b"\0" * (-len(names) % 4)
    found = []
    for body in _dump(netlink, GETSETELEM, "NFT_MSG_GETSETELEM", names, number):
        for _, element in listed(attributes(body, 4).get(3, b"")):
            fields = attributes(element)
            key = attributes(fields.get(1, b"")).get(1, b"")
            verdict = nfttext.data(fields[2]) if 2 in fields else ""
            found.append(Element(family, table, set_, nfttext.key(key), verdict))
    return found


def open_socket() -> NetlinkSocket:
    """Return a socket for the functions here, of the calling thread's network namespace."""
    return NetlinkSocket(NETLINK_NETFILTER)


def _dump(
    netlink: NetlinkSocket, kind: int, operation: str, more: bytes = b"", family: int = _EVERY_FAMILY
) -> Iterator[bytes]:
    request = Request(SUBSYSTEM << 8 | kind, struct.pack("!BBH", family, 0, 0) + more, operation)
    try:
        replies = netlink.dump(request)
    except OSError as error:
        if error.errno in _MISSING:
            return
        raise
    for reply in replies:
        yield reply.body


def _family(body: bytes) -> str:
    return FAMILIES.get(body[0], str(body[0]))


def _chain(body: bytes) -> Chain:
    fields = attributes(body, 4)
    hook = attributes(fields[4]) if 4 in fields else {}
    number = as_be32(hook.get(1))
    priority = as_be32(hook.get(2))
    return Chain(
        family=_family(body),
        table=as_text(fields.get(1)),
        name=as_text(fields.get(3)),
        type=as_text(fields.get(7)) if hook else "",
        hook=(HOOKS[number] if number < len(HOOKS) else str(number)) if hook else "",
        priority=priority - (1 << 32) if priority >> 31 else priority,
        policy=("drop", "accept")[as_be32(fields.get(5)) & 1] if hook else "",
    )


def _rule(body: bytes) -> Rule:
    fields = attributes(body, 4)
    family = _family(body)
    words = nfttext.Words(family)
    for _, element in listed(fields.get(4, b"")):
        expression = attributes(element)
        words.add(as_text(expression.get(1)), attributes(expression.get(2, b"")))
    return Rule(
        family=family,
        table=as_text(fields.get(1)),
        chain=as_text(fields.get(2)),
        handle=as_be64(fields.get(3)),
        text=words.text(),
        packets=words.packets,
        bytes=words.bytes,
        sets=tuple(words.sets),
        words=words.words(),
    )
