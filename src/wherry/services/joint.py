"""Work that several may ask for at the same time, and that is done once: a walk over files that nobody wants twice.

Who asks while it goes on is told what it finds, which may be from a moment before the question, as with dockerd.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from wherry.supervision.background import spawn

Result = TypeVar("Result")


class Joint(Generic[Result]):
    """One kind of such work. It goes on when one of those who wait goes away, and ends with the last of them."""

    def __init__(self) -> None:
        self._run: asyncio.Task[Result] | None = None
        self._waiting = 0

    async def result(self, work: Callable[[], Coroutine[Any, Any, Result]], name: str) -> Result:
        """Return what the run that goes on finds, or begin one. Raises what it raises. name: for the log."""
        if self._run is None:
            self._run = spawn(work(), name)
        run = self._run
        self._waiting += 1
        try:
            return await asyncio.shield(run)
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._run = None  # who asks from now on begins anew
                run.cancel()  # without effect when it is done
