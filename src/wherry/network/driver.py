"""What a network driver does: keep a network's links on the host, and put an end of one into a namespace.

    open(network)    bring the network up, or take up what is there after a crash; returns it with what was chosen,
                     a subnet for instance, which overlaps none of `avoid`
    mac(endpoint)    the MAC address of an endpoint that asks for none
    attach(...)      make the link of one endpoint; its end in the namespace is down and has its final name and MAC
    expose(link)     let published ports of a container be reached from 127.0.0.1 and from the container itself
    detach(...)      take links of endpoints away and return when they are gone, so that their addresses are free
    sweep(...)       after a crash: take away the links that belong to no container
    close(network)   with remove, take everything off the host again

Addresses, routes and sysctls inside of the namespace are the same for all drivers and are the controller's part, which
also gives out the addresses. A driver knows nothing of containers, and drivers know nothing of each other; choice.py
names them. All methods block and raise OSError or an EngineError.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from wherry.kernel.netlink.socket import NetlinkSocket
from wherry.network.api import Endpoint
from wherry.network.ipam.subnets import Subnet
from wherry.network.ports import PortRequest
from wherry.network.records import Attached, Network

START = "wherry start"
START_WAIT = 20.0
"""The claim under which the engines of a machine choose subnets and names in turn; seconds to wait for it."""


@dataclass(frozen=True, slots=True)
class Joined:
    """What `attach` made: the endpoint, with what the driver decided, and the name of its link on the host.

    host_link "": there is nothing on the host; the link is in the namespace alone and ends with it. returns: under
    which name it goes back to the host when its endpoint ends before the namespace.
    """

    endpoint: Endpoint
    host_link: str = ""
    returns: str = ""


@dataclass(frozen=True, slots=True)
class Joining:
    """What is known of a sandbox before an endpoint is in it: a path of its namespace, the names of the links that it
    has, the ports to be published, and the name of the endpoint's link, "" where it is to be chosen.
    """

    sandbox_key: str
    taken: tuple[str, ...] = ()
    ports: tuple[PortRequest, ...] = ()
    interface: str = ""


class Driver(Protocol):
    """One kind of network."""

    @property
    def attachable(self) -> bool:
        """Whether endpoints in namespaces are possible at all (host: no)."""
        ...

    def open(self, network: Network, avoid: Collection[Subnet] = ()) -> Network: ...
    def mac(self, endpoint: Endpoint) -> str: ...
    def attach(self, netlink: NetlinkSocket, network: Network, endpoint: Endpoint, netns_fd: int) -> Joined: ...
    def expose(self, name: str) -> None: ...
    def detach(self, netlink: NetlinkSocket, network: Network, ended: Collection[Attached]) -> None: ...
    def sweep(self, netlink: NetlinkSocket, network: Network, keep: Collection[Attached]) -> None: ...
    def close(self, network: Network, *, remove: bool) -> None: ...


@runtime_checkable
class Asking(Driver, Protocol):
    """A driver that asks somebody who may take time: a plugin.

        prepare(...)   ask before `attach`, in a thread that nobody else waits for; the endpoint comes back complete
        program(...)   tell that an endpoint is the way out of its container, and which ports are to lead there
        network_type   the name of the plugin

    Its `detach`, `sweep` and `close` without `remove` do not wait for the plugin; `open` and `close` may.
    """

    network_type: str

    def prepare(self, network: Network, endpoint: Endpoint, joining: Joining) -> Endpoint: ...
    def program(self, network: Network, endpoint: Endpoint, ports: Sequence[PortRequest]) -> None: ...
