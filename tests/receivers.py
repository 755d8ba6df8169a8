"""Receivers of logs, on sockets of their own: what a test's container sends is what they have."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.waiting import until

PATIENCE = 15.0


wait_for = partial(until, seconds=PATIENCE)


class Datagrams:
    """Receives datagrams, one message each."""

    def __init__(self, path: str = "") -> None:
        family = socket.AF_UNIX if path else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.bind(path or ("127.0.0.1", 0))
        self.socket.settimeout(PATIENCE)

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])

    def receive(self, count: int) -> list[bytes]:
        return [self.socket.recv(1 << 18) for _ in range(count)]

    def close(self) -> None:
        self.socket.close()


class Stream:
    """Accepts connections one after the other and collects what they send. answer(data): what to write back."""

    def __init__(
        self,
        *,
        port: int = 0,
        path: str = "",
        context: ssl.SSLContext | None = None,
        answer: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self.listener = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
        if not path:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(path or ("127.0.0.1", port))
        self.listener.listen()
        self.data = b""
        self.connections: list[socket.socket] = []
        self._context = context
        self._answer = answer
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._readers: list[threading.Thread] = []
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
                if self._context:
                    connection = self._context.wrap_socket(connection, server_side=True)
            except ssl.SSLError:
                continue
            except OSError:
                return
            self.connections.append(connection)
            reader = threading.Thread(target=self._read, args=(connection,), daemon=True)
            self._readers.append(reader)
            reader.start()

    def _read(self, connection: socket.socket) -> None:
        try:
            while data := connection.recv(1 << 18):
                self.data += data
                if self._answer and (reply := self._answer(data)):
                    connection.sendall(reply)
        except OSError:
            return

    def wait_for(self, text: bytes) -> bytes:
        """Return what has come once `text` is in it."""
        wait_for(lambda: text in self.data)
        return self.data

    def close(self) -> None:
        """Go away: no new connections, and the old ones are reset."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for connection in self.connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            connection.close()
        self._thread.join(PATIENCE)
        for reader in self._readers:
            reader.join(PATIENCE)


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a key and a certificate for localhost and 127.0.0.1; return certificate and key."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


@contextmanager
def receiving(receiver: Any) -> Iterator[Any]:
    """A receiver that is closed at the end."""
    try:
        yield receiver
    finally:
        receiver.close()
