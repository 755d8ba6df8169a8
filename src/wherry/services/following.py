"""Blocking work that tells its progress to a client, and is not wanted any more when the client goes away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

from wherry.registry.api import Report
from wherry.registry.cancellation import Cancellation, Cancelled
from wherry.services.pace import at_their_pace

log = logging.getLogger(__name__)

QUIET_SECONDS = 5.0
"""After which the head of the answer is sent, so that the end of the client is seen. An earlier error has a status."""


async def follow(work: Callable[[Report], None], cancellation: Cancellation) -> AsyncIterator[Any]:
    """Run work in a thread and yield what it reports; its error ends the stream as an exception."""
    loop = asyncio.get_running_loop()
    reports: asyncio.Queue[Any] = asyncio.Queue()

    def report(entry: dict[str, Any]) -> None:
        loop.call_soon_threadsafe(reports.put_nowait, entry)

    done = at_their_pace(work, report)
    done.add_done_callback(lambda _: reports.put_nowait(None))
    try:
        try:
            entry = await asyncio.wait_for(reports.get(), QUIET_SECONDS)
        except TimeoutError:
            yield None
            entry = await reports.get()
        while entry is not None:
            yield entry
            entry = await reports.get()
        await done
    finally:
        if not done.done():
            cancellation.cancel()
            done.add_done_callback(_unheard)


def _unheard(done: asyncio.Future[None]) -> None:
    """Take note of an error that nobody waits for: the client has gone."""
    error = None if done.cancelled() else done.exception()
    if error is not None and not isinstance(error, Cancelled):
        log.info("work ended after its client", extra={"error": str(error)})
