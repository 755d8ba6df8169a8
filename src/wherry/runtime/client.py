"""One client of a process's streams: framing, backlog, the held first byte, detach keys."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections import deque
from collections.abc import Callable

from wherry.kernel.sockets import unsent
from wherry.runtime.detach import DetachKeys, parse_keys
from wherry.runtime.poller import HANGUP, READ, WRITE, Poller
from wherry.runtime.wire import AttachOptions

STDOUT = 1
STDERR = 2
BACKLOG = 4 * 1024 * 1024
CHUNK = 64 * 1024
HOLD = 1.0  # the longest wait for the client to read the HTTP head; on a busy machine 50 ms were too few
_HOLD_STEP = 0.001


class Client:
    """An attached stream socket. It owns `fd`, and tells its owner of input, of its end and of room in the backlog.

    on_input(data): bytes for the process. on_end(closed): no more input; `closed` when the client is gone or wants to
    be. on_detach(): it wants to be, and has said so by its detach keys. on_room(): the backlog is empty again.
    """

    def __init__(self, poller: Poller, fd: int, options: AttachOptions, *, terminal: bool) -> None:
        self._poller = poller
        self._fd = fd
        self._terminal = terminal
        self._wanted = (STDOUT,) * options.stdout + (STDERR,) * options.stderr
        self._keys = DetachKeys(parse_keys(options.detach_keys)) if terminal and options.stdin else None
        self._queue: deque[bytes] = deque()
        self._held = True
        self._hold_until = 0.0
        self._reading = True
        self._finishing = False
        self.has_stdin = options.stdin
        self._stdin = options.stdin  # until it ends
        self.open = True
        self.backlog = 0
        self.progress = 0  # bytes sent so far
        self.on_input: Callable[[bytes], None] = lambda data: None
        self.on_end: Callable[[bool], None] = lambda closed: None
        self.on_detach: Callable[[], None] = lambda: None
        self.on_room: Callable[[], None] = lambda: None
        os.set_blocking(fd, False)
        self._watch()

    def _watch(self) -> None:
        if self.open:
            waiting = bool(self._queue) and not self._held
            self._poller.watch(self._fd, READ * self._reading | WRITE * waiting, self._ready)

    def _ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if self.open and self._reading and events & (READ | HANGUP):
            self._read()
        elif self.open and events & HANGUP and not self._reading:
            self._gone()

    # Input

    def pause(self) -> None:
        """Read no more input until `resume`; a client without stdin is only listened to for its end."""
        if self._stdin:
            self._reading = False
            self._watch()

    def resume(self) -> None:
        """Read input again, unless it has ended."""
        if self._stdin:
            self._reading = True
            self._watch()

    def _read(self) -> None:
        try:
            data = os.read(self._fd, CHUNK)
        except BlockingIOError:
            return
        except OSError:  # ECONNRESET, ETIMEDOUT: the client is gone
            self._gone()
            return
        if data:
            self.feed(data)
            return
        self._reading = False
        self._watch()
        if self._stdin:
            self._stdin = False
            self.on_end(False)

    def feed(self, data: bytes) -> None:
        """Take input as if it had just been read."""
        if not self._stdin or not data:
            return
        detached = False
        if self._keys is not None:
            data, detached = self._keys.feed(data)
        if data:
            self.on_input(data)
        if detached:
            self.on_end(True)
            self.on_detach()

    def _gone(self) -> None:
        self.close()
        self.on_end(True)

    # Output

    def send(self, stream: int, data: bytes) -> None:
        """Queue output of one stream, or send it at once when nothing is in the way."""
        if not self.open or self._finishing or stream not in self._wanted:
            return
        if not self._terminal:
            self._put(struct.pack(">BxxxL", stream, len(data)))
        self._put(data)
        if self._held:
            if not self._hold_until:
                self._release()
        elif len(self._queue) <= 2:
            self._flush()

    def _put(self, data: bytes) -> None:
        self._queue.append(data)
        self.backlog += len(data)

    def _release(self) -> None:
        now = time.monotonic()
        self._hold_until = self._hold_until or now + HOLD
        if now < self._hold_until and self._head_unread():
            self._poller.after(_HOLD_STEP, self._retry)
            return
        self._held = False
        self._flush()

    def _retry(self) -> None:
        if self.open and self._held:
            self._release()

    def _head_unread(self) -> bool:
        try:
            return unsent(self._fd) > 0
        except OSError:  # not a socket of a kind that can tell
            return False

    def _flush(self) -> None:
        try:
            while self._queue:
                parts = [self._queue[index] for index in range(min(len(self._queue), 64))]
                self._sent(os.writev(self._fd, parts))
        except BlockingIOError:
            self._watch()
            return
        except OSError:  # EPIPE, ECONNRESET: the client is gone
            self._gone()
            return
        self._watch()
        if self._finishing:
            self._shut()
        else:
            self.on_room()

    def _sent(self, count: int) -> None:
        self.backlog -= count
        self.progress += count
        while count:
            part = self._queue.popleft()
            if len(part) > count:
                self._queue.appendleft(part[count:])
                return
            count -= len(part)

    # End

    def finish(self) -> None:
        """Close once the backlog is sent."""
        if self.open and not self._finishing:
            self._finishing = True
            if self._held and self._queue:
                return  # the retry comes back to _flush
            self._flush()

    def _shut(self) -> None:
        """End the output in order; close with unread input would reset the connection under the client's last reads."""
        with socket.socket(fileno=os.dup(self._fd)) as sock:
            try:
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(CHUNK):
                    pass
            except OSError:  # EAGAIN: nothing unread; ENOTCONN, ECONNRESET: the client is gone already
                pass
        self.close()

    def close(self) -> None:
        """Drop the client and what it has not read."""
        if self.open:
            self.open = False
            self._poller.forget(self._fd)
            os.close(self._fd)
            self._queue.clear()
            self.backlog = 0
