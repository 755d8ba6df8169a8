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
from collections.abc import Iterator, Mapping

from wherry.errors import SystemFailure
from wherry.network import sysctls
from wherry.network.ports import ANY, ANY6, PortRequest, Published

_SCTP = 132
Place = tuple[str, int, str]
"""Protocol, port and address."""
Taken = tuple[Published, socket.socket | None]
_MISSING = (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT)


class HostPorts:
    """Which container has which port of the host. Thread-safe."""

    def __init__(self) -> None:
        """Know no port yet."""
        self._lock = threading.Lock()
        self._taken: dict[tuple[str, int], dict[str, str]] = {}
        self._last = 0

    def take(self, container: str, asked: PortRequest, targets: Mapping[str, str]) -> list[Taken]:
        """Return a port, at each of some addresses, with the sockets that hold it. All or nothing.

        targets: the addresses of the host, each with the container's that it leads to, for the error. The socket is
        None where the kernel has no such ones (SCTP). Raises SystemFailure with dockerd's text.
        """
        fixed = asked.first == asked.last != 0
        with self._lock:
            for number in self._candidates(asked):
                places = [(asked.protocol, number, address) for address in targets]
                occupied = next((place for place in places if self._holder(place)), None)
                if occupied is not None:
                    if fixed:
                        raise SystemFailure(f"Bind for {_shown(occupied)} failed: port is already allocated")
                    continue
                held = self._held(places, asked, targets, fixed=fixed)
                if held is None:
                    continue
                for place in places:
                    self._note(container, *place)
                if not asked.first:
                    self._last = number
                return [
                    (Published(asked.protocol, asked.port, address, number), sock)
                    for (_, _, address), sock in zip(places, held, strict=True)
                ]
            raise SystemFailure("all ports are allocated")

    def _held(
        self, places: list[Place], asked: PortRequest, targets: Mapping[str, str], *, fixed: bool
    ) -> list[socket.socket | None] | None:
        """Return a socket for each place, None when a program has one of them and another port will do."""
        found: list[socket.socket | None] = []
        try:
            found.extend(_bind(*place) for place in places)
        except OSError as error:
            for sock in found:
                if sock is not None:
                    sock.close()
            if error.errno == errno.EADDRINUSE and not fixed:
                return None
            place = places[len(found)]
            raise _not_bound(place, asked, targets[place[2]], error) from error
        return found

    def _candidates(self, asked: PortRequest) -> Iterator[int]:
        if asked.first:
            yield from range(asked.first, asked.last + 1)
            return
        first, last = (int(each) for each in sysctls.read("net/ipv4/ip_local_port_range").split())
        begin = self._last + 1 if first <= self._last < last else first
        yield from range(begin, last + 1)
        yield from range(first, begin)

    def _holder(self, place: Place) -> str:
        protocol, port, address = place
        any_ = ANY6 if ":" in address else ANY
        for other, holder in self._taken.get((protocol, port), {}).items():
            if address == other or (any_ in (address, other) and (":" in other) == (":" in address)):
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


def _shown(place: Place) -> str:
    _, port, address = place
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _not_bound(place: Place, asked: PortRequest, target: str, error: OSError) -> SystemFailure:
    why = (error.strerror or str(error)).lower()
    inner = f"[{target}]" if ":" in target else target
    return SystemFailure(f"failed to bind host port for {_shown(place)}:{inner}:{asked.port}/{asked.protocol}: {why}")


def _bind(protocol: str, port: int, address: str) -> socket.socket | None:
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    try:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        held = socket.socket(family, kind, _SCTP if protocol == "sctp" else 0)
    except OSError as error:
        if protocol != "sctp" or error.errno not in _MISSING:
            raise
        return None  # a host without SCTP has no program that could take the port
    try:
        if ":" in address:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # 0.0.0.0 is another's, or another socket's
        if protocol == "tcp":
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)  # what comes here by mistake is not kept
        held.bind((address, port))
        if protocol == "tcp":
            held.listen(1)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
            held.shutdown(socket.SHUT_RDWR)
    except BaseException:
        held.close()
        raise
    return held
