"""The body of a request: fed by the event loop, read by a coroutine (whole, bounded) or by a worker thread (a stream).

Backpressure: more than HIGH unread bytes pause the connection, fewer than LOW resume it, so that an upload of many
gigabytes needs a megabyte of memory. A body that nobody wants is thrown away as it comes.
"""

from __future__ import annotations

import asyncio
import io
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, BinaryIO, cast

from wherry.errors import InvalidArgument

HIGH = 1 << 20
LOW = 256 << 10
READ_SIZE = 256 << 10
BODY_TIMEOUT = 60.0
"""Seconds for a whole JSON body. A stream has no limit: `producer | docker load` may rightly pause for long."""


class ClientGone(ConnectionError):
    """There is nobody to answer."""


class MalformedBody(InvalidArgument):
    """The bytes that came break the rules of a chunked body."""


class Body:
    """What is left of one request's body. Without an argument: an empty one."""

    def __init__(self, flow: Callable[[bool], None] | None = None) -> None:
        self._flow = flow
        self._lock = threading.Condition()
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._paused = False
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self.complete = flow is None
        self.discarded = -1
        self.received = 0

    def feed(self, piece: bytes) -> None:
        """Take a piece from the connection (event loop only)."""
        self.received += len(piece)
        if self.discarded >= 0:
            self.discarded += len(piece)
            return
        with self._lock:
            self._pieces.append(piece)
            self._size += len(piece)
            self._lock.notify()
        if self._size > HIGH and not self._paused:
            self._set_paused(True)
        self._wake()

    def finish(self) -> None:
        """The last piece has been fed."""
        with self._lock:
            self.complete = True
            self._lock.notify()
        self._wake()

    def fail(self, error: BaseException) -> None:
        """No more will come, and what came is not the whole; readers get the error. Harmless after `finish`."""
        with self._lock:
            if not self.complete:
                self._error = self._error or error
            self._lock.notify_all()
        self._wake()

    def discard(self) -> None:
        """Throw away what is unread and what still comes; a thread that still reads gets an error."""
        if self.discarded >= 0:
            return
        with self._lock:
            if not self.complete:
                self._error = self._error or ClientGone("the request has been answered")
            self.discarded = self._size
            self._pieces.clear()
            self._size = 0
            self._lock.notify_all()
        self._set_paused(False)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _set_paused(self, paused: bool) -> None:
        if self._flow is not None and self._paused != paused:
            self._paused = paused
            self._flow(paused)

    def _resume(self) -> None:
        if self._size <= LOW:
            self._set_paused(False)

    def _take(self) -> bytes:
        """Return and forget everything fed so far; call with the lock held."""
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        return data

    async def read(self, limit: int) -> bytes:
        """Return the whole body; raises InvalidArgument when it is larger than limit or takes too long."""
        found = bytearray()
        if self.complete and self._size <= limit:
            with self._lock:
                return self._take()
        try:
            async with asyncio.timeout(BODY_TIMEOUT):
                while True:
                    with self._lock:
                        found += self._take()
                        complete, error = self.complete, self._error
                    self._set_paused(False)
                    if len(found) > limit:
                        raise InvalidArgument(f"request body too large: at most {limit} bytes are accepted here")
                    if complete:
                        return bytes(found)
                    if error is not None:
                        raise error
                    self._waiter = self._loop.create_future()
                    await self._waiter
        except TimeoutError:
            raise InvalidArgument("request body not received in time") from None

    def reader(self) -> BinaryIO:
        """Return a file object for one worker thread; it blocks until bytes come and raises OSError when none will."""
        return cast(BinaryIO, io.BufferedReader(_Raw(self), READ_SIZE))

    def read_into(self, target: memoryview) -> int:
        """Fill target with at least one byte, or return 0 at the end. Blocks: for worker threads only."""
        with self._lock:
            while not self._pieces:
                if self._error is not None:
                    raise OSError(f"reading the request body: {self._error}") from self._error
                if self.complete:
                    return 0
                self._lock.wait()
            piece = self._pieces[0]
            count = min(len(piece), len(target))
            target[:count] = piece[:count]
            if count == len(piece):
                self._pieces.popleft()
            else:
                self._pieces[0] = piece[count:]
            self._size -= count
            wants_more = self._paused and self._size <= LOW
        if wants_more:
            self._loop.call_soon_threadsafe(self._resume)
        return count


class _Raw(io.RawIOBase):
    """The raw file under the buffered one."""

    def __init__(self, body: Body) -> None:
        self._body = body

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._body.read_into(memoryview(buffer).cast("B"))
