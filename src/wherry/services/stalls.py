"""A reader for whom others wait: one that stops reading is given up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import closing

from wherry.errors import SystemFailure


class Reader:
    """Watches whether who reads an archive still does. patience: seconds without a step."""

    def __init__(self, patience: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience = patience
        self._clock = clock
        self._waiting_since: float | None = None
        self._given_up = False

    def pieces(self, made: Generator[bytes, None, None]) -> Generator[bytes, None, None]:
        """Pass an archive on, in whatever thread. Raises SystemFailure once the reader has been given up."""
        with closing(made):
            for piece in made:
                self._waiting_since = self._clock()
                yield piece
                self._waiting_since = None
                if self._given_up:
                    raise SystemFailure(f"nothing was read for {self._patience:g} s while containers were frozen")

    async def watch(self, give_up: Callable[[], Awaitable[None]]) -> None:
        """Call `give_up` when the reader has stopped reading, and end; to be cancelled when it has not."""
        while not self._given_up:
            await asyncio.sleep(self._patience / 10)
            since = self._waiting_since
            self._given_up = since is not None and self._clock() - since > self._patience
        await give_up()
