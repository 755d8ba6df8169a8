"""The network "none": a namespace with a loopback link and nothing else."""

from __future__ import annotations

from collections.abc import Collection

from wherry.kernel.netlink.socket import NetlinkSocket
from wherry.network.driver import Port
from wherry.network.ipam.subnets import Subnet
from wherry.network.records import Network


class NullDriver:
    """Gives no links."""

    attachable = True

    def open(self, network: Network, avoid: Collection[Subnet] = ()) -> Network:
        """Nothing to bring up."""
        return network

    def mac(self, network: Network, ipv4: str) -> str:
        """No link, no address."""
        return ""

    def attach(self, netlink: NetlinkSocket, network: Network, port: Port) -> str:
        """Make no link."""
        return ""

    def expose(self, name: str) -> None:
        """Nothing leads to it."""

    def detach(self, netlink: NetlinkSocket, links: Collection[str]) -> None:
        """There are no links."""

    def sweep(self, netlink: NetlinkSocket, network: Network, keep: Collection[str]) -> None:
        """There are no links."""

    def close(self, network: Network, *, remove: bool) -> None:
        """Nothing to take down."""
