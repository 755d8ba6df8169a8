"""Threads for work that waits for a client, for a plugin or for a file system that is not ours.

Such work may take for ever: a client that reads slowly, a body that never ends, a plugin that hangs, a volume whose
server is dead. In the event loop's own pool, which has a handful of threads, a few of those would keep every other
request waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")

CLIENTS = 256
"""How many may be served so at once; more wait for each other, and for nobody else."""

_pool = ThreadPoolExecutor(CLIENTS, "wherry-client")


def at_their_pace(job: Callable[..., Result], *arguments: object) -> asyncio.Future[Result]:
    """Run blocking work in one of these threads. Cancelled, the work goes on: it has to own what it uses."""
    return asyncio.get_running_loop().run_in_executor(_pool, job, *arguments)
