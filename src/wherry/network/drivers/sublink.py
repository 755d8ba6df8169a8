"""What the drivers macvlan and ipvlan have in common: links that exist in a container's namespace alone.

There is nothing on the host but the parent, no address of ours, no rule and no published port: gateway and neighbours
are outside. A link ends with its namespace, so there is nothing to sweep after a crash but parents without a network,
which the engine does before it brings networks up.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from msgspec import structs

from wherry.kernel.netlink.claim import Claim
from wherry.kernel.netlink.socket import NetlinkSocket
from wherry.network import parents, sublinks
from wherry.network.driver import START, START_WAIT
from wherry.network.ipam import subnets
from wherry.network.records import Attached, Network

Others = Callable[[], Iterable[Network]]


class SublinkDriver:
    """The parent of a network, and its subnet. `attach` and `mac` are the kinds' own."""

    attachable = True

    def __init__(self, owner: str, space: subnets.AddressSpace, others: Others) -> None:
        """owner: of the parents that this engine makes. others: all networks there are."""
        self._owner = owner
        self._space = space
        self._others = others

    def open(self, network: Network, avoid: Collection[subnets.Subnet] = ()) -> Network:
        """Make the parent unless it is there, and choose a subnet where none was asked for."""
        with Claim(START, wait=START_WAIT), NetlinkSocket() as netlink:
            if network.ipv4 and not network.subnet:
                subnet, gateway = self._chosen(netlink, network, 4, avoid)
                network = structs.replace(network, subnet=subnet, gateway=gateway)
            if network.ipv6 and not network.subnet6:
                subnet, gateway = self._chosen(netlink, network, 6, avoid)
                network = structs.replace(network, subnet6=subnet, gateway6=gateway)
            parents.provide(netlink, network, self._owner)
        return network

    def _chosen(
        self, netlink: NetlinkSocket, network: Network, version: int, avoid: Collection[subnets.Subnet]
    ) -> tuple[str, str]:
        """Return a subnet and its gateway, "" where nobody asks one."""
        subnet = self._space.choose(version, [*subnets.taken(netlink), *avoid])
        return str(subnet), str(subnet.network_address + 1) if sublinks.has_gateway(network) else ""

    def expose(self, name: str) -> None:
        """The world reaches the containers by their own addresses."""

    def detach(self, netlink: NetlinkSocket, network: Network, ended: Collection[Attached]) -> None:
        """The links are in namespaces, which end, or which the engine takes them out of."""

    def sweep(self, netlink: NetlinkSocket, network: Network, keep: Collection[Attached]) -> None:
        """There are no links on the host."""

    def close(self, network: Network, *, remove: bool) -> None:
        """With remove take away a parent that we made, unless another network has it too."""
        if not remove:
            return
        name = sublinks.parent_of(network)
        shared = any(
            each.driver in sublinks.PREFIXES and each.id != network.id and sublinks.parent_of(each) == name
            for each in self._others()
        )
        if not shared:
            with NetlinkSocket() as netlink:
                parents.remove(netlink, network, self._owner)
