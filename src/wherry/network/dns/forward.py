"""Questions to other name servers, over UDP from a fresh port under a fresh id each, or over TCP.

They are asked in their order. One that has not answered after a second gets company from the next, and the first useful
answer counts; one that stays silent is asked last for a while. So a dead server costs one second once, where the C
library waits five each time (resolv.conf(5)).

Callbacks and no task per question: a task with its time limit costs more than all the system calls.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections.abc import Callable, Sequence

from wherry.network.dns import message
from wherry.network.dns.message import Question
from wherry.supervision.background import spawn

PORT = 53
PATIENCE = 4.0
SERVERS = 3
"""How long the last server is waited for and how many are asked, as dockerd and the C library do."""

HEDGE = 1.0
"""Seconds until the next server is asked too."""

SUSPICION = 30.0
"""Seconds for which a server that did not answer comes last."""

Told = Callable[[bytes | None], None]
Cancel = Callable[[], None]

_LENGTH = struct.Struct("!H")


def framed(data: bytes) -> bytes:
    """Return a message as it goes over TCP."""
    return _LENGTH.pack(len(data)) + data


async def read_framed(reader: asyncio.StreamReader) -> bytes:
    """Return the next message of a TCP connection; raises EOFError at its end."""
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    return await reader.readexactly(length)


class Forwarder:
    """Asks other servers and remembers which of them were silent."""

    def __init__(self) -> None:
        self._silent: dict[str, float] = {}

    def ask(self, question: Question, data: bytes, servers: Sequence[str], *, stream: bool, told: Told) -> None:
        """Have `told` called once with the first useful answer, or with None; a refusal counts when all else fails."""
        chosen = self._in_order(servers)[:SERVERS]
        _Asking(question, data, stream, (self.suspect, told)).begin(chosen)

    def suspect(self, server: str) -> None:
        """A server has not answered."""
        self._silent[server] = time.monotonic() + SUSPICION

    def _in_order(self, servers: Sequence[str]) -> Sequence[str]:
        if not self._silent:
            return servers
        now = time.monotonic()
        self._silent = {server: until for server, until in self._silent.items() if until > now}
        return sorted(servers, key=lambda server: server in self._silent)


class _Asking:
    """One question under way to one server or several."""

    __slots__ = ("_data", "_open", "_question", "_refusal", "_stream", "_suspect", "_timer", "_told", "_waiting")

    def __init__(self, question: Question, data: bytes, stream: bool, tell: tuple[Callable[[str], None], Told]) -> None:
        self._question = question
        self._data = data
        self._stream = stream
        self._suspect, self._told = tell
        self._waiting: list[str] = []
        self._open: dict[str, Cancel] = {}
        self._refusal: bytes | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, servers: Sequence[str]) -> None:
        self._waiting = list(dict.fromkeys(servers))
        self._next()

    def _next(self) -> None:
        """Ask one more server; without any that is asked or could be, this is the end."""
        self._stop_timer()
        while self._waiting:
            server = self._waiting.pop(0)
            id_ = int.from_bytes(os.urandom(2), "big")
            ask = _by_stream if self._stream else _by_datagram
            try:
                self._open[server] = ask(self._question, id_, self._data, server, self._answers(server))
            except OSError:
                self._suspect(server)
                continue
            break
        if not self._open:
            self._finish(self._refusal)
            return
        wait = HEDGE if self._waiting else PATIENCE
        self._timer = asyncio.get_running_loop().call_later(wait, self._late)

    def _late(self) -> None:
        for server in self._open:
            self._suspect(server)
        if self._waiting:
            self._next()
        else:
            self._finish(self._refusal)

    def _answers(self, server: str) -> Told:
        def told(answer: bytes | None) -> None:
            if answer is not None and not message.failed(answer):
                self._finish(answer)
                return
            self._open.pop(server)()
            if answer is None:
                self._suspect(server)
            self._refusal = answer or self._refusal
            if self._waiting or not self._open:
                self._next()

        return told

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _finish(self, answer: bytes | None) -> None:
        self._stop_timer()
        for cancel in self._open.values():
            cancel()
        self._open.clear()
        self._told(None if answer is None else message.with_id(self._question.id, answer))


def _by_datagram(question: Question, id_: int, data: bytes, server: str, told: Told) -> Cancel:
    """Ask over UDP; an answer to another question is not one. Raises OSError."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    number = sock.fileno()  # asyncio writes down a socket at length each time that it looks for one

    def cancel() -> None:
        loop.remove_reader(number)
        sock.close()

    def read() -> None:
        try:
            answer = sock.recv(message.LARGEST)
        except BlockingIOError:
            return
        except OSError:
            told(None)
            return
        if message.belongs(question, id_, answer):
            told(answer)

    try:
        sock.connect((server, PORT))
        sock.send(message.with_id(id_, data))
        loop.add_reader(number, read)
    except OSError:
        sock.close()
        raise
    return cancel


def _by_stream(question: Question, id_: int, data: bytes, server: str, told: Told) -> Cancel:
    async def talk() -> None:
        try:
            answer = await _talk(id_, data, server)
        except (OSError, EOFError):
            told(None)
            return
        told(answer if message.belongs(question, id_, answer) else None)

    task = spawn(talk(), "question")

    def cancel() -> None:
        if task is not asyncio.current_task():  # else it has told its answer, and ends anyway
            task.cancel()

    return cancel


async def _talk(id_: int, data: bytes, server: str) -> bytes:
    reader, writer = await asyncio.open_connection(server, PORT)
    try:
        writer.write(framed(message.with_id(id_, data)))
        await writer.drain()
        return await read_framed(reader)
    finally:
        writer.close()
