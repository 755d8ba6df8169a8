"""The container network model, as the rest of the engine sees it.

    Sandbox   one network namespace with its links, routes and name resolution files
    Endpoint  one link of a sandbox in one network, with its addresses
    Network   a set of endpoints that reach each other; made and kept by a driver

`Networks` (controller.py) is the only entry. It blocks and is thread-safe. A sandbox lives as long as a
process or an open descriptor holds its namespace, so nothing has to be undone when the engine dies between
`open_sandbox` and the start of the container; addresses are rows of the store and are given back by
`close_sandbox` or, after a crash, by `restore`.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from wherry.network.ports import PortRequest, Published
from wherry.runtime.idmaps import Ids


@dataclass(frozen=True, slots=True)
class EndpointRequest:
    """What a container asks of one network (name or id). names: all that it is called there, aliases among them.

    links: what it alone calls others there ("name:alias"). link_local: further addresses of its link.
    """

    network: str
    ipv4: str = ""
    ipv6: str = ""
    mac: str = ""
    aliases: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    driver_opts: Mapping[str, str] = field(default_factory=dict)
    gw_priority: int = 0
    links: tuple[str, ...] = ()
    link_local: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SandboxRequest:
    """What a container asks of networking: its own namespace with these endpoints (none: loopback only).

    nameservers: its own (--dns), for names that are not of the networks. name: for errors. ports: to be published.
    ids: of the user namespace that the namespace is to belong to, None for the host's.
    """

    container_id: str
    endpoints: tuple[EndpointRequest, ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    nameservers: tuple[str, ...] = ()
    name: str = ""
    ports: tuple[PortRequest, ...] = ()
    ids: Ids | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """A way to a subnet ("10.1.0.0/16"); next_hop "": what is there is reached by the link itself."""

    destination: str
    next_hop: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint that exists. Addresses are text without prefix length; "" where there is none.

    routes: what its driver wants besides a gateway; one to 0.0.0.0/0 stands for a gateway. links, link_local: as asked.
    """

    network_id: str
    network_name: str
    endpoint_id: str
    interface: str
    mac: str
    ipv4: str = ""
    ipv4_prefix: int = 0
    gateway4: str = ""
    ipv6: str = ""
    ipv6_prefix: int = 0
    gateway6: str = ""
    gw_priority: int = 0
    names: tuple[str, ...] = ()
    routes: tuple[Route, ...] = ()
    links: tuple[str, ...] = ()
    link_local: tuple[str, ...] = ()


class Sandbox(Protocol):
    """An open sandbox. The holder closes it once the container's first process is in the namespace."""

    container_id: str
    sandbox_id: str
    netns_fd: int
    endpoints: tuple[Endpoint, ...]
    held: Mapping[Published, socket.socket]
    """What keeps the published ports; for the supervisor."""
    file: str
    """Where the namespace will be mounted; the supervisor deletes it at the end."""

    def close(self) -> None:
        """Close netns_fd and the sockets; the namespace goes on while a process is in it."""
        ...


class NetworksApi(Protocol):
    """The controller. Errors: NotFound("network x not found"), InvalidArgument, Conflict, SystemFailure."""

    def start(self) -> None:
        """Bring up the default networks (bridge, host, none), their links and rules."""
        ...

    def restore(self, running: Iterable[str]) -> None:
        """After a restart: keep the endpoints of these container ids, release those of all others."""
        ...

    def open_sandbox(self, request: SandboxRequest) -> Sandbox:
        """Make (or take from the pool) a namespace with the endpoints asked for, ready for use. All or nothing."""
        ...

    def close_sandbox(self, container_id: str) -> None:
        """Give back links and addresses of a container that ended. Idempotent."""
        ...

    def endpoints(self, container_id: str) -> tuple[Endpoint, ...]:
        """Return the endpoints a container has now."""
        ...

    def stop(self, *, remove: bool) -> None:
        """Empty the pools; with remove also take away bridge and rules (no container runs)."""
        ...
