"""Taking links away, off the hot path and many at once.

Deleting one link takes the kernel 20 ms and deleting fifty takes 25: nearly all of it is one wait for RCU readers and
queued work. So what has ended is collected for a moment and deleted as a group. Only then are the addresses free, so no
two containers ever have the same one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence

from wherry.kernel.netlink.socket import NetlinkSocket
from wherry.network.records import Attached

log = logging.getLogger(__name__)

COLLECT = 0.05
RETRY = 5.0

Take = Callable[[NetlinkSocket, Sequence[Attached]], None]


class Reaper:
    """One thread, in the network namespace of the thread that called `start`."""

    def __init__(self, take: Take) -> None:
        """`take` deletes the links of ended endpoints and frees their addresses."""
        self._take = take
        self._changed = threading.Condition()
        self._ended: list[Attached] = []
        self._busy = False
        self._open = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._open = True
        self._thread = threading.Thread(target=self._work, name="wherry-net-reaper", daemon=True)
        self._thread.start()

    def submit(self, attached: Iterable[Attached]) -> None:
        """Take these away soon."""
        with self._changed:
            self._ended.extend(attached)
            self._changed.notify_all()

    def drained(self, timeout: float) -> bool:
        """Wait until everything submitted is gone; False when the time is over first."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._ended and not self._busy, timeout)

    def stop(self) -> None:
        """Take away what is left and end the thread."""
        with self._changed:
            self._open = False
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        with NetlinkSocket() as netlink:
            while batch := self._next():
                failed = self._reap(netlink, batch)
                with self._changed:
                    self._busy = False
                    if failed and self._open:
                        self._ended.extend(batch)
                        self._changed.wait_for(lambda: not self._open, RETRY)
                    self._changed.notify_all()

    def _next(self) -> list[Attached]:
        """Return what has ended; an empty list at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or not self._open)
            if self._open:
                self._changed.wait_for(lambda: not self._open, COLLECT)
            batch, self._ended = self._ended, []
            self._busy = bool(batch)
            return batch

    def _reap(self, netlink: NetlinkSocket, batch: Sequence[Attached]) -> bool:
        try:
            self._take(netlink, batch)
        except OSError as error:
            # Their addresses stay in use, which is safe; the next attempt or the next start frees them.
            log.warning("cannot delete links of ended containers", extra={"error": str(error)})
            return True
        return False
