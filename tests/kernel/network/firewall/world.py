"""A host with its neighbour, for the suite of the firewall: who gets where is tried with packets, never read off rules.

    container -- bridge -- host 198.51.100.1 -- 198.51.100.2 neighbour (a network namespace with any route it likes)
                                2001:db8::1     2001:db8::2
"""

from __future__ import annotations

import errno
import os
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TypeVar

from tests.kernel.isolation import command, inside, new_namespace
from wherry.models.network import CreateNetwork, Ipam, IpamPool
from wherry.network.api import EndpointRequest, SandboxRequest
from wherry.network.controller import Networks
from wherry.network.ports import PortRequest
from wherry.network.sandbox import OpenSandbox

HOST = "198.51.100.1"
NEIGHBOUR = "198.51.100.2"
HOST6, NEIGHBOUR6 = "2001:db8::1", "2001:db8::2"
TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
KINDS = {TCP: "tcp", UDP: "udp"}
NO_ANSWER = (errno.ECONNREFUSED, errno.ECONNRESET, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL)
"""EINVAL: a source address of 127.0.0.0/8 for a link that has none."""
T = TypeVar("T")
PATIENCE = 0.35
"""Seconds after which a packet that was dropped is one that does not come."""
LONG = 5.0


class World:
    """The host is the thread's network namespace; `here` is None for it where others are descriptors."""

    def __init__(self, networks: Networks, stack: ExitStack) -> None:
        self.networks = networks
        self._stack = stack
        self.neighbour = self.beyond("wan", HOST, NEIGHBOUR)
        command("ip", "addr", "add", f"{HOST6}/64", "dev", "wan0", "nodad")
        self.at_neighbour(("ip", "addr", "add", f"{NEIGHBOUR6}/64", "dev", "wan1", "nodad"))

    def beyond(self, link: str, address: str, other: str) -> int:
        """Return a new namespace at the end of a wire from the host, of two addresses in a subnet of 24 bits.

        The host's link is a macvlan, as veth pairs and bridges count as links to its own containers.
        """
        fd = new_namespace()
        self._stack.callback(os.close, fd)
        there = f"/proc/{os.getpid()}/fd/{fd}"
        command("ip", "link", "add", f"{link}9", "up", "type", "veth", "peer", "name", f"{link}1", "netns", there)
        command("ip", "link", "set", f"{link}9", "arp", "off")  # or it would answer for the macvlan's address
        command("ip", "link", "add", f"{link}0", "link", f"{link}9", "type", "macvlan", "mode", "private")
        command("ip", "addr", "add", f"{address}/24", "dev", f"{link}0")
        command("ip", "link", "set", f"{link}0", "up")
        inside(fd, lambda: command("ip", "addr", "add", f"{other}/24", "dev", f"{link}1"))
        inside(fd, lambda: command("ip", "link", "set", f"{link}1", "up"))
        return fd

    def at_neighbour(self, *commands: tuple[str, ...]) -> None:
        """Run commands there."""
        inside(self.neighbour, lambda: [command(*each) for each in commands])

    def route(self, subnet: str) -> None:
        """Have the neighbour send to a subnet of ours by way of the host."""
        self.at_neighbour(("ip", "route", "add", subnet, "via", HOST6 if ":" in subnet else HOST))

    def network(self, name: str, subnet: str, *, internal: bool = False, six: str = "", **options: str) -> None:
        """Make a network; options without their common beginning, the bridge's name as `bridge`. six: IPv6 subnet."""
        options |= {"name": options.pop("bridge")} if "bridge" in options else {}
        given = {f"com.docker.network.bridge.{key}": value for key, value in options.items()}
        pools = Ipam(config=[IpamPool(subnet=each) for each in (subnet, six) if each])
        asked = CreateNetwork(name=name, ipam=pools, internal=internal, options=given, enable_ipv6=bool(six))
        self.networks.create(asked)

    def container(self, network: str = "bridge", *ports: PortRequest, of: Networks | None = None) -> OpenSandbox:
        """Open a sandbox c0, c1 ... of an engine; it is closed at the end, with the sockets that hold its ports."""
        networks = of or self.networks
        name = f"c{len(networks._members.groups())}"
        box = networks.open_sandbox(SandboxRequest(name, (EndpointRequest(network),), name=name, ports=ports))
        self._stack.callback(box.close)
        return box

    def serving(self, here: int | None, port: int, kind: int = TCP) -> Server:
        """Start a server in a namespace that tells every client how it is seen; it ends with the test."""
        return self._stack.enter_context(Server(here, port, kind))


