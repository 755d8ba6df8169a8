"""Reading one request, strictly, and writing the head of an answer.

A request smuggler lives on leniency, so there is none: every line ends in CR LF and matches its grammar (RFC 9112),
no folded lines, one Content-Length of digits or one "Transfer-Encoding: chunked", never both, no trailers. Nobody who
speaks to us sends anything else. And what a request asks for (an upgrade) does not change where its body ends: the
libraries that think so lose the body of exec-start.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

import wherry.version as release

MAX_HEAD = 64 << 10
END = b"\r\n\r\n"
TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
REQUEST_LINE = re.compile(rf"({TOKEN}) ([\x21-\x7e]+) HTTP/(\d\.\d)")
FIELD = re.compile(rf"({TOKEN}):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
LENGTH = re.compile(r"[0-9]{1,18}")
CHUNK_SIZE = re.compile(rb"([0-9a-fA-F]{1,15})(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?")
LONGEST_SIZE_LINE = 1024


class Refused(Exception):
    """The bytes are no request that we take; the connection ends after the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def find_end(buffer: bytearray) -> int:
    """Return the length of the complete head at the start of buffer, 0 when it is incomplete; raises Refused."""
    end = buffer.find(END, 0, MAX_HEAD)
    if end >= 0:
        return end + len(END)
    if len(buffer) > MAX_HEAD:
        raise Refused(431, "request head too large: at most 64 KiB")
    if buffer.count(b"\n") != buffer.count(b"\r\n"):
        raise Refused(400, "malformed request: a line ends without a carriage return")
    return 0


@dataclass(slots=True, eq=False)
class Head:
    """The head of a request as it came: target not decoded, header names in lower case, repeated ones joined."""

    method: str
    target: str
    headers: Mapping[str, str]
    keep_alive: bool
    chunked_answers: bool


def parse_head(data: bytes) -> Head:
    """Return a complete head; raises Refused."""
    lines = data[: -len(END)].decode("latin-1").split("\r\n")
    first = REQUEST_LINE.fullmatch(lines[0])
    if first is None:
        raise Refused(400, "malformed request: bad request line")
    method, target, version = first.groups()
    if version not in ("1.0", "1.1"):
        raise Refused(505, "this version of HTTP is not spoken here, use HTTP/1.1")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        field = FIELD.fullmatch(line)
        if field is None:
            raise Refused(400, "malformed request: bad header line")
        name, value = field[1].lower(), field[2].rstrip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    modern = version == "1.1"
    _check(headers, modern)
    keep = modern and "close" not in headers.get("connection", "").lower()
    return Head(method, target, headers, keep, modern)


def _check(headers: Mapping[str, str], modern: bool) -> None:
    """Refuse what leaves open where the body ends (joined values hold a comma) or which host is meant."""
    if "transfer-encoding" in headers:
        if "content-length" in headers:
            raise Refused(400, "malformed request: both Content-Length and Transfer-Encoding")
        if headers["transfer-encoding"].lower() != "chunked" or not modern:
            raise Refused(400, "malformed request: the only Transfer-Encoding that is known is chunked")
    elif "content-length" in headers and not LENGTH.fullmatch(headers["content-length"]):
        raise Refused(400, "malformed request: bad Content-Length, or more than one")
    if modern and ("host" not in headers or "," in headers["host"]):
        raise Refused(400, "malformed request: exactly one Host is needed")


class Incoming:
    """The body of one request, as it comes from the connection."""

    def __init__(self, head: Head) -> None:
        self._left = int(head.headers.get("content-length", "0"))
        self._chunks = _Chunks() if "transfer-encoding" in head.headers else None
        self.wants_continue = head.headers.get("expect", "").lower() == "100-continue" and head.chunked_answers

    @property
    def empty(self) -> bool:
        """Whether the head says that there is no body."""
        return self._chunks is None and not self._left

    def take(self, data: bytes) -> tuple[list[bytes], bytes | None]:
        """Take more bytes; return pieces of the body, and what follows it (None: more of it is to come).

        Raises Refused when the body is malformed.
        """
        if self._chunks is not None:
            return self._chunks.take(data)
        piece, rest = data[: self._left], data[self._left :]
        self._left -= len(piece)
        return [piece] if piece else [], None if self._left else rest


