"""DNS messages, as far as a forwarder needs them: RFC 1035 section 4, RFC 6891 (EDNS). PURE.

    header     id 2 | flags 2 | counts of questions, answers, authorities, additionals 2 each
    question   labels (length 1, bytes), 0 | type 2 | class 2
    answer     name (here: a pointer to the question's, c0 0c) | type 2 | class 2 | ttl 4 | length 2 | data
    OPT        0 | type 2 | largest answer by UDP 2 | flags 4 | length 2 | data
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from dataclasses import dataclass

A, PTR, AAAA, OPT = 1, 12, 28, 41
IN, ANY_CLASS = 1, 255
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)
TTL = 600
"""Seconds, as dockerd says."""

SMALLEST, LARGEST = 512, 65535
LONGEST_NAME, LONGEST_LABEL = 253, 63
"""What can be asked for at all, as text without the last dot: RFC 1035 section 2.3.4."""

_HEADER = struct.Struct("!6H")
_RECORD = struct.Struct("!HHIH")
_QUERY = 0x8000
_OPCODE, _TRUNCATED, _RECURSION_DESIRED, _RECURSION_AVAILABLE = 0x7800, 0x0200, 0x0100, 0x0080
_CODE = 0x000F
_POINTER = b"\xc0\x0c"
_OPT = b"\0" + _RECORD.pack(OPT, 4096, 0, 0)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked. name: lower case, without the last dot. raw: as it stood.

    size: largest answer by UDP, None without EDNS, which means `SMALLEST`.
    """

    id: int
    flags: int
    name: str
    type: int
    class_: int
    raw: bytes
    size: int | None = None


def parse(data: bytes) -> Question | None:
    """Return the question of a query; None for what is no query with one question."""
    if len(data) < _HEADER.size:
        return None
    id_, flags, questions, _answers, _authorities, additionals = _HEADER.unpack_from(data)
    if flags & (_QUERY | _OPCODE) or questions != 1:
        return None
    end = _end_of_name(data, _HEADER.size)
    if end is None or len(data) < end + 4:
        return None
    labels, at = [], _HEADER.size
    while data[at]:
        labels.append(data[at + 1 : at + 1 + data[at]].decode("latin-1").lower())
        at += 1 + data[at]
    type_, class_ = struct.unpack_from("!HH", data, end)
    raw = data[_HEADER.size : end + 4]
    return Question(id_, flags, ".".join(labels), type_, class_, raw, _size(data, end + 4, additionals))


def _end_of_name(data: bytes, at: int) -> int | None:
    """Return where a name ends that holds no pointer; in a question there is nothing to point to."""
    start = at
    while at < len(data) and data[at]:
        if data[at] > 63:
            return None
        at += 1 + data[at]
    return at + 1 if at < len(data) and at - start < 255 else None


def _size(data: bytes, at: int, additionals: int) -> int | None:
    """Return how large an answer may be: what an OPT record says, when it is the first after the question."""
    if additionals and len(data) >= at + 11 and data[at] == 0:
        type_, size = struct.unpack_from("!HH", data, at + 1)
        if type_ == OPT:
            return max(SMALLEST, int(size))
    return None


def answer(question: Question, data: Sequence[bytes], *, code: int = NOERROR, size: int = LARGEST) -> bytes:
    """Return an answer with one record per element of `data`; cut off, and marked so, at `size` bytes.

    Who asks with an OPT record is answered with one (RFC 6891 section 6.1.1).
    """
    flags = _QUERY | question.flags & _RECURSION_DESIRED | _RECURSION_AVAILABLE | code
    options = b"" if question.size is None else _OPT
    records: list[bytes] = []
    length = _HEADER.size + len(question.raw) + len(options)
    for each in data:
        record = _POINTER + _RECORD.pack(question.type, IN, TTL, len(each)) + each
        if length + len(record) > size:
            flags |= _TRUNCATED
            break
        records.append(record)
        length += len(record)
    head = _HEADER.pack(question.id, flags, 1, len(records), 0, 1 if options else 0)
    return b"".join((head, question.raw, *records, options))


def refusal(data: bytes) -> bytes | None:
    """Return the answer to what `parse` does not take; None for what is not even a query: answering that is a loop."""
    if len(data) < _HEADER.size:
        return None
    id_, flags = struct.unpack_from("!HH", data)
    if flags & _QUERY:
        return None
    code = NOTIMP if flags & _OPCODE else FORMERR
    return _HEADER.pack(id_, _QUERY | flags & (_OPCODE | _RECURSION_DESIRED) | _RECURSION_AVAILABLE | code, 0, 0, 0, 0)


def belongs(question: Question, id_: int, data: bytes) -> bool:
    """Whether a message answers that question, asked under that id (RFC 5452 section 9.1).

    A server that did not understand the question need not repeat it, but then it has no answer to it either.
    """
    if len(data) < _HEADER.size:
        return False
    found, flags, questions = struct.unpack_from("!3H", data)
    if found != id_ or not flags & _QUERY:
        return False
    if not questions:
        return bool(flags & _CODE)
    name, end = question.raw[:-4], _HEADER.size + len(question.raw)
    asked = data[_HEADER.size : end]
    return asked[:-4].lower() == name.lower() and asked[-4:] == question.raw[-4:]


def with_id(id_: int, data: bytes) -> bytes:
    """Return a message under another id."""
    return id_.to_bytes(2, "big") + data[2:]


def failed(data: bytes) -> bool:
    """Whether an answer says that the server could not find out (SERVFAIL, REFUSED): another may."""
    return data[3] & 0xF in (SERVFAIL, REFUSED)


def encode_name(name: str) -> bytes:
    """Return a name as labels; a part that is too long for one is cut."""
    parts = [part.encode("latin-1", "replace")[:LONGEST_LABEL] for part in name.split(".") if part]
    return b"".join(bytes((len(part),)) + part for part in parts) + b"\0"


def can_be_asked(name: str) -> bool:
    """Whether a question can hold a name."""
    return 0 < len(name) <= LONGEST_NAME and all(0 < len(part) <= LONGEST_LABEL for part in name.split("."))


def address(text: str) -> bytes:
    """Return the bytes of an address, 4 or 16: the data of an A or AAAA record."""
    return ipaddress.ip_address(text).packed


def reversed_address(name: str) -> bytes:
    """Return the address that "4.3.2.1.in-addr.arpa" or 32 digits before ip6.arpa ask for, b"" for any other name."""
    parts = name.split(".")[::-1]
    try:
        if parts[:2] == ["arpa", "in-addr"] and len(parts) == 6:
            return ipaddress.IPv4Address(".".join(parts[2:])).packed
        if parts[:2] == ["arpa", "ip6"] and len(parts) == 34 and all(len(each) == 1 for each in parts[2:]):
            return bytes.fromhex("".join(parts[2:]))
    except ValueError:
        pass
    return b""
