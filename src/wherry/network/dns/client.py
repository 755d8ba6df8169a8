"""The engine's side of the name server: starts it, finds it again, tells it who is where. See server.py."""

from __future__ import annotations

import errno
import logging
import os
import select
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wherry.errors import Unavailable
from wherry.kernel.pidfd import pidfd_open, pidfd_send_signal
from wherry.network.dns.server import LISTENER, NAME, VERSION
from wherry.runtime import channel
from wherry.supervision import interpreter

log = logging.getLogger(__name__)

PATIENCE = 10.0
_NO_ANSWER = (OSError, EOFError, ValueError)
BOOTSTRAP = """
import os, socket, sys
reader, writer = os.pipe()
if os.fork():
    os.close(writer)
    os.read(reader, 1)
    os._exit(0)
os.close(reader)
listening = socket.socket(fileno={descriptor})
listening.listen()
listening.detach()
os.close(writer)
sys.path.insert(0, {packages!r})
from wherry.network.dns.server import main
main()
"""
"""The first process ends at once: the one that stays is init's child and not ours, as it will be after our own end.

It is that one which listens: whoever did is named by SO_PEERCRED to those who connect (unix(7)), which is how an engine
knows whom to kill when there is no answer, also one of a later start.
"""

_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}

Entries = list[tuple[tuple[str, ...], tuple[str, ...]]]
"""(addresses, names) of the endpoints of one network."""


@dataclass(frozen=True, slots=True)
class Client:
    """A container as one who asks: see zone.Sandbox."""

    sandbox_id: str
    networks: tuple[str, ...]
    upstreams: tuple[str, ...]
    follows_host: bool = False
    links: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def order(self) -> dict[str, Any]:
        """Return it as a message."""
        asked = {"networks": self.networks, "links": self.links}
        return {
            "type": "sandbox",
            "id": self.sandbox_id,
            **asked,
            "upstreams": self.upstreams,
            "follows_host": self.follows_host,
        }


class NameServer:
    """The name server process of an engine. Thread-safe; every method blocks for a moment.

    `lost` is called, on a thread of its own, when the process has died and all it knew is to be told anew.
    """

    def __init__(self, run_root: Path, lost: Callable[[], None], patience: float = PATIENCE) -> None:
        """Be without a process until one is needed or `resume` finds one. patience: seconds to wait for an answer."""
        self._patience = patience
        self._path = run_root / "dns.sock"
        self._log = run_root / "dns.log"
        self._lost = lost
        self._lock = threading.Lock()
        self._connection: socket.socket | None = None
        self._closing = False

    @property
    def running(self) -> bool:
        """Whether there is a process to be told anything."""
        return self._connection is not None

    def resume(self) -> set[str]:
        """Take up the process of an engine before; return the sandboxes that it serves, none when there is none."""
        with self._lock:
            if not self._connect():
                return set()
            try:
                answer = self._exchange({"type": "hello"})
            except _NO_ANSWER:
                return set()
            served = set(answer["sandboxes"])
            if answer.get("version") == VERSION:
                return served
            log.warning("the name server is of another version: it will be replaced")
            try:
                self._exchange({"type": "gone", "sandboxes": sorted(served), "networks": []})
            except _NO_ANSWER:
                return set()
            self._forget_locked()
            self._path.unlink(missing_ok=True)
            return set()

    def place(self, client: Client, fds: Sequence[int] = ()) -> None:
        """Serve a container; with descriptors (UDP, TCP) from now on. Starts the process. Raises Unavailable."""
        self._tell(client.order(), fds, start=True)

    def show(self, network_id: str, name: str, entries: Entries) -> None:
        """Tell who is in a network. Raises Unavailable."""
        self._tell({"type": "network", "id": network_id, "name": name, "entries": entries})

    def drop(self, sandboxes: Iterable[str], networks: Iterable[str] = ()) -> None:
        """Serve these no more. Raises Unavailable."""
        self._tell({"type": "gone", "sandboxes": list(sandboxes), "networks": list(networks)})

    def _tell(self, order: dict[str, Any], fds: Sequence[int] = (), *, start: bool = False) -> None:
        with self._lock:
            if self._connection is None:
                if not start:
                    return
                self._start()
            try:
                self._exchange(order, fds)
            except _NO_ANSWER as error:
                if not self._closing:
                    threading.Thread(target=self._lost, name="wherry-dns-lost", daemon=True).start()
                raise Unavailable(f"the name server of the networks does not answer: {error}") from error

    def _exchange(self, order: dict[str, Any], fds: Sequence[int] = ()) -> dict[str, Any]:
        """Return the answer to an order; without one the process is ended, for it would be one answer behind."""
        assert self._connection is not None, "the caller has seen to it"
        try:
            channel.send(self._connection, order, fds)
            answer, received = channel.receive(self._connection)
        except _NO_ANSWER as error:
            log.error("the name server does not answer and is replaced", extra={"error": str(error)})
            _kill_peer(self._connection)
            self._forget_locked()
            self._path.unlink(missing_ok=True)
            raise
        channel.close_all(received)
        return answer

    # ---- the process

    def _start(self) -> None:
        if self._connect():
            return
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            listener.bind(str(self._path))
            os.chmod(self._path, 0o600)
            pid = interpreter.start(BOOTSTRAP, _ENVIRONMENT, str(self._log), {LISTENER: listener.fileno()})
            os.waitpid(pid, 0)
        except OSError as error:
            raise Unavailable(f"cannot start the name server of the networks: {error}") from error
        finally:
            listener.close()
        if not self._connect():
            raise Unavailable(f"the name server of the networks did not start: {self._last_words()}")

    def _connect(self) -> bool:
        """Connect with the process at the path; False when nobody listens there."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.settimeout(self._patience)
        try:
            sock.connect(str(self._path))
        except (FileNotFoundError, ConnectionRefusedError):
            sock.close()
            return False
        self._connection = sock
        threading.Thread(target=self._watch, args=(sock,), name="wherry-dns-watch", daemon=True).start()
        return True

    def _watch(self, sock: socket.socket) -> None:
        """Wait for the end of the process: an answer is only ever awaited under the lock, an end at any time."""
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLHUP | select.POLLRDHUP)
        poll.poll()
        with self._lock:
            ours = self._connection is sock
            if ours:
                self._forget_locked()
        if ours and not self._closing:
            log.error("the name server died", extra={"last_words": self._last_words()})
            self._lost()

    def _forget(self) -> None:
        with self._lock:
            self._forget_locked()

    def _forget_locked(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for its end
            except OSError as error:
                if error.errno != errno.ENOTCONN:
                    raise
            connection.close()

    def close(self) -> None:
        """Leave the process; it ends when it serves nobody."""
        self._closing = True
        self._forget()

    def _last_words(self) -> str:
        try:
            return self._log.read_text(errors="replace").strip()[-2000:]
        except FileNotFoundError:
            return ""


def _kill_peer(sock: socket.socket) -> None:
    """Kill the name server at the other end, when it is there still and is one."""
    pid, _uid, _gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    try:
        pidfd = pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if Path(f"/proc/{pid}/comm").read_text() == f"{NAME}\n":
            pidfd_send_signal(pidfd, signal.SIGKILL)
    except (FileNotFoundError, ProcessLookupError):
        return
    finally:
        os.close(pidfd)