def publish(port: int, host_port: int, kind: int = TCP, address: str = "") -> PortRequest:
    """A port to be published."""
    return PortRequest(KINDS[kind], port, address, host_port, host_port)


class Server(AbstractContextManager["Server"]):
    """A server on all addresses of a namespace, of both families."""

    def __init__(self, here: int | None, port: int, kind: int) -> None:
        self._kind = kind
        self._socket = _in(here, lambda: _bound(port, kind))
        self._end, self._ended = os.pipe()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            ready, _, _ = select.select([self._socket, self._end], [], [])
            if self._end in ready:
                return
            if self._kind == TCP:
                client, peer = self._socket.accept()
                with client:
                    client.sendall(peer[0].encode())
            else:
                _data, peer = self._socket.recvfrom(100)
                self._socket.sendto(peer[0].encode(), peer)

    def __exit__(self, *_: object) -> None:
        os.close(self._ended)
        self._thread.join()
        os.close(self._end)
        self._socket.close()


def _bound(port: int, kind: int) -> socket.socket:
    made = socket.socket(socket.AF_INET6, kind)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("::", port))
    if kind == TCP:
        made.listen(16)
    return made


def _in(here: int | None, work: Callable[[], T]) -> T:
    return work() if here is None else inside(here, work)  # type: ignore[no-any-return]


def seen(here: int | None, address: str, port: int, kind: int = TCP) -> str:
    """Ask a server from a namespace until it answers; returns how it sees the client, "" when it does not.

    A port of a bridge takes a moment to begin to forward, and a packet that comes before that is lost.
    """
    deadline = time.monotonic() + LONG
    while not (answer := _in(here, lambda: _ask(address, port, kind))) and time.monotonic() < deadline:
        time.sleep(0.02)
    return answer


def shut(here: int | None, address: str, port: int, kind: int = TCP) -> bool:
    """Whether no answer comes to the same question."""
    return not _in(here, lambda: _ask(address, port, kind))


def _ask(address: str, port: int, kind: int) -> str:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, kind) as client:
        client.settimeout(PATIENCE)
        try:
            client.connect((address, port))
            if kind == UDP:
                client.send(b"?")
            return client.recv(100).decode().removeprefix("::ffff:")
        except OSError as error:
            if error.errno not in (None, *NO_ANSWER):  # None: the time was up
                raise
            return ""


def ping(here: int, address: str) -> bool:
    """Whether an echo comes back, after some attempts."""
    return any(not silent(here, address) for _ in range(5))


def silent(here: int, address: str) -> bool:
    """Whether no echo comes back."""
    script = f"busybox ping -c 1 -W 1 {address} >/dev/null && echo yes || echo no"
    return bool(inside(here, lambda: command("sh", "-c", script)) == "no\n")


@contextmanager
def attacked() -> Iterator[None]:
    """Fail when no packet to 127.0.0.0/8 comes by a link meanwhile: then no attack was tried at all.

    Counted by a table of its own, before any engine's.
    """
    command("nft", "add table ip attacked")
    try:
        command("nft", "add chain ip attacked c { type filter hook prerouting priority -310 ; }")
        command("nft", 'add rule ip attacked c iifname != "lo" ip daddr 127.0.0.0/8 counter')
        yield
        chain = command("nft", "list", "chain", "ip", "attacked", "c")
        counted = re.search(r"packets (\d+)", chain)
        assert counted is not None
        assert int(counted[1]) > 0
    finally:
        command("nft", "delete table ip attacked")
