"""Attaching over a WebSocket, with a client made of an independent library's client side."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    Pong,
    RejectConnection,
    Request,
    TextMessage,
)

from tests.engine import Engine

pytestmark = [pytest.mark.root, pytest.mark.engine]


class Client:
    """A WebSocket to a container."""

    def __init__(self, engine: Engine, target: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(str(engine.socket))
        self.talk = WSConnection(ConnectionType.CLIENT)
        self.events: list[object] = []
        self.send(Request(host="docker", target=target))

    def send(self, event: object) -> None:
        self.socket.sendall(self.talk.send(event))  # type: ignore[arg-type]

    def next(self) -> object:
        while not self.events:
            data = self.socket.recv(65536)
            self.talk.receive_data(data or None)
            self.events += self.talk.events()
        return self.events.pop(0)

    def read(self, wanted: bytes) -> bytes:
        """Read messages until they hold what is wanted."""
        found = b""
        while wanted not in found:
            event = self.next()
            assert isinstance(event, BytesMessage), event
            found += event.data
        return found

    def closed(self) -> int:
        """Read on to the close frame and return its code."""
        while True:
            event = self.next()
            if isinstance(event, CloseConnection):
                return int(event.code)


@contextlib.contextmanager
def attached(engine: Engine, name: str, query: str = "stream=1&stdin=1&stdout=1&stderr=1") -> Iterator[Client]:
    client = Client(engine, f"/v1.51/containers/{name}/attach/ws?{query}")
    try:
        assert isinstance(client.next(), AcceptConnection)
        yield client
    finally:
        client.socket.close()


def test_there_and_back_until_the_container_ends(engine: Engine) -> None:
    script = "echo err >&2; while read line; do echo got $line; [ $line = end ] && exit 3; done"
    engine.docker("create", "-i", "--name", "aa", "busybox", "sh", "-c", script)
    with attached(engine, "aa") as client:
        engine.docker("start", "aa")
        assert client.read(b"err") == b"err\n"
        client.send(TextMessage(data="one\n"))
        assert client.read(b"one\n") == b"got one\n"
        client.send(BytesMessage(data=b"end\n"))
        assert client.read(b"end\n") == b"got end\n"
        assert client.closed() == 1000
    assert engine.docker("wait", "aa") == "3"


def test_a_terminal_and_what_was_written_before(engine: Engine) -> None:
    engine.docker("run", "-dit", "--name", "aa", "busybox", "sh", "-c", "echo before; cat")
    while "before" not in engine.docker("logs", "aa"):
        pass
    with attached(engine, "aa", "logs=1&stream=1&stdin=1&stdout=1") as client:
        assert client.read(b"before") == b"before\r\n"
        client.send(BytesMessage(data=b"typed\n"))
        assert client.read(b"typed\r\ntyped\r\n")


def test_streams_are_chosen(engine: Engine) -> None:
    engine.docker("create", "--name", "aa", "busybox", "sh", "-c", "echo out; echo err >&2")
    with attached(engine, "aa", "stream=1&stderr=1") as client:
        engine.docker("start", "aa")
        assert client.read(b"err\n") == b"err\n"
        assert client.closed() == 1000


def test_pings_are_answered_and_a_close_ends_the_attachment_only(engine: Engine) -> None:
    engine.docker("run", "-di", "--name", "aa", "busybox", "cat")
    with attached(engine, "aa") as client:
        client.send(Ping(payload=b"hello"))
        answer = client.next()
        assert isinstance(answer, Pong)
        assert answer.payload == b"hello"
        client.send(CloseConnection(code=1000))
        assert client.closed() == 1000
    assert engine.docker("inspect", "-f", "{{.State.Running}}", "aa") == "true"
    with attached(engine, "aa") as client:
        client.send(BytesMessage(data=b"again\n"))
        assert client.read(b"again\n")


def test_a_client_that_does_not_read_holds_up_nobody(engine: Engine) -> None:
    engine.docker("run", "-di", "--name", "aa", "busybox", "sh", "-c", "read go; yes | head -c 30000000; exit 7")
    with attached(engine, "aa") as client:
        client.send(BytesMessage(data=b"go\n"))
        assert engine.docker("wait", "aa", timeout=60) == "7"


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ("", "this is an endpoint for WebSocket"),
        ("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\n", "unsupported WebSocket version"),
        ("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n", "not 16 bytes"),
        (
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ???\r\n",
            "not base 64",
        ),
    ],
)
def test_what_is_no_handshake(engine: Engine, headers: str, text: str) -> None:
    engine.docker("create", "--name", "aa", "busybox", "true")
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(engine.socket))
        client.sendall(f"GET /containers/aa/attach/ws?stream=1 HTTP/1.1\r\nHost: d\r\n{headers}\r\n".encode())
        answer = client.recv(65536).decode()
    assert answer.startswith("HTTP/1.1 400 ")
    assert text in answer


def test_a_container_that_is_not_there(engine: Engine) -> None:
    client = Client(engine, "/containers/zz/attach/ws?stream=1")
    answer = client.next()
    client.socket.close()
    assert isinstance(answer, RejectConnection)
    assert answer.status_code == 404
