"""The network "none": a namespace with a loopback link and nothing else."""

from __future__ import annotations

from collections.abc import Collection

from wherry.kernel.netlink.socket import NetlinkSocket
from wherry.network.api import Endpoint
from wherry.network.driver import Joined
from wherry.network.ipam.subnets import Subnet
from wherry.network.records import Attached, Network


class NullDriver:
    """Gives no links."""

    attachable = True

    def open(self, network: Network, avoid: Collection[Subnet] = ()) -> Network:
        """Nothing to bring up."""
        return network

    def mac(self, endpoint: Endpoint) -> str:
        """No link, no address."""
        return ""

    def attach(self, netlink: NetlinkSocket, network: Network, endpoint: Endpoint, netns_fd: int) -> Joined:
        """Make no link."""
        return Joined(endpoint)

    def expose(self, name: str) -> None:
        """Nothing leads to it."""

    def detach(self, netlink: NetlinkSocket, network: Network, ended: Collection[Attached]) -> None:
        """There are no links."""

    def sweep(self, netlink: NetlinkSocket, network: Network, keep: Collection[Attached]) -> None:
        """There are no links."""

    def close(self, network: Network, *, remove: bool) -> None:
        """Nothing to take down."""
