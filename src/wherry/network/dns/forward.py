"""Questions to other name servers, over UDP from a fresh port under a fresh id each, or over TCP.

They are asked in their order. One that has not answered after a second gets company from the next, and the first useful
answer counts; one that stays silent is asked last for a while. So a dead server costs one second once, where the C
library waits five each time (resolv.conf(5)).
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections.abc import Sequence

from wherry.network.dns import message
from wherry.network.dns.message import Question

PORT = 53
PATIENCE = 4.0
SERVERS = 3
"""How long one server is waited for and how many are asked, as dockerd and the C library do."""

HEDGE = 1.0
"""Seconds until the next server is asked too."""

SUSPICION = 30.0
"""Seconds for which a server that did not answer comes last."""

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

    async def ask(self, question: Question, data: bytes, servers: Sequence[str], *, stream: bool) -> bytes | None:
        """Return the first useful answer, None when there is none; a refusal counts when all else fails."""
        waiting = self._in_order(servers)[:SERVERS]
        asked: set[asyncio.Task[bytes | None]] = set()
        refusal = None
        try:
            while waiting or asked:
                if waiting:
                    asked.add(asyncio.create_task(self._ask_one(question, data, waiting.pop(0), stream=stream)))
                done, asked = await asyncio.wait(
                    asked, timeout=HEDGE if waiting else None, return_when=asyncio.FIRST_COMPLETED
                )
                for answer in (each.result() for each in done):
                    if answer is not None and not message.failed(answer):
                        return answer
                    refusal = answer or refusal
        finally:
            for each in asked:
                each.cancel()
        return refusal

    def _in_order(self, servers: Sequence[str]) -> list[str]:
        now = time.monotonic()
        self._silent = {server: until for server, until in self._silent.items() if until > now}
        return sorted(servers, key=lambda server: server in self._silent)

    async def _ask_one(self, question: Question, data: bytes, server: str, *, stream: bool) -> bytes | None:
        """Return an answer under the id of the question, None when there is none."""
        id_ = int.from_bytes(os.urandom(2), "big")
        begun = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await (_by_stream if stream else _by_datagram)(question, id_, data, server)
        except (OSError, TimeoutError, EOFError, asyncio.CancelledError) as error:
            ignored = isinstance(error, asyncio.CancelledError)
            if not ignored or time.monotonic() - begun >= HEDGE:
                self._silent[server] = time.monotonic() + SUSPICION
            if ignored:
                raise
            return None
        return message.with_id(question.id, answer)


async def _by_datagram(question: Question, id_: int, data: bytes, server: str) -> bytes:
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sock:
        sock.connect((server, PORT))
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(sock, message.with_id(id_, data))
        while True:
            answer = await loop.sock_recv(sock, message.LARGEST)
            if message.belongs(question, id_, answer):
                return answer


async def _by_stream(question: Question, id_: int, data: bytes, server: str) -> bytes:
    reader, writer = await asyncio.open_connection(server, PORT)
    try:
        writer.write(framed(message.with_id(id_, data)))
        await writer.drain()
        answer = await read_framed(reader)
        if not message.belongs(question, id_, answer):
            raise EOFError("an answer to another question")
        return answer
    finally:
        writer.close()
