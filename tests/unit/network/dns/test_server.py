"""The name server over real sockets: what it is told, what it answers, what one container can take of it."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from wherry.network.dns import message
from wherry.network.dns.server import STREAMS, Server
from wherry.runtime import channel

QUERY = struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + b"\x03web\x00" + struct.pack("!HH", message.A, message.IN)
OTHER = QUERY.replace(b"web", b"wob")


class Told:
    """A running server and the engine's end of its connection."""

    def __init__(self, path: Path) -> None:
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(path))
        self.listener.listen()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self.thread.start()
        self.engine = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.engine.settimeout(5)
        self.engine.connect(str(path))

    async def _run(self) -> None:
        self.listener.setblocking(False)
        server = Server()
        server.listen(self.listener)
        await server.done.wait()
        asyncio.get_running_loop().remove_reader(self.listener)

    def tell(self, order: dict, *fds: int) -> dict:
        channel.send(self.engine, order, fds)
        return channel.receive(self.engine)[0]

    def sandbox(self, id_: str, *upstreams: str) -> tuple[tuple[str, int], tuple[str, int]]:
        """Serve one more container; return its addresses for UDP and TCP."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.create_server(("127.0.0.1", 0)) as tcp:
            udp.bind(("127.0.0.1", 0))
            order = {"type": "sandbox", "id": id_, "networks": ["n"], "upstreams": upstreams}
            order |= {"follows_host": False, "links": {}}
            assert self.tell(order, udp.fileno(), tcp.fileno())["ok"]
            return udp.getsockname(), tcp.getsockname()


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    found = Told(tmp_path / "sock")
    found.tell({"type": "network", "id": "n", "name": "net", "entries": [[["10.0.0.2"], ["web"]]]})
    yield found
    found.tell({"type": "gone", "sandboxes": found.tell({"type": "hello"})["sandboxes"], "networks": []})
    found.engine.close()
    found.thread.join(timeout=5)
    assert not found.thread.is_alive(), "it ends when it has no container and no engine"
    found.listener.close()


def ask(address: tuple[str, int], query: bytes = QUERY) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.sendto(query, address)
        return client.recv(512)


def code(answer: bytes) -> int:
    return answer[3] & 0xF


def test_names_by_udp_and_tcp(told: Told):
    udp, tcp = told.sandbox("one")
    assert ask(udp).endswith(bytes((10, 0, 0, 2)))
    with socket.create_connection(tcp, 5) as client:
        for _ in range(2):
            client.sendall(struct.pack("!H", len(QUERY)) + QUERY)
            (length,) = struct.unpack("!H", client.recv(2))
            assert client.recv(length).endswith(bytes((10, 0, 0, 2)))


def test_what_is_no_question_and_what_nobody_knows(told: Told):
    udp, _ = told.sandbox("one")
    assert code(ask(udp, QUERY[:-3])) == message.FORMERR
    assert code(ask(udp, OTHER)) == message.SERVFAIL
    told.tell({"type": "network", "id": "n", "name": "net", "entries": []})
    assert code(ask(udp)) == message.SERVFAIL


def test_a_container_that_is_gone_holds_no_socket(told: Told):
    _, tcp = told.sandbox("one")
    assert told.tell({"type": "hello"})["sandboxes"] == ["one"]
    told.tell({"type": "gone", "sandboxes": ["one"], "networks": ["n"]})
    assert told.tell({"type": "hello"})["sandboxes"] == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(tcp, 5)


def test_a_container_cannot_take_all_connections(told: Told):
    _, tcp = told.sandbox("one")
    _, other = told.sandbox("two")
    held = [socket.create_connection(tcp, 5) for _ in range(STREAMS)]
    with socket.create_connection(tcp, 5) as late:
        assert late.recv(1) == b"", "closed at once"
    with socket.create_connection(other, 5) as client:
        client.sendall(struct.pack("!H", len(QUERY)) + QUERY)
        assert client.recv(2)
    for each in held:
        each.close()
