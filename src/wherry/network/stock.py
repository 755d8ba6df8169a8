"""A stock of sandboxes that are complete before anybody asks for one: making one takes 2 ms, taking one none.

It is refilled when no start has happened for a moment, so that the work does not compete with the start that took one;
sooner when it runs low. Whoever takes the last one doubles what is kept, up to a limit; after a quiet time it shrinks.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from wherry.errors import EngineError
from wherry.kernel.netlink.socket import NetlinkSocket
from wherry.network.sandbox import Built
from wherry.network.workshop import Job

log = logging.getLogger(__name__)

PAUSE, PAUSE_LOW = 0.03, 0.004
"""Seconds after a start until the stock is refilled, and the same when a quarter is left: never before the start that
took one has been handed on, since both would want the interpreter."""

CEILING = 32
QUIET = 30.0
RETRY = 5.0


class Stock:
    """Sandboxes of one kind. Thread-safe."""

    def __init__(self, make: Callable[[NetlinkSocket], Built], discard: Callable[[Built], None], size: int) -> None:
        """Keep `size` of what `make` returns."""
        self._make = make
        self._discard = discard
        self._size = size
        self._target = size
        self._lock = threading.Lock()
        self._ready: deque[Built] = deque()
        self._making = 0
        self._not_before = 0.0
        self._last_take = -QUIET
        self._open = False

    def __len__(self) -> int:
        return len(self._ready)

    def open(self) -> None:
        """Begin to fill."""
        with self._lock:
            self._open = True

    def take(self) -> Built | None:
        """Return the sandbox that has waited longest; None when there is none."""
        with self._lock:
            self._last_take = time.monotonic()
            found = self._ready.popleft() if self._ready else None
            if not self._ready and self._size:
                self._target = min(self._target * 2, CEILING)
            return found

    def next_chore(self) -> tuple[Job | None, float | None]:
        """Return what to do now, else after how many seconds to ask again (None: when one is taken)."""
        with self._lock:
            now = time.monotonic()
            if not self._open:
                return None, None
            if self._target > self._size and now - self._last_take > QUIET:
                self._target = self._size
            if len(self._ready) > self._target:
                surplus = self._ready.pop()
                return (lambda _netlink: self._discard(surplus)), None
            stock = len(self._ready) + self._making
            if stock >= self._target:
                return None, QUIET + 1 if self._target > self._size else None
            pause = PAUSE_LOW if stock <= self._target // 4 else PAUSE
            due = max(self._last_take + pause, self._not_before)
            if now < due:
                return None, due - now
            self._making += 1
            return self._refill, None

    def _refill(self, netlink: NetlinkSocket) -> None:
        built = None
        try:
            built = self._make(netlink)
        except (OSError, EngineError) as error:
            # A start that needs one now makes its own and reports; here it is only known that waiting may help.
            log.warning("cannot prepare a network sandbox", extra={"error": str(error)})
        with self._lock:
            self._making -= 1
            if built is None:
                self._not_before = time.monotonic() + RETRY
            elif self._open:
                self._ready.append(built)
                built = None
        if built is not None:
            self._discard(built)

    def close(self) -> None:
        """Throw everything away and take nothing in any more."""
        with self._lock:
            self._open = False
            rest = list(self._ready)
            self._ready.clear()
        for built in rest:
            self._discard(built)
