"""A SEQPACKET connection in the event loop, and how to reach a supervisor."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from wherry.runtime import channel, exits

CONNECT_PATIENCE = 2.0


class Connection:
    """Sends and receives messages. It owns the socket; `on_end` is called once, when the peer is gone."""

    def __init__(
        self, sock: socket.socket, on_message: Callable[[dict[str, Any]], None], on_end: Callable[[], None]
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._on_message = on_message
        self._on_end = on_end
        self._sending = asyncio.Lock()
        self._waiter: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._read)

    @property
    def open(self) -> bool:
        """Whether the peer is still there, as far as is known."""
        return self._sock.fileno() >= 0

    async def send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Send a message with duplicates of `fds`; raises ConnectionError when the peer is gone."""
        async with self._sending:
            while True:
                if not self.open:
                    raise BrokenPipeError("the peer is gone")
                try:
                    channel.send(self._sock, message, fds)
                    return
                except BlockingIOError:
                    await self._writable()

    async def _writable(self) -> None:
        ready = self._waiter = self._loop.create_future()
        self._loop.add_writer(self._sock.fileno(), self._wake)
        try:
            await ready
        finally:
            self._wake()

    def _wake(self) -> None:
        """Let the sender go on, if one waits: there is room, or nobody there any more."""
        if self._waiter is not None:
            self._loop.remove_writer(self._sock.fileno())
            if not self._waiter.done():
                self._waiter.set_result(None)
            self._waiter = None

    def _read(self) -> None:
        while self.open:
            try:
                message, fds = channel.receive(self._sock)
            except BlockingIOError:
                return
            except EOFError:
                self.close()
                self._on_end()
                return
            for fd in fds:
                os.close(fd)
            self._on_message(message)

    def close(self) -> None:
        """Close without telling `on_end`."""
        if self.open:
            self._wake()
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()


async def connect(run_dir: Path) -> socket.socket | None:
    """Connect to the supervisor of this run directory; None when it is gone."""
    deadline = asyncio.get_running_loop().time() + CONNECT_PATIENCE
    try:
        directory = os.open(run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.setblocking(False)
    try:
        while True:
            try:
                # Through the descriptor: sun_path takes 107 bytes, a run root may be longer (unix(7)).
                sock.connect(f"/proc/self/fd/{directory}/{exits.SOCKET}")
                return sock
            except BlockingIOError:  # its queue of connections is full
                if asyncio.get_running_loop().time() > deadline:
                    raise
            await asyncio.sleep(0.02)
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(directory)


def peer_pid(sock: socket.socket) -> int:
    """Return the pid of the process that listens at the other end (SO_PEERCRED, unix(7))."""
    pid: int = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    return pid
