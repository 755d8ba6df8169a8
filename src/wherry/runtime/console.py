"""The terminal of a container in the stand-alone runtime: handed to a console socket, or shown on our own.

Console socket: a listening SOCK_STREAM unix socket of the caller; we connect and send one message, the name of the
terminal with the descriptor of its master side (SCM_RIGHTS), as runc does since its docs/terminals.md.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import termios
import tty
from types import FrameType

_SUN_PATH = 107  # the longest path in a sockaddr_un, unix(7)
_OURS = {signal.SIGCHLD, signal.SIGWINCH, signal.SIGURG, signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE}


def connect(path: str, kind: int) -> socket.socket:
    """Return a socket connected to `path`, however long that is."""
    sock = socket.socket(socket.AF_UNIX, kind)
    try:
        if len(os.fsencode(path)) <= _SUN_PATH:
            sock.connect(path)
            return sock
        directory = os.open(os.path.dirname(path), os.O_PATH | os.O_CLOEXEC)
        try:
            sock.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
        finally:
            os.close(directory)
    except OSError as error:
        sock.close()
        error.filename = path
        raise
    return sock


def send_descriptor(path: str, descriptor: int, name: str) -> None:
    """Send one descriptor to whoever listens on `path`."""
    with connect(path, socket.SOCK_STREAM) as sock:
        socket.send_fds(sock, [name.encode()], [descriptor])


def hold_signals() -> None:
    """Keep signals for `Foreground.wait`: one that comes before the process is there must not end us alone."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - _OURS)


class Foreground:
    """Waits for a process in our place in the terminal: passes signals on, and the terminal's bytes both ways."""

    def __init__(self, pidfd: int, master: int | None) -> None:
        self._pidfd = pidfd
        self._master = master
        self._saved: list[object] | None = None
        self._resized = True

    def wait(self) -> None:
        """Return when the process has ended and its terminal is read to the end; it is still to be reaped."""
        self._catch_signals()
        try:
            self._make_raw()
            self._run()
        finally:
            if self._saved is not None:
                termios.tcsetattr(0, termios.TCSADRAIN, self._saved)  # type: ignore[arg-type]

    def _catch_signals(self) -> None:
        for number in signal.valid_signals() - _OURS:
            signal.signal(number, self._forward)
        signal.signal(signal.SIGWINCH, self._note_size)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def _forward(self, number: int, _frame: FrameType | None) -> None:
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            return  # it has just ended, which the loop is about to see

    def _note_size(self, _number: int, _frame: FrameType | None) -> None:
        self._resized = True

    def _make_raw(self) -> None:
        if self._master is not None and os.isatty(0):
            self._saved = termios.tcgetattr(0)
            tty.setraw(0, termios.TCSANOW)

    def _run(self) -> None:
        sources = {self._pidfd} | ({self._master, 0} if self._master is not None else set())
        while self._pidfd in sources or self._master in sources:
            self._resize()
            # SIGWINCH restarts select (PEP 475), so the size is looked at again within a moment
            ready = select.select(list(sources), [], [], 0.25 if self._saved else None)[0]
            if self._pidfd in ready:
                sources.discard(self._pidfd)
                sources.discard(0)
            if 0 in ready and 0 in sources and not self._copy(0, self._master or -1):
                sources.discard(0)
            if self._master in ready and not self._copy(self._master or -1, 1):
                sources.discard(self._master)
                sources.discard(0)

    def _resize(self) -> None:
        if self._resized and self._master is not None and self._saved is not None:
            self._resized = False
            termios.tcsetwinsize(self._master, termios.tcgetwinsize(0))

    @staticmethod
    def _copy(source: int, target: int) -> bool:
        """Pass on what is there; false at the end (EIO: nobody has the terminal open any more)."""
        try:
            data = os.read(source, 65536)
        except OSError:
            return False
        while data:
            data = data[os.write(target, data) :]
            if not data:
                return True
        return False
