"""HTTP/1.1 over the engine's socket, by hand: what a command line needs of it and nothing else.

The standard library's client costs 20 ms to import and cannot give up its socket after a 101; of its socket module
the part in C is enough, the other makes enums of some 300 constants at every start. One connection is
opened per request, as the engine's other clients do; a body is read by length, by chunks or to the end.
"""

from __future__ import annotations

import os
from _socket import AF_INET, AF_INET6, AF_UNIX, SOCK_STREAM, getaddrinfo, socket

from wherry.cli.failures import ApiError, Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    Query = Mapping[str, Any]

API_VERSION = "1.51"
OWN_PREFIX = "/wherry/"  # what Docker's API has not; it carries its own version
_LARGEST_HEAD = 1 << 16
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/:@")


_MOVED = 301
"""What the engine says to paths that are not in their normal form; nobody has done anything then."""


def quote(text: str, safe: frozenset[int] = _UNRESERVED) -> str:
    """Percent-encode what may not stand in a path."""
    return "".join(chr(byte) if byte in safe else f"%{byte:02X}" for byte in os.fsencode(text))


def encode_query(query: Query) -> str:
    """The query string with its "?", or nothing; None leaves a name out, booleans become 1 and 0."""
    pairs = []
    for name, value in query.items():
        if value is None:
            continue
        for item in value if isinstance(value, list) else [value]:
            text = str(int(item)) if isinstance(item, bool) else str(item)
            pairs.append(f"{name}={quote(text, _UNRESERVED - set(b'/:@'))}")
    return "?" + "&".join(pairs) if pairs else ""


def _connect_unix(path: str) -> socket:
    sock = socket(AF_UNIX, SOCK_STREAM)
    try:
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock


def _connect_tcp(address: str) -> socket:
    name, _, port = address.rpartition(":")
    failure: OSError | None = None
    for family, kind, protocol, _, target in getaddrinfo(name.strip("[]"), int(port), 0, SOCK_STREAM):
        if family not in (AF_INET, AF_INET6):
            continue
        sock = socket(family, kind, protocol)
        try:
            sock.connect(target)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise failure or OSError(f"no address for {name}")


def connect(host: str) -> socket:
    """A connected stream socket to unix://PATH or tcp://HOST:PORT."""
    scheme, _, address = host.partition("://")
    try:
        if scheme == "unix":
            return _connect_unix(address)
        if scheme == "tcp":
            return _connect_tcp(address)
    except OSError as error:
        reason = f": {error.strerror}" if isinstance(error, PermissionError) else ""
        raise Unreachable(f"Cannot connect to the Wherry daemon at {host}{reason}") from error
    raise Unreachable(f"cannot connect to {host!r}: only unix:// and tcp:// are spoken here")


