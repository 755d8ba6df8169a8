"""How the output of one pipe flows, and what is done when it flows fast.

A program that writes in small pieces as fast as it can wakes its reader for each of them: at 250 MB/s in pieces of
4 KiB some 20,000 times, which costs both sides more than the copying. So after a read that emptied the pipe of such a
program the reader waits a moment, and its pipe is made larger to hold what comes meanwhile. Nothing is late that a
person or a protocol waits for: who writes and then waits for an answer does not come near `FAST`.

The large pipe lasts as long as the flow: the pages of all pipes count against one limit per user (pipe(7),
pipe-user-pages-soft), beyond which a container's own pipes would get two pages.
"""

from __future__ import annotations

import fcntl
import time

from wherry.runtime.poller import Poller

FAST = 25_000_000  # bytes per second
PAUSE = 0.0001  # seconds, in which such a flow fills a small part of its pipe
WINDOW = 0.005  # seconds over which the speed is taken
WIDE = 256 << 10
NORMAL = 64 << 10  # what pipe(2) makes
CALM = 1.0  # seconds between looks whether the flow has ended


class Flow:
    """The speed and the size of one pipe, which somebody else reads and closes."""

    __slots__ = ("_bytes", "_fast", "_fd", "_poller", "_since", "_wide")

    def __init__(self, poller: Poller, fd: int) -> None:
        self._poller = poller
        self._fd = fd
        self._since = time.monotonic()
        self._bytes = 0
        self._fast = False
        self._wide = False

    def passed(self, count: int, *, emptied: bool) -> None:
        """Take note of a read of `count` bytes; emptied: it left nothing. Waits `PAUSE` when that pays."""
        self._bytes += count
        now = time.monotonic()
        elapsed = now - self._since
        if elapsed > WINDOW:
            self._fast = self._bytes > FAST * elapsed
            self._since, self._bytes = now, 0
            if self._fast and not self._wide:
                self._widen()
        if self._fast and emptied:
            time.sleep(PAUSE)

    def _widen(self) -> None:
        self._wide = self._set_size(WIDE)
        if self._wide:
            self._poller.after(CALM, self._look)

    def _look(self) -> None:
        """Give the pages back when the flow has ended, else look again later."""
        if self._fd < 0:
            return
        over = not self._fast or time.monotonic() - self._since > CALM / 2
        if over and self._set_size(NORMAL):
            self._wide = self._fast = False
        else:
            self._poller.after(CALM, self._look)

    def _set_size(self, size: int) -> bool:
        try:
            fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, size)
        except OSError:  # EBUSY: more is in it; EPERM: a smaller limit than ours, and no right to go beyond
            return False
        return True

    def close(self) -> None:
        """Forget the pipe."""
        self._fd = -1
