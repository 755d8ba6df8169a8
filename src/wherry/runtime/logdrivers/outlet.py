"""A log process: what may have to wait is done there, and the supervisor never waits.

    supervisor                                 wherry-log, one process for each sink that may wait
       | -- fork -------------------------------> |  opens the sink: a file that is compressed, a receiver
       | <-- "+", or "-" and the reason --------- |  before the container starts
       | -- stream u8, Unix ns u64, block ------> |  one message (SOCK_SEQPACKET) for each block
       | <-- "-" and the reason ----------------- |  what a block could not be written for
       | -- EOF --------------------------------> |  writes what it still has, and ends

What does not fit into the socket waits here. Blocking, the session stops to read output when that is too much; else
what does not fit is dropped, whole lines, the newest. When the supervisor ends the log process has ten more seconds.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from typing import NoReturn, Protocol

from wherry.kernel import const, fds, namespaces, process
from wherry.runtime.poller import READ, WRITE, Poller

NAME = "wherry-log"
PATIENCE = 10.0
"""Seconds that a sink has for what is left when the container is over; dockerd waits as long."""

_HEAD = struct.Struct("<BQ")
_NUMBERS = {"stdout": 1, "stderr": 2}
_NAMES = {1: "stdout", 2: "stderr"}
_LARGEST = 1 << 20
_HIGH = 1 << 20  # bytes that wait here before a blocking sink holds up the output
_SOCKET = 512 << 10
_SMALLEST = 160 << 10  # holds two of the largest blocks
_REPEAT = 60.0  # seconds after which a complaint that repeats is told again


class Sink(Protocol):
    """Where blocks of output end up; raises OSError."""

    def put(self, stream: str, at: int, blocks: list[bytes]) -> None:
        """Take blocks (see `blocks`) that were read at `at` (Unix ns)."""

    def close(self) -> None:
        """Write what is still to be written."""


class Outlet:
    """The supervisor's side. buffer: bytes that may wait while nothing is held up, 0 = hold up."""

    def __init__(self, open_sink: Callable[[], Sink], buffer: int) -> None:
        self._buffer = buffer
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._poller: Poller | None = None
        self._on_room: Callable[[], object] = lambda: None
        self._on_failure: Callable[[OSError], object] = lambda error: None
        self._dropped = 0
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        size = min(_SOCKET, max(buffer, _SMALLEST)) if buffer else _SOCKET
        ours.setsockopt(socket.SOL_SOCKET, const.SO_SNDBUFFORCE, size)
        self.pid = _fork_outside()
        if self.pid == 0:
            _serve(theirs, open_sink)
        theirs.close()
        self._socket = ours
        answer = ours.recv(_LARGEST)
        if answer != b"+":
            ours.close()
            os.waitpid(self.pid, 0)
            code, _, text = answer[1:].decode(errors="replace").partition(" ")
            raise OSError(int(code or 0), text or "the log process ended")
        ours.setblocking(False)

    def connect(self, poller: Poller, on_room: Callable[[], object], on_failure: Callable[[OSError], object]) -> None:
        """Use the supervisor's poller from now on."""
        self._poller, self._on_room, self._on_failure = poller, on_room, on_failure
        poller.watch(self._socket.fileno(), READ, self._ready)

    @property
    def full(self) -> bool:
        """Whether the output has to wait."""
        return not self._buffer and self._queued > _HIGH

    @property
    def pending(self) -> bool:
        """Whether blocks still wait here for the log process."""
        return bool(self._queue)

    def put(self, stream: str, at: int, blocks: list[bytes]) -> None:
        """Pass on blocks, or keep them until there is room, or drop the lines that are too many."""
        head = _HEAD.pack(_NUMBERS[stream], at)
        for block in blocks:
            if self._buffer and self._queue:
                block = self._fitting(block)
            if block:
                self._queue.append(head + block)
                self._queued += len(block)
        self._flush()

    def _fitting(self, block: bytes) -> bytes:
        room = self._buffer - self._queued
        if len(block) <= room:
            return block
        kept = block[: block.rfind(b"\n", 0, max(room, 0)) + 1]
        self._dropped += len(block) - len(kept)
        return kept

    def _flush(self) -> None:
        if self._socket.fileno() < 0:
            return self._clear()
        try:
            while self._queue:
                self._socket.send(self._queue[0])
                self._queued -= len(self._queue.popleft()) - _HEAD.size
        except BlockingIOError:
            pass
        except OSError as error:
            return self._lose(error)
        if self._poller is not None:
            events = READ | WRITE if self._queue else READ
            self._poller.watch(self._socket.fileno(), events, self._ready)

    def _clear(self) -> None:
        self._queue.clear()
        self._queued = 0

    def _ready(self, events: int) -> None:
        if events & READ:
            self._listen()
        if self._queue:
            self._flush()
        if not self.full:
            self._on_room()

    def _listen(self) -> None:
        try:
            text = self._socket.recv(_LARGEST)
        except BlockingIOError:
            return
        except OSError as error:
            return self._lose(error)
        if not text:
            return self._lose(OSError(errno.EPIPE, "the log process was killed; what follows is not logged"))
        code, _, reason = text[1:].decode(errors="replace").partition(" ")
        self._on_failure(OSError(int(code or 0), reason))

    def _lose(self, error: OSError) -> None:
        self._close_socket()
        self._clear()
        self._on_failure(error)
        self._on_room()

    def _close_socket(self) -> None:
        if self._poller is not None:
            self._poller.forget(self._socket.fileno())
        self._socket.close()

    def close(self, *, wait: bool) -> None:
        """Let the log process end once it has all; wait: for at most ten seconds until it has written all."""
        if self._dropped:
            text = f"dropped {self._dropped} bytes of output: the buffer was full (max-buffer-size)"
            self._on_failure(OSError(errno.ENOBUFS, text))
        if wait:
            self.finish()
            self._await_end()

    def finish(self) -> None:
        """Pass on what is left within ten seconds, and the end."""
        deadline = time.monotonic() + PATIENCE
        if self._socket.fileno() < 0:
            return
        self._socket.settimeout(PATIENCE)
        try:
            while self._queue and (left := deadline - time.monotonic()) > 0:
                self._socket.settimeout(left)
                self._socket.send(self._queue.popleft())
        except OSError as error:  # a timeout too
            self._on_failure(OSError(error.errno or errno.ETIMEDOUT, f"the end of the log was lost: {error}"))
        self._clear()
        self._close_socket()

    def _await_end(self) -> None:
        pidfd = os.pidfd_open(self.pid)
        try:
            poller = Poller()
            ended: list[int] = []
            poller.watch(pidfd, READ, ended.append)
            poller.run_for(PATIENCE, until=lambda: bool(ended))
            poller.close()
            if ended:
                os.waitpid(self.pid, 0)
        finally:
            os.close(pidfd)


