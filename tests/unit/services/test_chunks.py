"""An archive on its way: what is held for it is given back, however it ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from contextlib import AsyncExitStack

from wherry.services.chunks import Chunks


def test_a_second_cancel_does_not_keep_what_is_held() -> None:
    """The client goes while a chunk is made: the request is cancelled, and again while it waits for that chunk."""
    order: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def made() -> Generator[bytes, None, None]:
        try:
            yield b"first"
            begun.set()
            go_on.wait(20)
            order.append("made")
            yield b"second"
        finally:
            order.append("closed")

    async def read(chunks: Chunks) -> None:
        try:
            async for _ in chunks:
                pass
        finally:
            await chunks.aclose()

    async def scene() -> None:
        held = AsyncExitStack()
        ended = asyncio.Event()
        held.callback(ended.set)
        held.callback(order.append, "given back")
        request = asyncio.get_running_loop().create_task(read(Chunks(made(), held)))
        await asyncio.to_thread(begun.wait, 20)
        request.cancel()
        await asyncio.sleep(0.05)
        request.cancel()
        await asyncio.wait([request])
        assert order == []
        go_on.set()
        await asyncio.wait_for(ended.wait(), 20)

    asyncio.run(scene())
    assert order == ["made", "closed", "given back"]
