"""An engine of a test's own making: a socket, a thread per connection, and scripted answers."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

ID = "c" * 64


@dataclass
class Request:
    """What arrived; sock is the connection, for answers that keep it."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    sock: socket.socket
    lists: dict[str, list[str]] = field(default_factory=dict)


Answer = Callable[[Request], bytes | None]


def reply(value: object = None, status: int = 200) -> bytes:
    """A JSON answer."""
    body = b"" if value is None else json.dumps(value).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def refuse(status: int, message: str) -> bytes:
    """An error answer."""
    return reply({"message": message}, status)


def chunked(*pieces: bytes) -> bytes:
    """An answer in chunks."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"


def frame(stream: int, data: bytes) -> bytes:
    """A piece of multiplexed output."""
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


UPGRADED = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"


class FakeEngine:
    """Listens at a unix socket and answers by "METHOD /path"; unknown paths get 404."""

    def __init__(self, folder: Path) -> None:
        self.host = f"unix://{folder}/s"
        self.answers: dict[str, Answer | bytes] = {}
        self.seen: list[str] = []
        self.requests: list[Request] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{folder}/s")
        self._listener.listen(16)
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(sock,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with sock:
            request = self._read(sock)
            if request is None:
                return
            name = f"{request.method} {request.path}"
            self.seen.append(name)
            self.requests.append(request)
            answer = self.answers.get(name, refuse(404, f"No such thing: {request.path}"))
            data = answer(request) if callable(answer) else answer
            if data is not None:
                sock.sendall(data)

    def _read(self, sock: socket.socket) -> Request | None:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = sock.recv(65536)
            if not piece:
                return None
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        while len(body) < int(headers.get("content-length", 0)):
            body += sock.recv(65536)
        if headers.get("transfer-encoding") == "chunked":
            body = self._unchunk(sock, body)
        method, target, _ = first.split(" ")
        parts = urlsplit(target)
        lists = parse_qs(parts.query, keep_blank_values=True)
        assert parts.path.startswith("/v1.51/"), target
        query = {name: values[0] for name, values in lists.items()}
        return Request(method, parts.path.removeprefix("/v1.51"), query, headers, body, sock, lists)

    @staticmethod
    def _unchunk(sock: socket.socket, data: bytes) -> bytes:
        while not data.endswith(b"0\r\n\r\n"):
            data += sock.recv(65536)
        body = b""
        while True:
            size, _, data = data.partition(b"\r\n")
            if not int(size, 16):
                return body
            body, data = body + data[: int(size, 16)], data[int(size, 16) + 2 :]

    def body(self, name: str) -> dict[str, object]:
        """The JSON that came with the first request of that name."""
        request = next(r for r in self.requests if f"{r.method} {r.path}" == name)
        value = json.loads(request.body)
        assert isinstance(value, dict)
        return value

    def wherry(self, *words: str, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run our command against this engine."""
        given = {"stdin": subprocess.DEVNULL} if data is None else {"input": data}
        command = [sys.executable, "-I", "-m", "wherry.cli.main", "-H", self.host, *words]
        return subprocess.run(command, capture_output=True, timeout=30, check=False, **given)  # type: ignore[call-overload,no-any-return]

    def close(self) -> None:
        """Stop listening and wait for the threads."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()
        for thread in self._threads:
            thread.join(timeout=10)
            assert not thread.is_alive()