class _Chunks:
    """A chunked body: SIZE[;extension] CR LF, bytes, CR LF, ... 0 CR LF CR LF. Extensions mean nothing here."""

    def __init__(self) -> None:
        self._pending = b""
        self._left = 0
        self._between = False

    def take(self, data: bytes) -> tuple[list[bytes], bytes | None]:
        """As `Incoming.take`."""
        pieces: list[bytes] = []
        data, at = self._pending + data, 0
        while True:
            if self._left:
                piece = data[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                if piece:
                    pieces.append(piece)
                if self._left:
                    self._pending = b""
                    return pieces, None
                self._between = True
            following = self._next_chunk(data, at)
            if following < 0:
                self._pending = data[at:]
                return pieces, None
            at = following
            if not self._left:
                return pieces, data[at:]

    def _next_chunk(self, data: bytes, at: int) -> int:
        """Read the framing at a place: return where the bytes of the next chunk begin, -1 when it is incomplete.

        After the last chunk there is nothing left, and the place is the end of the body. Trailers are refused.
        """
        start = at + 2 if self._between else at
        if self._between and data[at:start] != b"\r\n"[: len(data) - at]:
            raise Refused(400, "malformed request body: a chunk is longer than its size")
        end = data.find(b"\r\n", start, start + LONGEST_SIZE_LINE)
        if end < 0:
            if len(data) - start > LONGEST_SIZE_LINE or b"\n" in data[start:]:
                raise Refused(400, "malformed request body: bad chunk size")
            return -1
        size = CHUNK_SIZE.fullmatch(data, start, end)
        if size is None:
            raise Refused(400, "malformed request body: bad chunk size")
        self._left = int(size[1], 16)
        if self._left:
            self._between = False
            return end + 2
        if data[end + 2 : end + 4] != b"\r\n"[: len(data) - end - 2]:
            raise Refused(400, "malformed request body: no trailers are taken after the last chunk")
        return end + 4 if len(data) >= end + 4 else -1


SERVER = f"Docker/{release.COMPATIBLE} (linux)"
COMMON = f"Api-Version: {release.API_NEWEST}\r\nDocker-Experimental: false\r\nOstype: linux\r\nServer: {SERVER}\r\n"
STATUS_LINES = {each.value: f"HTTP/1.1 {each.value} {each.phrase}\r\n" for each in HTTPStatus}


class _Clock:
    """The Date header, made once per second."""

    second = -1
    line = ""


def _date() -> str:
    now = int(time.time())
    if now != _Clock.second:
        _Clock.second = now
        _Clock.line = time.strftime("Date: %a, %d %b %Y %H:%M:%S GMT\r\n", time.gmtime(now))
    return _Clock.line


def write_head(
    status: int, headers: Mapping[str, str], *, length: int | None, keep_alive: bool, chunked: bool
) -> bytes:
    """Return the head of an answer. length None: the body is chunked, or ends with the connection."""
    lines = [STATUS_LINES[status], COMMON]
    for name, value in headers.items():
        if "\n" in value or "\r" in value:
            raise ValueError(f"header {name} holds a line break")
        lines.append(f"{name}: {value}\r\n")
    lines.append(_date())
    if length is not None:
        lines.append(f"Content-Length: {length}\r\n")
    elif chunked:
        lines.append("Transfer-Encoding: chunked\r\n")
    if not keep_alive:
        lines.append("Connection: close\r\n")
    lines.append("\r\n")
    return "".join(lines).encode("latin-1")


RAW_STREAM = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"


def write_upgrade(*, upgrade: bool, multiplexed: bool) -> bytes:
    """Return the head after which a connection carries raw bytes; the words are what docker's clients look for."""
    if not upgrade:
        return f"HTTP/1.1 200 OK\r\nContent-Type: {RAW_STREAM}\r\n\r\n".encode()
    kind = MULTIPLEXED if multiplexed else RAW_STREAM
    return (
        f"HTTP/1.1 101 UPGRADED\r\nContent-Type: {kind}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n{COMMON}\r\n"
    ).encode()
