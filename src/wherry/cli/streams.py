"""Attached streams: the terminal on one side, a connection to a container on the other.

Without a terminal the engine frames its output: [stream, 0, 0, 0, length in 4 bytes] + bytes, stream 1 or 2.
Signals arrive through a wakeup descriptor, so that one poll waits for input, output and signals alike.
"""

from __future__ import annotations

import os
import select
import signal
import struct
from _socket import SHUT_WR, socket
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Signals = Callable[[int], None]

FORWARDED = tuple(getattr(signal, f"SIG{name}") for name in ("HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "CONT"))
DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"


def detach_sequence(keys: str) -> bytes:
    """The bytes of a --detach-keys value such as "ctrl-p,ctrl-q" or "a,b"."""
    sequence = b""
    for key in (keys or DEFAULT_DETACH_KEYS).split(","):
        letter = key.removeprefix("ctrl-")
        if len(letter) != 1:
            raise ValueError(f"invalid detach keys ({keys}): unknown character: '{key}'")
        sequence += bytes([ord(letter.upper()) & 0x1F]) if key != letter else letter.encode()
    return sequence


@contextmanager
def raw_terminal(descriptor: int) -> Iterator[None]:
    """Hand every key to the container, and give the terminal back as it was."""
    import termios
    import tty

    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSANOW)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextmanager
def signal_descriptor(numbers: tuple[int, ...]) -> Iterator[int]:
    """A descriptor from which each arriving signal of `numbers` is read as one byte."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = {number: signal.signal(number, _ignore) for number in numbers}
    previous = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(previous)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)


def _ignore(number: int, frame: object) -> None:
    """The wakeup descriptor carries the news; a handler must exist for it to be written."""


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything; a reader that has gone away ends us as SIGPIPE would."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


class Demultiplexer:
    """Cuts a framed stream into pieces for stdout and stderr; frames may be split anywhere."""

    def __init__(self, write: Callable[[int, bytes], None]) -> None:
        self._write = write
        self._header = b""
        self._stream = 1
        self._left = 0

    def feed(self, data: bytes) -> None:
        """Take what arrived and write what is whole."""
        while data:
            if not self._left:
                wanted = 8 - len(self._header)
                self._header, data = self._header + data[:wanted], data[wanted:]
                if len(self._header) == 8:
                    self._stream, self._left = struct.unpack(">BxxxL", self._header)
                    self._header = b""
                continue
            piece, data = data[: self._left], data[self._left :]
            self._left -= len(piece)
            self._write(self._stream, piece)


class Attachment:
    """One attached connection.

    stdin: a descriptor to read from, or None. tty: the stream is raw. early: bytes that came with the HTTP head.
    on_signal: told every signal that arrives meanwhile.
    """

    def __init__(self, sock: socket, early: bytes, *, stdin: int | None, tty: bool, detach: bytes) -> None:
        self._sock = sock
        self._early = early
        self._stdin = stdin
        self._detach = detach
        self._tail = b""
        demultiplexer = Demultiplexer(lambda stream, data: write_all(2 if stream == 2 else 1, data))
        self._feed: Callable[[bytes], None] = (lambda data: write_all(1, data)) if tty else demultiplexer.feed

    def run(self, signals: int, on_signal: Signals) -> bool:
        """Copy both ways until the engine ends the stream; True when the detach keys ended it."""
        self._feed(self._early)
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        poll.register(signals, select.POLLIN)
        if self._stdin is not None:
            poll.register(self._stdin, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == signals:
                    for number in os.read(signals, 64):
                        on_signal(number)
                elif descriptor == self._stdin:
                    self._input(poll)
                elif not self._output():
                    return bool(self._tail) and self._tail == self._detach
        raise AssertionError

    def _output(self) -> bool:
        try:
            data = self._sock.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        self._feed(data)
        return bool(data)

    def _input(self, poll: select.poll) -> None:
        """Send what was typed; the end of our input ends the container's by a half-close."""
        assert self._stdin is not None
        data = os.read(self._stdin, 1 << 16)
        try:
            if data:
                self._tail = (self._tail + data)[-len(self._detach) :]
                self._sock.sendall(data)
                return
            self._sock.shutdown(SHUT_WR)
        except OSError:
            pass  # the container stopped reading; what it still writes is worth reading
        poll.unregister(self._stdin)
        self._stdin = None


def terminal_size() -> tuple[int, int] | None:
    """Rows and columns of the terminal we write to, if it is one."""
    try:
        size = os.get_terminal_size(1)
    except OSError:
        return None
    return size.lines, size.columns
