"""Work that several clients may want at the same time, and that is done once.

The first who asks for a key starts it, in a thread of a pool of limited size; whoever asks for the same key meanwhile
joins, and is told what all are told. It is cancelled when the last of them has let go.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

from wherry.registry.api import Report
from wherry.registry.cancellation import Cancellation

Result = TypeVar("Result")


class Job(Generic[Result]):
    """One piece of work. `report` tells all who wait."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.cancellation = Cancellation()
        self.users = 0
        self.future: Future[Result]
        self._watchers: list[Report] = []
        self._last: dict[str, Any] | None = None
        self._lock = threading.Lock()

    def report(self, record: dict[str, Any]) -> None:
        """Tell how far it is."""
        with self._lock:
            self._last = record
            watchers = list(self._watchers)
        for watcher in watchers:
            watcher(record)

    def watch(self, watcher: Report) -> None:
        """Tell also somebody who has come later, from where it is now."""
        with self._lock:
            self._watchers.append(watcher)
            last = self._last
        if last is not None:
            watcher(last)

    def unwatch(self, watcher: Report) -> None:
        """Tell somebody no more."""
        with self._lock:
            self._watchers.remove(watcher)


class Share(Generic[Result]):
    """One user's hold on a job; to be let go of once."""

    def __init__(self, board: Shared[Result], job: Job[Result], watcher: Report) -> None:
        self._board = board
        self._job = job
        self._watcher = watcher

    @property
    def started(self) -> bool:
        """Whether it does not wait for its turn any more."""
        return self._job.future.running() or self._job.future.done()

    def result(self, cancellation: Cancellation) -> Result:
        """Wait for it. Raises what the work has raised, and Cancelled when this user goes first."""
        woken = threading.Event()
        self._job.future.add_done_callback(lambda _: woken.set())
        with cancellation.stopping(woken.set):
            woken.wait()  # the work has deadlines of its own
        cancellation.check()
        return self._job.future.result(timeout=0)

    def check(self) -> None:
        """Raise what the work has raised, if it has ended so."""
        future = self._job.future
        if future.done() and not future.cancelled() and (error := future.exception()) is not None:
            raise error

    def let_go(self) -> None:
        """End this user's part; the work ends with the last one's."""
        self._job.unwatch(self._watcher)
        self._board.leave(self._job)


class Shared(Generic[Result]):
    """The jobs of one kind. discard: is given the result of a job when its last user has gone."""

    def __init__(self, threads: int, name: str, discard: Callable[[Result], None]) -> None:
        self._pool = ThreadPoolExecutor(threads, name)
        self._jobs: dict[str, Job[Result]] = {}
        self._lock = threading.Lock()
        self._discard = discard

    def join(self, key: str, work: Callable[[Job[Result]], Result], watcher: Report) -> Share[Result]:
        """Have a part in the job of this key, which is `work` when nobody does it yet."""
        with self._lock:
            job = self._jobs.get(key)
            if job is None or (job.future.done() and job.future.exception() is not None):
                job = self._jobs[key] = Job(key)
                job.watch(watcher)  # before it starts: the first is told everything
                job.future = self._pool.submit(work, job)
            else:
                job.watch(watcher)
            job.users += 1
        return Share(self, job, watcher)

    def leave(self, job: Job[Result]) -> None:
        """Count one user less."""
        with self._lock:
            job.users -= 1
            if job.users:
                return
            if self._jobs.get(job.key) is job:
                del self._jobs[job.key]
        job.cancellation.cancel()
        if not job.future.cancel():
            job.future.add_done_callback(self._done)

    def _done(self, future: Future[Result]) -> None:
        if future.exception() is None:  # of another outcome all who waited have been told
            self._discard(future.result())

    def close(self) -> None:
        """Cancel all, and wait for them."""
        with self._lock:
            jobs = list(self._jobs.values())
        for job in jobs:
            job.cancellation.cancel()
        self._pool.shutdown(cancel_futures=True)
