"""Threads that may leave the host's network namespace: all work inside of containers' namespaces is done by them.

A job gets the thread's netlink socket of the host's namespace, may go where it likes, and is brought home afterwards.
A thread that cannot go home ends, loudly: it must not run another job. Between orders, which somebody waits for, the
threads do chores, one at a time, as the `chores` hand them out: those that come first in the list go first.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

from wherry.errors import Unavailable
from wherry.kernel import netns
from wherry.kernel.netlink.socket import NetlinkSocket

Result = TypeVar("Result")
Job = Callable[[NetlinkSocket], None]
Chores = Callable[[], tuple[Job | None, float | None]]
"""Returns the next job of those that nobody waits for, or None and after how many seconds to ask again (None: poke)."""

THREADS = 1
"""A namespace and a veth pair take 2 ms, most of it under the kernel's one lock for links: more threads only queue."""


class Workshop:
    """A few threads. They live in the namespace of the thread that called `start`."""

    def __init__(self, chores: Sequence[Chores]) -> None:
        """Be idle until `start`."""
        self._chores = tuple(chores)
        self._changed = threading.Condition()
        self._orders: deque[Job] = deque()
        self._pokes = 0
        self._open = False
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the threads."""
        self._open = True
        self._threads = [
            threading.Thread(target=self._work, name=f"wherry-netns-{number}", daemon=True) for number in range(THREADS)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Finish the orders and end the threads."""
        with self._changed:
            self._open = False
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def poke(self) -> None:
        """Make the threads look for chores."""
        with self._changed:
            self._pokes += 1
            self._changed.notify()

    def run(self, work: Callable[[NetlinkSocket], Result]) -> Result:
        """Have something done and return its result, or raise what it raised."""
        done: Future[Result] = Future()

        def job(netlink: NetlinkSocket) -> None:
            try:
                done.set_result(work(netlink))
            except BaseException as error:  # carried to the caller, who raises it
                done.set_exception(error)

        with self._changed:
            if not self._open:
                raise Unavailable("networking has stopped")
            self._orders.append(job)
            self._changed.notify()
        return done.result()

    def _work(self) -> None:
        home = netns.current()
        try:
            with NetlinkSocket() as netlink:
                while (job := self._next()) is not None:
                    job(netlink)
                    netns.enter(home)
        finally:
            os.close(home)

    def _next(self) -> Job | None:
        while True:
            with self._changed:
                if self._orders:
                    return self._orders.popleft()
                if not self._open:
                    return None
                seen = self._pokes
            chore, pause = self._next_chore()
            if chore is not None:
                return chore
            with self._changed:
                if not self._orders and self._open and seen == self._pokes:
                    self._changed.wait(pause)

    def _next_chore(self) -> tuple[Job | None, float | None]:
        pauses: list[float] = []
        for source in self._chores:
            job, pause = source()
            if job is not None:
                return job, None
            if pause is not None:
                pauses.append(pause)
        return None, min(pauses, default=None)
