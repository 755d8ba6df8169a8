"""Reading one request, strictly, and writing the head of an answer.

A request smuggler lives on leniency, so there is none: every line ends in CR LF and matches its grammar (RFC 9112),
no folded lines, one Content-Length of digits or one "Transfer-Encoding: chunked", never both, no trailers. Nobody who
speaks to us sends anything else. Chunked bodies are decoded by h11, which gets the whole request for that: libraries
whose parsers stop at an Upgrade header lose the body of exec-start.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

import h11

import wherry.version as release

MAX_HEAD = 64 << 10
END = b"\r\n\r\n"
TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
REQUEST_LINE = re.compile(rf"({TOKEN}) ([\x21-\x7e]+) HTTP/(\d\.\d)")
FIELD = re.compile(rf"({TOKEN}):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
LENGTH = re.compile(r"[0-9]{1,18}")


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

    def __init__(self, head: Head, raw: bytes) -> None:
        self._left = int(head.headers.get("content-length", "0"))
        self._chunks = _Chunks(raw) if "transfer-encoding" in head.headers else None
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
    """A chunked body."""

    def __init__(self, head: bytes) -> None:
        self._machine = h11.Connection(h11.SERVER, max_incomplete_event_size=2 * MAX_HEAD)
        self._machine.receive_data(head)
        self._machine.next_event()
        self._tail = b""

    def take(self, data: bytes) -> tuple[list[bytes], bytes | None]:
        """As `Incoming.take`."""
        pieces: list[bytes] = []
        try:
            if data:
                self._machine.receive_data(data)
            while True:
                event = self._machine.next_event()
                if isinstance(event, h11.Data):
                    pieces.append(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    rest = self._machine.trailing_data[0]
                    self._check_end(event, data[: len(data) - len(rest)])
                    return pieces, rest
                else:
                    self._tail = (self._tail + data)[-len(END) :]
                    return pieces, None
        except h11.RemoteProtocolError as error:
            raise Refused(400, f"malformed request body: {error}") from error

    def _check_end(self, event: h11.EndOfMessage, consumed: bytes) -> None:
        """The last chunk is followed by CR LF: h11 would take a bare LF. Trailers have no use here."""
        if list(event.headers) or not (self._tail + consumed[-len(END) :]).endswith(END):
            raise Refused(400, "malformed request body: bad end of the last chunk")


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
