"""The pauses before containers are started again, and nothing but them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from wherry.containers import restart
from wherry.containers.catalog import Container
from wherry.supervision.background import spawn

Start = Callable[[Container], Awaitable[None]]


class Restarts:
    """At most one waiting start for each container, until `close`."""

    def __init__(self) -> None:
        self.open = True

    def plan(self, container: Container, start: Start, *, lasted: float) -> None:
        """Call `start(container)` after the pause that a run of `lasted` seconds earns."""
        if not self.open:
            return
        container.backoff = restart.pause(container.backoff, lasted)
        container.restarting = spawn(self._wait(container, start), f"restart of {container.name}")

    async def _wait(self, container: Container, start: Start) -> None:
        await asyncio.sleep(container.backoff)
        container.restarting = None  # from here on it is not cancelled but waited for, by the container's lock
        if self.open:
            await start(container)

    def cancel(self, container: Container) -> None:
        """Forget the waiting start of a container, and the pauses so far."""
        waiting, container.restarting, container.backoff = container.restarting, None, 0.0
        if waiting is not None:
            waiting.cancel()

    def close(self) -> None:
        """Start nothing any more: the engine stops. Those that wait are found again by their records."""
        self.open = False