class Response:
    """An answer whose head has been read; the body is read by whoever wants it."""

    def __init__(self, sock: socket) -> None:
        self._sock = sock
        self._buffer = b""
        head = self._read_head()
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split(" ", 2)[1])
        self.headers = {name.strip().lower(): value.strip() for name, _, value in (x.partition(":") for x in lines[1:])}

    def _read_head(self) -> bytes:
        while b"\r\n\r\n" not in self._buffer:
            piece = self._sock.recv(65536)
            if not piece or len(self._buffer) > _LARGEST_HEAD:
                raise ApiError(500, "the daemon closed the connection without an answer")
            self._buffer += piece
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return head

    def _some(self) -> bytes:
        if self._buffer:
            piece, self._buffer = self._buffer, b""
            return piece
        return self._sock.recv(65536)

    def _line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            piece = self._sock.recv(65536)
            if not piece:
                raise ApiError(500, "the daemon closed the connection in the middle of an answer")
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def chunks(self) -> Iterator[bytes]:
        """The body as it arrives."""
        if "chunked" in self.headers.get("transfer-encoding", ""):
            yield from self._chunked()
        elif "content-length" in self.headers:
            yield from self._counted(int(self.headers["content-length"]))
        elif self.status not in (101, 204, 304):
            while piece := self._some():
                yield piece

    def _counted(self, left: int) -> Iterator[bytes]:
        while left > 0:
            piece = self._some()
            if not piece:
                raise ApiError(500, "the daemon closed the connection in the middle of an answer")
            self._buffer = piece[left:] + self._buffer
            yield piece[:left]
            left -= len(piece)

    def _chunked(self) -> Iterator[bytes]:
        while size := int(self._line().split(b";")[0], 16):
            yield from self._counted(size)
            self._line()
        self._line()

    def lines(self) -> Iterator[bytes]:
        """The body cut at newlines: progress records and events."""
        rest = b""
        for piece in self.chunks():
            *whole, rest = (rest + piece).split(b"\n")
            yield from (line.strip() for line in whole if line.strip())
        if rest.strip():
            yield rest.strip()

    def records(self) -> Iterator[Any]:
        """The body as a stream of JSON values, one a line."""
        import json

        for line in self.lines():
            yield json.loads(line)

    def json(self) -> Any:
        """The whole body as JSON; nothing gives None."""
        import json

        body = b"".join(self.chunks())
        return json.loads(body) if body.strip() else None

    def detach(self) -> tuple[socket, bytes]:
        """The socket itself and the bytes that came with the head."""
        early, self._buffer = self._buffer, b""
        return self._sock, early

    def close(self) -> None:
        """Give the connection up, whatever is still to come."""
        self._sock.close()

    def raise_for_status(self) -> None:
        """Turn a refusal into an ApiError with the engine's own words."""
        if self.status < 400 and self.status != _MOVED:
            return
        body = b"".join(self.chunks())
        self.close()
        try:
            import json

            message = json.loads(body)["message"].strip()
        except (ValueError, KeyError, TypeError):
            moved = "a name with . or .. in it leads elsewhere: use another"
            message = body.decode(errors="replace").strip() or (
                moved if self.status == _MOVED else f"status {self.status}"
            )
        raise ApiError(self.status, message)


class Client:
    """The engine at one address."""

    def __init__(self, host: str) -> None:
        self.host = host

    def _head(self, method: str, path: str, query: Query, headers: Mapping[str, str]) -> bytes:
        version = "" if path.startswith(OWN_PREFIX) else f"/v{API_VERSION}"
        lines = [f"{method} {version}{path}{encode_query(query)} HTTP/1.1", "Host: wherry", "User-Agent: wherry"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def open(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Send a request and read the head of its answer. body: a JSON value, or None."""
        headers = dict(headers or {})
        content = b""
        if body is not None:
            import json

            content = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        if content or method == "POST":
            headers["Content-Length"] = str(len(content))
        sock = connect(self.host)
        sock.sendall(self._head(method, path, query or {}, headers) + content)
        response = Response(sock)
        response.raise_for_status()
        return response

    def call(self, method: str, path: str, query: Query | None = None, body: Any = None) -> Any:
        """Send a request and return the JSON of its answer."""
        response = self.open(method, path, query, body)
        try:
            return response.json()
        finally:
            response.close()

    def get(self, path: str, query: Query | None = None) -> Any:
        """GET a JSON value."""
        return self.call("GET", path, query)

    def post(self, path: str, query: Query | None = None, body: Any = None) -> Any:
        """POST a JSON value, or nothing."""
        return self.call("POST", path, query, body)

    def upload(self, path: str, query: Query, source: Any) -> Response:
        """POST a file object of unknown length in chunks."""
        sock = connect(self.host)
        headers = {"Content-Type": "application/x-tar", "Transfer-Encoding": "chunked"}
        try:
            sock.sendall(self._head("POST", path, query, headers))
            while piece := source.read(1 << 18):
                sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
            sock.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before the end of the body; the answer says why
        response = Response(sock)
        response.raise_for_status()
        return response

    def hijack(self, path: str, query: Query | None = None, body: Any = None) -> tuple[socket, bytes]:
        """POST and keep the connection as a raw stream; also the first bytes that came along."""
        import json

        content = b"" if body is None else json.dumps(body).encode()
        headers = {"Connection": "Upgrade", "Upgrade": "tcp", "Content-Length": str(len(content))}
        if body is not None:
            headers["Content-Type"] = "application/json"
        sock = connect(self.host)
        sock.sendall(self._head("POST", path, query or {}, headers) + content)
        response = Response(sock)
        response.raise_for_status()
        return response.detach()
