"""A part of a file on its way to a client: sendfile(2), at the client's pace."""

from __future__ import annotations

import asyncio
import os

from wherry.api.body import ClientGone
from wherry.models.parts import FilePart

PIECE = 512 << 10
"""Most bytes of one call: what is not in memory is read while the event loop waits."""


async def send_part(descriptor: int, part: FilePart) -> None:
    """Send to a socket that does not block. Raises ClientGone, OSError of the file, EOFError when it is too short."""
    file = os.open(part.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        offset = 0
        while offset < part.size:
            try:
                sent = os.sendfile(descriptor, file, offset, min(PIECE, part.size - offset))
            except BlockingIOError:
                await _writable(descriptor)
                continue
            except (BrokenPipeError, ConnectionResetError) as error:
                raise ClientGone("the client closed the connection") from error
            if not sent:
                raise EOFError(f"{part.path} ends after {offset} bytes of {part.size}")
            offset += sent
            await asyncio.sleep(0)
    finally:
        os.close(file)


async def _writable(descriptor: int) -> None:
    """Wait until the socket takes more."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(descriptor)
