"""Netlink messages and attributes as bytes: netlink(7), include/uapi/linux/netlink.h.

    message    u32 length | u16 type | u16 flags | u32 sequence | u32 port | body, padded to 4
    attribute  u16 length | u16 type | payload, padded to 4; nested ones have NLA_F_NESTED set in the type

Everything is in host byte order except where a name says be (nf_tables uses network order throughout).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

HEADER = struct.Struct("=IHHII")
ATTRIBUTE = struct.Struct("=HH")

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
NLM_F_DUMP = 0x300
NLM_F_DUMP_INTR = 0x10
NLM_F_ACK_TLVS = 0x200

NLMSG_NOOP = 1
NLMSG_ERROR = 2
NLMSG_DONE = 3

NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF


@dataclass(frozen=True, slots=True)
class Request:
    """One message to the kernel. `operation` and `subject` name it in errors; an errno in `tolerate` is success."""

    type: int
    body: bytes
    operation: str
    subject: str = ""
    flags: int = 0
    tolerate: frozenset[int] = field(default=frozenset())


@dataclass(frozen=True, slots=True)
class Reply:
    """One message from the kernel."""

    type: int
    flags: int
    sequence: int
    body: bytes


def encode(request: Request, sequence: int, flags: int) -> bytes:
    """Return the request as it goes over the socket."""
    length = HEADER.size + len(request.body)
    header = HEADER.pack(length, request.type, request.flags | flags | NLM_F_REQUEST, sequence, 0)
    return header + request.body + b"\0" * (-length % 4)


def decode(data: bytes) -> Iterator[Reply]:
    """Yield the messages of one datagram."""
    offset = 0
    while offset + HEADER.size <= len(data):
        length, kind, flags, sequence, _port = HEADER.unpack_from(data, offset)
        if length < HEADER.size:
            return
        yield Reply(kind, flags, sequence, data[offset + HEADER.size : offset + length])
        offset += (length + 3) & ~3


def attribute(kind: int, payload: bytes) -> bytes:
    """Return one attribute with its padding."""
    length = ATTRIBUTE.size + len(payload)
    return ATTRIBUTE.pack(length, kind) + payload + b"\0" * (-length % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """Return an attribute that holds attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    """Return a NUL-terminated string attribute."""
    return attribute(kind, value.encode() + b"\0")


def u8(kind: int, value: int) -> bytes:
    """Return a one-byte attribute."""
    return attribute(kind, struct.pack("=B", value))


def u16(kind: int, value: int) -> bytes:
    """Return a 16-bit attribute in host order."""
    return attribute(kind, struct.pack("=H", value))


def u32(kind: int, value: int) -> bytes:
    """Return a 32-bit attribute in host order."""
    return attribute(kind, struct.pack("=I", value))


def be32(kind: int, value: int) -> bytes:
    """Return a 32-bit attribute in network order; negative values wrap, as verdicts and priorities need."""
    return attribute(kind, struct.pack("!I", value & 0xFFFFFFFF))


def be64(kind: int, value: int) -> bytes:
    """Return a 64-bit attribute in network order."""
    return attribute(kind, struct.pack("!Q", value))


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """Return the attributes that follow a fixed header of `offset` bytes, by type without its flag bits."""
    return dict(listed(data, offset))


def listed(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield attributes in order, for lists in which one type repeats."""
    while offset + ATTRIBUTE.size <= len(data):
        length, kind = ATTRIBUTE.unpack_from(data, offset)
        if length < ATTRIBUTE.size:
            return
        yield kind & NLA_TYPE_MASK, data[offset + ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3


def as_text(payload: bytes | None) -> str:
    """Return a string attribute's value without its NUL, "" when it is absent."""
    return payload.split(b"\0", 1)[0].decode(errors="replace") if payload else ""


def as_u32(payload: bytes | None) -> int:
    """Return a host-order 32-bit value, 0 when it is absent."""
    return int.from_bytes(payload[:4], "little" if struct.pack("=H", 1)[0] else "big") if payload else 0


def as_s32(payload: bytes) -> int:
    """Return a host-order signed 32-bit value."""
    number: int = struct.unpack_from("=i", payload)[0]
    return number


def as_be32(payload: bytes | None) -> int:
    """Return a network-order 32-bit value, 0 when it is absent."""
    return int.from_bytes(payload[:4], "big") if payload else 0


def as_be64(payload: bytes | None) -> int:
    """Return a network-order 64-bit value, 0 when it is absent."""
    return int.from_bytes(payload[:8], "big") if payload else 0
