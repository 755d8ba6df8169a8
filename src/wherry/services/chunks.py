"""An archive on its way to a client: made in worker threads, at the pace of who reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import AsyncExitStack
from typing import Generic, TypeVar

from wherry.models.parts import Part
from wherry.services.pace import at_their_pace

P = TypeVar("P", bound=Part)


class Chunks(Generic[P]):
    """An async iterator over a blocking generator; the next chunk is made while the last one is being sent.

    `aclose` ends the work and gives back what is held for it. It has to be called, also when nothing was read.
    """

    def __init__(self, made: Generator[P, None, None], held: AsyncExitStack) -> None:
        self._made = made
        self._held = held
        self._next: asyncio.Future[P | None] | None = None
        self._ending: asyncio.Task[None] | None = None

    def __aiter__(self) -> Chunks[P]:
        return self

    async def __anext__(self) -> P:
        if self._next is None:
            self._advance()
        assert self._next is not None
        chunk = await asyncio.shield(self._next)
        if chunk is None:
            raise StopAsyncIteration
        self._advance()
        return chunk

    async def begin(self) -> None:
        """Make the first chunk, so that its errors can still be told. Raises what the generator raises."""
        self._advance()
        assert self._next is not None
        await asyncio.shield(self._next)

    def _advance(self) -> None:
        self._next = at_their_pace(next, self._made, None)

    async def aclose(self) -> None:
        """End; a chunk that is being made is waited for, since a generator cannot be closed while it runs.

        A client that goes away may cancel its request more than once; what has begun to end ends all the same.
        """
        if self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self._end(), name="end of an archive")
        await asyncio.shield(self._ending)

    async def _end(self) -> None:
        if self._next is not None:
            await asyncio.wait([self._next])
            self._next.exception()  # nobody will read it: the client has gone, or has got the error before
            self._next = None
        self._made.close()
        await self._held.aclose()
