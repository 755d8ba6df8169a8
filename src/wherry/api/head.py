"""Reading one request with h11, strictly, and writing the head of an answer.

h11 is lenient where a request smuggler lives: bare LF, folded lines, Content-Length beside Transfer-Encoding, a
repeated Content-Length. All of these are refused here before h11 sees them; nobody who speaks to us sends them.
One h11 machine serves one request and only its receiving side: answers are a few bytes that we know how to write,
and a fresh machine cannot carry anything over from the request before.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

import h11

import wherry.version as release

MAX_HEAD = 64 << 10
END = b"\r\n\r\n"


class Refused(Exception):
    """The bytes are no request that we take; the connection ends after the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def find_end(buffer: bytearray) -> int:
    """Return the length of the complete head at the start of buffer, 0 when it is incomplete; raises Refused."""
    end = buffer.find(END, 0, MAX_HEAD)
    if end < 0:
        if len(buffer) > MAX_HEAD:
            raise Refused(431, "request head too large: at most 64 KiB")
        if b"\n\n" in buffer or (buffer.count(b"\n") != buffer.count(b"\r\n")):
            raise Refused(400, "malformed request: a line ends without a carriage return")
        return 0
    return end + len(END)


def _check_form(head: bytes) -> None:
    if head.count(b"\n") != head.count(b"\r\n") or head.count(b"\r") != head.count(b"\r\n"):
        raise Refused(400, "malformed request: a line ends without carriage return and newline")
    if b"\n " in head or b"\n\t" in head:
        raise Refused(400, "malformed request: folded header lines are not accepted")
    if b"\0" in head:
        raise Refused(400, "malformed request: NUL in the head")


def _values(lines: list[bytes], name: bytes) -> list[bytes]:
    return [line[len(name) + 1 :].strip() for line in lines if line[: len(name) + 1].lower() == name + b":"]


def _check_length(head: bytes) -> None:
    """Look at the lines themselves: h11 makes one of a length that is given twice."""
    lines = head.split(b"\r\n")
    lengths, encodings = _values(lines, b"content-length"), _values(lines, b"transfer-encoding")
    if len(lengths) > 1 or b"," in b"".join(lengths):
        raise Refused(400, "malformed request: more than one Content-Length")
    if lengths and encodings:
        raise Refused(400, "malformed request: both Content-Length and Transfer-Encoding")
    if lengths and not lengths[0].isdigit():
        raise Refused(400, "malformed request: bad Content-Length")
    if encodings and (len(encodings) > 1 or encodings[0].lower() != b"chunked"):
        raise Refused(400, "malformed request: the only Transfer-Encoding that is known is chunked")


@dataclass(slots=True, eq=False)
class Head:
    """The head of a request as it came: target not decoded, header names in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    keep_alive: bool
    chunked_answers: bool


class Incoming:
    """The receiving side of one request."""

    def __init__(self) -> None:
        self._machine = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._chunked = False
        self._tail = b""

    def head(self, data: bytes) -> Head:
        """Parse a complete head; raises Refused."""
        _check_form(data)
        _check_length(data)
        try:
            self._machine.receive_data(data)
            request = self._machine.next_event()
        except h11.RemoteProtocolError as error:
            raise Refused(400, f"malformed request: {error}") from error
        if not isinstance(request, h11.Request):
            raise Refused(400, "malformed request")
        if request.http_version not in (b"1.0", b"1.1"):
            raise Refused(505, "this version of HTTP is not spoken here, use HTTP/1.1")
        headers: dict[str, str] = {}
        for raw_name, raw_value in request.headers:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        self._chunked = "transfer-encoding" in headers
        modern = request.http_version == b"1.1"
        keep = modern and "close" not in headers.get("connection", "").lower()
        return Head(request.method.decode("ascii"), request.target.decode("latin-1"), headers, keep, modern)

    @property
    def wants_continue(self) -> bool:
        """Whether the client waits for a 100 before it sends the body."""
        return self._machine.they_are_waiting_for_100_continue

    def body(self, data: bytes) -> tuple[list[bytes], bytes | None]:
        """Take more bytes; return pieces of the body, and what follows it (None: more of it is to come).

        Raises Refused when the body is malformed.
        """
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
        """A chunked body ends with an empty line, CR LF; trailers have no use here and are refused."""
        if self._chunked and (list(event.headers) or not (self._tail + consumed[-len(END) :]).endswith(END)):
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
