"""The network "host": the host's own namespace. Containers in it have no sandbox, so it has no endpoints."""

from __future__ import annotations

from collections.abc import Collection

from wherry.errors import InvalidArgument
from wherry.kernel.netlink.socket import NetlinkSocket
from wherry.network.api import Endpoint
from wherry.network.driver import Joined
from wherry.network.ipam.subnets import Subnet
from wherry.network.records import Attached, Network


class HostDriver:
    """Refuses endpoints."""

    attachable = False

    def open(self, network: Network, avoid: Collection[Subnet] = ()) -> Network:
        """Nothing to bring up."""
        return network

    def mac(self, endpoint: Endpoint) -> str:
        """No link, no address."""
        return ""

    def attach(self, netlink: NetlinkSocket, network: Network, endpoint: Endpoint, netns_fd: int) -> Joined:
        """Raise InvalidArgument: a container with a namespace of its own cannot be in the host's."""
        raise InvalidArgument("container cannot be connected to host network: it has a network namespace of its own")

    def expose(self, name: str) -> None:
        """There are no containers of ours in it with a way in."""

    def detach(self, netlink: NetlinkSocket, network: Network, ended: Collection[Attached]) -> None:
        """There are no links."""

    def sweep(self, netlink: NetlinkSocket, network: Network, keep: Collection[Attached]) -> None:
        """There are no links."""

    def close(self, network: Network, *, remove: bool) -> None:
        """Nothing to take down."""