def _fork_outside() -> int:
    """Fork, with the child in our own pid namespace: that of children may be the container's already (see `stem`)."""
    own, children = (os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in _PID_NAMESPACES)
    try:
        namespaces.setns(own, const.CLONE_NEWPID)
        pid = -1
        try:
            pid = os.fork()
        finally:
            if pid:  # the child forks too: what compresses must not be born into the container
                namespaces.setns(children, const.CLONE_NEWPID)
        return pid
    finally:
        os.close(own)
        os.close(children)


_PID_NAMESPACES = ("pid", "pid_for_children")


def _serve(inlet: socket.socket, open_sink: Callable[[], Sink]) -> NoReturn:
    """Be the log process."""
    status = 1
    try:
        process.set_name(NAME)
        signal.signal(signal.SIGTERM, lambda number, frame: signal.setitimer(signal.ITIMER_REAL, PATIENCE))
        process.set_parent_death_signal(signal.SIGTERM)
        fds.close_except((0, 1, 2, inlet.fileno()))
        try:
            sink = open_sink()
        except OSError as error:
            inlet.send(_complaint(error))
        else:
            inlet.send(b"+")
            _pass_on(inlet, sink)
            status = 0
    finally:
        os._exit(status)


def _pass_on(inlet: socket.socket, sink: Sink) -> None:
    told, at_last = b"", 0.0
    while message := inlet.recv(_LARGEST):
        number, at = _HEAD.unpack_from(message)
        try:
            sink.put(_NAMES[number], at, [message[_HEAD.size :]])
        except OSError as error:
            complaint, now = _complaint(error), time.monotonic()
            if complaint != told or now - at_last > _REPEAT:
                told, at_last = complaint, now
                _tell(inlet, complaint)
    sink.close()


def _tell(inlet: socket.socket, complaint: bytes) -> None:
    try:
        inlet.send(complaint, socket.MSG_DONTWAIT)
    except OSError:  # the supervisor is gone, or has not read the complaints before
        return


def _complaint(error: OSError) -> bytes:
    text = error.strerror or str(error)
    where = f"{error.filename}: " if error.filename else ""
    return f"-{error.errno or 0} {where}{text}".encode()
