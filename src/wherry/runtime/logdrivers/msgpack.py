"""The few msgpack types that the forward protocol needs, written out. The text of logs need not be UTF-8.

A module of 30 lines in place of msgspec, whose memory each container with this driver would pay for.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence


def text(data: bytes) -> bytes:
    """Return a str."""
    size = len(data)
    if size < 32:
        return bytes((0xA0 | size,)) + data
    if size < 1 << 8:
        return b"\xd9" + bytes((size,)) + data
    if size < 1 << 16:
        return b"\xda" + struct.pack(">H", size) + data
    return b"\xdb" + struct.pack(">I", size) + data


def integer(number: int) -> bytes:
    """Return an unsigned integer of 32 or 64 bits."""
    return b"\xce" + struct.pack(">I", number) if number < 1 << 32 else b"\xcf" + struct.pack(">Q", number)


def pair(name: str, value: bytes) -> bytes:
    """Return an entry of a map."""
    return text(name.encode()) + text(value)


def mapping(pairs: Sequence[bytes]) -> bytes:
    """Return a map of such entries."""
    count = len(pairs)
    head = bytes((0x80 | count,)) if count < 16 else b"\xde" + struct.pack(">H", count)
    return head + b"".join(pairs)
