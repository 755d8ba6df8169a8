"""Questions to other name servers, over UDP from a fresh port each, or over TCP."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Sequence

from wherry.network.dns import message
from wherry.network.dns.message import Question

PORT = 53
PATIENCE = 4.0
SERVERS = 3
"""How long one server is waited for and how many are asked, as dockerd and the C library do."""

_LENGTH = struct.Struct("!H")


def framed(data: bytes) -> bytes:
    """Return a message as it goes over TCP."""
    return _LENGTH.pack(len(data)) + data


async def read_framed(reader: asyncio.StreamReader) -> bytes:
    """Return the next message of a TCP connection; raises EOFError at its end."""
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    return await reader.readexactly(length)


async def ask(question: Question, data: bytes, servers: Sequence[str], *, stream: bool) -> bytes | None:
    """Return the first useful answer of some servers, None when there is none; a refusal counts when all else fails."""
    refusal = None
    for server in servers[:SERVERS]:
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await (_by_stream if stream else _by_datagram)(question, data, server)
        except (OSError, TimeoutError, EOFError):
            continue
        if not message.failed(answer):
            return answer
        refusal = answer
    return refusal


async def _by_datagram(question: Question, data: bytes, server: str) -> bytes:
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sock:
        sock.connect((server, PORT))
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(sock, data)
        while True:
            answer = await loop.sock_recv(sock, message.LARGEST)
            if message.belongs(question, answer):
                return answer


async def _by_stream(question: Question, data: bytes, server: str) -> bytes:
    reader, writer = await asyncio.open_connection(server, PORT)
    try:
        writer.write(framed(data))
        await writer.drain()
        answer = await read_framed(reader)
        if not message.belongs(question, answer):
            raise EOFError("an answer to another question")
        return answer
    finally:
        writer.close()
