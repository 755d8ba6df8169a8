"""What the engine knows of a network that is looked at: names for what the kernel has, and what was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class AskedMember:
    """A running container in the network. addresses: "IP/PREFIX" of each family that it was given."""

    id: str
    name: str
    pid: int
    start_time: int
    interface: str = ""
    mac: str = ""
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AskedPort:
    """A published port. address: "" for every one of the host, of the family of to_address."""

    container: str
    protocol: str
    address: str
    port: int
    to_address: str
    to_port: int


@dataclass(frozen=True, slots=True)
class NetworkSubject:
    """bridge, parent: names of links, "" where the driver has none. gateways: addresses of the bridge, "IP/PREFIX".

    masquerade, open, routed: the families (4, 6) in which packets leave with the host's address, in which containers
    may be reached from outside without a published port, and in which a published port is reached at the container's
    own address. trusted: links from which they may be reached as well. others: other bridges of the engine, with the
    name of their network.
    """

    id: str
    name: str
    driver: str
    scope: str = "local"
    internal: bool = False
    bridge: str = ""
    parent: str = ""
    subnets: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    masquerade: tuple[int, ...] = (4, 6)
    icc: bool = True
    open: tuple[int, ...] = ()
    routed: tuple[int, ...] = ()
    trusted: tuple[str, ...] = ()
    members: tuple[AskedMember, ...] = ()
    ports: tuple[AskedPort, ...] = ()
    others: Mapping[str, str] = field(default_factory=dict)
