"""The supervisor's event loop: epoll, callbacks and a few timers.

asyncio would cost each supervisor about 4 MB of modules and 15 ms of imports.
"""

from __future__ import annotations

import heapq
import select
import time
from collections.abc import Callable

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
HANGUP = select.EPOLLHUP | select.EPOLLERR
ENDED = select.EPOLLIN | select.EPOLLET
"""What a pidfd is watched for. Not READ: one that ended while another process traces it stays readable, and cannot be
reaped until the tracer lets go of it, which the kernel tells of too (do_notify_parent)."""

Callback = Callable[[int], object]


class Poller:
    """Calls back when descriptors are ready or a time has come; all in one thread."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callback] = {}
        self._events: dict[int, int] = {}
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._counter = 0

    def watch(self, fd: int, events: int, callback: Callback) -> None:
        """Call `callback(events)` whenever `fd` is ready; with no events only for a hangup or an error.

        Events may be stale (the number was reused within one batch), so callbacks use non-blocking calls.
        """
        known = self._events.get(fd)
        if known is None:
            self._epoll.register(fd, events)
        elif known != events:
            self._epoll.modify(fd, events)
        self._events[fd] = events
        self._callbacks[fd] = callback

    def forget(self, fd: int) -> None:
        """Stop watching `fd`; harmless when it is not watched. Comes before its close."""
        if self._callbacks.pop(fd, None) is not None:
            del self._events[fd]
            self._epoll.unregister(fd)

    def after(self, seconds: float, callback: Callable[[], object]) -> None:
        """Call `callback()` once, `seconds` from now."""
        self._counter += 1
        heapq.heappush(self._timers, (time.monotonic() + seconds, self._counter, callback))

    def run_for(self, seconds: float, *, until: Callable[[], bool]) -> None:
        """Run for so long, or until `until()` holds."""
        end = time.monotonic() + seconds
        self.after(seconds, lambda: None)
        while time.monotonic() < end and not until():
            self.run_once()

    def run_once(self) -> None:
        """Wait for the next event or timer and make the calls that are due."""
        for fd, events in self._epoll.poll(self._timeout()):
            callback = self._callbacks.get(fd)
            if callback is not None:
                callback(events)
        while self._timers and self._timers[0][0] <= time.monotonic():
            heapq.heappop(self._timers)[2]()

    def _timeout(self) -> float:
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else -1.0

    def close(self) -> None:
        """Release the epoll descriptor."""
        self._epoll.close()
