"""The name server: one process for all containers in networks of the user.

The engine makes two sockets in each container's network namespace, at 127.0.0.11, and hands them over together with
what the container may know; then it is no longer needed. So names go on being resolved while the engine is down, being
upgraded, or has been killed; only who comes and goes in the meantime is not known. The process ends by itself when it
has no container and no engine any more.

Messages, one answer {"ok": true} each (runtime/channel.py: JSON and descriptors over SEQPACKET):

    {"type": "hello"}                                           answered with "sandboxes": [id, ...]
    {"type": "sandbox", "id", "networks", "links",              descriptors: UDP, TCP, where it is new
     "upstreams", "follows_host"}                               see zone.Sandbox
    {"type": "network", "id", "name", "entries"}                entries: [[[address, ...], [name, ...]], ...]
    {"type": "gone", "sandboxes": [id, ...], "networks": [id, ...]}

The hello is answered with the version. An engine that speaks another one takes all containers away from this process,
which then ends, and gives them to one of its own version (client.NameServer.resume). "hello" and "gone" therefore never
change.

An answer is kept under the bytes of its question until the next order, so that the same name costs a lookup in a dict.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from wherry.kernel.process import set_name, set_no_new_privileges
from wherry.network.dns import answers, forward, message
from wherry.network.dns.hostservers import HostServers
from wherry.network.dns.zone import Sandbox, Table, Zone
from wherry.runtime import channel
from wherry.supervision.background import spawn

VERSION = 2
NAME = "wherry-names"
LISTENER = 3
"""The descriptor of the socket on which engines are taken."""

Told = Callable[[bytes], None]

NOBODY = 65534
TCP_PATIENCE = 10.0
AT_ONCE = 100
"""Questions of one container under way to other servers; more get SERVFAIL, so that one cannot starve the others."""

BURST = 32
"""Datagrams that are read from one container before the others have their turn."""

STREAMS = 16
"""TCP connections of one container; a further one is closed at once."""


class Server:
    """Answers questions and takes orders."""

    def __init__(self) -> None:
        self._zone = Zone()
        self._answers = answers.Answers(self._zone)
        self._forwarder = forward.Forwarder()
        self._host = HostServers()
        self._sockets: dict[str, tuple[socket.socket, asyncio.Server]] = {}
        self._engines = 0
        self._under_way: Counter[str] = Counter()
        self._streams: Counter[str] = Counter()
        self.done = asyncio.Event()

    # ---- engines

    def listen(self, listener: socket.socket) -> None:
        """Take engines."""
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        engine, _ = listener.accept()
        self._engines += 1
        asyncio.get_running_loop().add_reader(engine, self._on_order, engine)

    def _on_order(self, engine: socket.socket) -> None:
        try:
            order, fds = channel.receive(engine)
        except (EOFError, ValueError):
            asyncio.get_running_loop().remove_reader(engine)
            engine.close()
            self._engines -= 1
            if not self._engines and not self._sockets:
                self.done.set()
            return
        spawn(self._obey(engine, order, fds), f"order {order.get('type')}")

    async def _obey(self, engine: socket.socket, order: dict[str, Any], fds: list[int]) -> None:
        answer: dict[str, Any] = {"ok": True, "version": VERSION}
        kind = order["type"]
        if kind == "hello":
            answer["sandboxes"] = list(self._sockets)
        elif kind == "sandbox":
            self._zone.sandboxes[order["id"]] = Sandbox(
                tuple(order["networks"]), tuple(order["upstreams"]), order["follows_host"], order["links"]
            )
            if fds:
                await self._serve(order["id"], fds)
        elif kind == "network":
            self._zone.tables[order["id"]] = Table.of(order["name"], order["entries"])
        elif kind == "gone":
            for each in order["sandboxes"]:
                self._drop(each)
            for each in order["networks"]:
                self._zone.tables.pop(each, None)
        self._answers.clear()
        channel.send(engine, answer)

    async def _serve(self, sandbox_id: str, fds: list[int]) -> None:
        self._close(sandbox_id)
        udp, tcp = (socket.socket(fileno=fd) for fd in fds)
        for each in (udp, tcp):
            each.setblocking(False)
        asyncio.get_running_loop().add_reader(udp, self._on_datagram, sandbox_id, udp)

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if self._streams[sandbox_id] >= STREAMS:
                writer.close()
                return
            with _counted(self._streams, sandbox_id):
                await self._talk(sandbox_id, reader, writer)

        self._sockets[sandbox_id] = udp, await asyncio.start_server(talk, sock=tcp)

    def _drop(self, sandbox_id: str) -> None:
        self._zone.sandboxes.pop(sandbox_id, None)
        self._close(sandbox_id)

    def _close(self, sandbox_id: str) -> None:
        """Close the sockets; they kept the container's namespace alive."""
        udp, tcp = self._sockets.pop(sandbox_id, (None, None))
        if udp is not None and tcp is not None:
            asyncio.get_running_loop().remove_reader(udp)
            udp.close()
            tcp.close()

    # ---- questions

    def _on_datagram(self, sandbox_id: str, udp: socket.socket) -> None:
        for _ in range(BURST):
            try:
                data, client = udp.recvfrom(message.LARGEST)
            except (BlockingIOError, ConnectionRefusedError):
                return
            answer = self._answers.find(sandbox_id, data)
            if isinstance(answer, message.Question):
                self._forward(sandbox_id, answer, data, told=partial(_send_back, udp, client))
            elif answer is not None:
                _send(udp, answer, client)

    def _forward(
        self, sandbox_id: str, question: message.Question, data: bytes, *, stream: bool = False, told: Told
    ) -> None:
        """Have `told` called with the answer of another server, or with ours that there is none."""
        sandbox = self._zone.sandboxes.get(sandbox_id, Sandbox(()))
        servers = self._host.current(sandbox.upstreams) if sandbox.follows_host else sandbox.upstreams
        under_way = self._under_way

        def answered(answer: bytes | None) -> None:
            under_way[sandbox_id] -= 1
            if not under_way[sandbox_id]:
                del under_way[sandbox_id]
            told(message.answer(question, (), code=message.SERVFAIL) if answer is None else answer)

        under_way[sandbox_id] += 1
        if under_way[sandbox_id] > AT_ONCE:
            answered(None)
        else:
            self._forwarder.ask(question, data, servers, stream=stream, told=answered)

    async def _talk(self, sandbox_id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the questions of one TCP connection, one after the other (RFC 7766)."""
        try:
            async with asyncio.timeout(None) as patience:
                while True:
                    patience.reschedule(asyncio.get_running_loop().time() + TCP_PATIENCE)
                    data = await forward.read_framed(reader)
                    answer = await self._answer(sandbox_id, data)
                    if answer is None:
                        return
                    writer.write(forward.framed(answer))
                    await writer.drain()
        except (EOFError, OSError, TimeoutError):
            return  # the client has gone, or says nothing any more
        finally:
            writer.close()

    async def _answer(self, sandbox_id: str, data: bytes) -> bytes | None:
        answer = self._answers.find(sandbox_id, data, size=message.LARGEST)
        if isinstance(answer, message.Question):
            future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            self._forward(sandbox_id, answer, data, stream=True, told=partial(_resolve, future))
            return await future
        return answer


@contextmanager
def _counted(counter: Counter[str], key: str) -> Iterator[None]:
    counter[key] += 1
    try:
        yield
    finally:
        counter[key] -= 1
        if not counter[key]:
            del counter[key]


def _resolve(future: asyncio.Future[bytes], answer: bytes) -> None:
    if not future.done():  # the client has gone meanwhile
        future.set_result(answer)


def _send_back(udp: socket.socket, client: Any, answer: bytes) -> None:
    if udp.fileno() >= 0:
        _send(udp, answer, client)


def _send(udp: socket.socket, answer: bytes, client: Any) -> None:
    """Send an answer; one that cannot be sent is lost, as any datagram may be, and the client asks again."""
    try:
        udp.sendto(answer, client)
    except OSError:
        return


async def _run() -> None:
    server = Server()
    listener = socket.socket(fileno=LISTENER)
    listener.setblocking(False)
    server.listen(listener)
    await server.done.wait()


def main() -> None:
    """The process. What containers send is read without any right: the sockets are there already."""
    set_name(NAME)
    os.chdir("/")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # two descriptors per container, and one per question
    set_no_new_privileges()
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    asyncio.run(_run())
    sys.exit(0)
