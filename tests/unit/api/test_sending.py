"""Parts of files on their way to a client."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from wherry.api.body import ClientGone
from wherry.api.sending import send_part
from wherry.models.parts import FilePart

DATA = os.urandom(3 << 20)


def send(path: Path, size: int, read: int) -> bytes:
    """Send a part to somebody who reads so many bytes, slowly, and then goes away."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)

    async def reading() -> bytes:
        found = b""
        while len(found) < read:
            await asyncio.sleep(0.001)
            found += await asyncio.get_running_loop().sock_recv(theirs, min(100_000, read - len(found)))
        theirs.close()
        return found

    async def both() -> bytes:
        reader = asyncio.ensure_future(reading())
        await send_part(ours.fileno(), FilePart(path, size))
        return await reader

    try:
        return asyncio.run(asyncio.wait_for(both(), 20))
    finally:
        ours.close()
        theirs.close()


def test_a_part_arrives_at_the_pace_of_who_reads(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(DATA)
    assert send(path, len(DATA) - 7, len(DATA) - 7) == DATA[:-7]


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(DATA)
    with pytest.raises(ClientGone):
        send(path, len(DATA), 200_000)


def test_a_file_that_is_too_short(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"12345")
    with pytest.raises(EOFError, match="ends after 5 bytes of 9"):
        send(path, 9, 5)
