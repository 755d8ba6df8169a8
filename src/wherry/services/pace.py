"""Threads for work that waits for a client, for a plugin or for a file system that is not ours.

Such work may take for ever: a client that reads slowly, a body that never ends, a plugin that hangs, a volume whose
server is dead. In the event loop's own pool, which has a handful of threads, a few of those would keep every other
request waiting.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Result = TypeVar("Result")

CLIENTS = 256
"""How many may be served so at once; more wait for each other, and for nobody else."""

_pool = ThreadPoolExecutor(CLIENTS, "wherry-client")


def at_their_pace(job: Callable[..., Result], *arguments: object) -> asyncio.Future[Result]:
    """Run blocking work in one of these threads. Cancelled, the work goes on: it has to own what it uses."""
    return asyncio.get_running_loop().run_in_executor(_pool, job, *arguments)


class GivenUp(Exception):
    """Whoever asked for this has been told that it failed: it must not take effect any more."""


class Permit:
    """Whether work in a thread may still take effect. Who gives it up closes the permit, and then it never does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed = False
        self._used = False

    @contextmanager
    def used(self) -> Iterator[None]:
        """Take effect in the block, which must not wait for anybody. Raises GivenUp."""
        with self._lock:
            if self._closed:
                raise GivenUp("it was given up before it had any effect")
            yield
            self._used = True

    def close(self) -> bool:
        """Allow nothing any more; return whether it has taken effect already. Blocks while it is doing so."""
        with self._lock:
            self._closed = True
            return self._used
