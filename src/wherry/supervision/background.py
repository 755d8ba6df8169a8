"""The one way to start a background task in the engine: named, kept alive, its failure logged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger(__name__)
_running: set[asyncio.Task[Any]] = set()


def spawn(work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
    """Run `work` in the background."""
    task = asyncio.get_running_loop().create_task(work, name=name)
    _running.add(task)
    task.add_done_callback(_finished)
    return task


def _finished(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("%s failed", task.get_name(), exc_info=error)


async def settle(timeout: float) -> None:
    """Wait for all background tasks, then cancel those that are not done."""
    pending = set(_running)
    if pending:
        _, late = await asyncio.wait(pending, timeout=timeout)
        for task in late:
            log.warning("background task did not end in time", extra={"task": task.get_name()})
            task.cancel()
