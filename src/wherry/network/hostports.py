"""Taking ports of the host for containers, so that no other program gets them.

For each port a socket is bound, which the container's supervisor holds until the container ends: the port stays taken
while no engine runs. It serves nobody. A TCP socket listens for a moment and is shut down: listening finds out whether
another program does, SO_REUSEADDR disregards connections of earlier programs that still are in TIME_WAIT, and a socket
that was shut down keeps its port (SOCK_BINDPORT_LOCK, tcp_disconnect in net/ipv4/tcp.c), shares it with nobody, and
answers with RST where a listening one would keep a client waiting should the rules be missing.
"""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

from wherry.errors import SystemFailure
from wherry.network import sysctls
from wherry.network.ports import ANY, PortRequest, Published

_SCTP = 132
_MISSING = (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT)


class HostPorts:
    """Which container has which port of the host. Thread-safe."""

    def __init__(self) -> None:
        """Know no port yet."""
        self._lock = threading.Lock()
        self._taken: dict[tuple[str, int], dict[str, str]] = {}
        self._last = 0

    def take(self, container: str, asked: PortRequest, target: str) -> tuple[Published, socket.socket | None]:
        """Return the port and the socket that holds it, None where the kernel has no such sockets (SCTP).

        target: the container's address, for the error. Raises SystemFailure with dockerd's text.
        """
        with self._lock:
            for number in self._candidates(asked):
                fixed = asked.first == asked.last != 0
                place = (asked.protocol, number, asked.address or ANY)
                if self._holder(place):
                    if fixed:
                        raise SystemFailure(f"Bind for {place[2]}:{number} failed: port is already allocated")
                    continue
                try:
                    held = _bind(*place)
                except OSError as error:
                    if error.errno == errno.EADDRINUSE and not fixed:
                        continue
                    raise _not_bound(place, asked, target, error) from error
                self._note(container, *place)
                if not asked.first:
                    self._last = number
                return Published(asked.protocol, asked.port, place[2], number), held
            raise SystemFailure("all ports are allocated")

    def _candidates(self, asked: PortRequest) -> Iterator[int]:
        if asked.first:
            yield from range(asked.first, asked.last + 1)
            return
        first, last = (int(each) for each in sysctls.read("net/ipv4/ip_local_port_range").split())
        begin = self._last + 1 if first <= self._last < last else first
        yield from range(begin, last + 1)
        yield from range(first, begin)

    def _holder(self, place: tuple[str, int, str]) -> str:
        protocol, port, address = place
        for other, holder in self._taken.get((protocol, port), {}).items():
            if address == other or ANY in (address, other):
                return holder
        return ""

    def know(self, container: str, published: Published) -> None:
        """Take note of a port whose socket a supervisor holds already."""
        with self._lock:
            self._note(container, published.protocol, published.host_port, published.host_ip)

    def _note(self, container: str, protocol: str, port: int, address: str) -> None:
        self._taken.setdefault((protocol, port), {})[address] = container

    def give_back(self, container: str, published: Published) -> None:
        """Let others have a port. Idempotent."""
        with self._lock:
            place = (published.protocol, published.host_port)
            holders = self._taken.get(place, {})
            if holders.get(published.host_ip) == container:
                del holders[published.host_ip]
            if not holders:
                self._taken.pop(place, None)


def _not_bound(place: tuple[str, int, str], asked: PortRequest, target: str, error: OSError) -> SystemFailure:
    why = (error.strerror or str(error)).lower()
    return SystemFailure(
        f"failed to bind host port for {place[2]}:{place[1]}:{target}:{asked.port}/{asked.protocol}: {why}"
    )


def _bind(protocol: str, port: int, address: str) -> socket.socket | None:
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    try:
        held = socket.socket(socket.AF_INET, kind, _SCTP if protocol == "sctp" else 0)
    except OSError as error:
        if protocol != "sctp" or error.errno not in _MISSING:
            raise
        return None  # a host without SCTP has no program that could take the port
    with ExitStack() as undo:
        undo.callback(held.close)
        if protocol == "tcp":
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)  # what comes here by mistake is not kept
        held.bind((address, port))
        if protocol == "tcp":
            held.listen(1)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
            held.shutdown(socket.SHUT_RDWR)
        undo.pop_all()
    return held
