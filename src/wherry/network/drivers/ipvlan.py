"""The driver "ipvlan": each container has a link with an address of its own, and the MAC address of the parent.

    l2     neighbours and gateway are those of the parent's network
    l3     the parent routes, in the host's namespace; containers have no gateway, no ARP and no broadcast
    l3s    as l3, and the host's netfilter sees the packets

ipvlan_flag is for l2, as of Linux 4.15: "bridge" lets containers of a parent reach each other, "private" does not, and
"vepa" leaves it to a switch outside. The host itself is reached in no mode (Documentation/networking/ipvlan.rst).
"""

from __future__ import annotations

from dataclasses import replace

from wherry.errors import InvalidArgument
from wherry.kernel.netlink import link
from wherry.kernel.netlink.socket import NetlinkSocket
from wherry.network import parents
from wherry.network.api import Endpoint, Route
from wherry.network.driver import Joined
from wherry.network.drivers.sublink import SublinkDriver
from wherry.network.records import Network
from wherry.network.sublinks import flag_of, mode_of

DEFAULT_ROUTES = (Route("0.0.0.0/0"), Route("::/0"))
"""Everything is reached by the link itself."""


class IpvlanDriver(SublinkDriver):
    """Driver of one network."""

    def mac(self, endpoint: Endpoint) -> str:
        """The link has its parent's, which is not shown as the container's."""
        return ""

    def attach(self, netlink: NetlinkSocket, network: Network, endpoint: Endpoint, netns_fd: int) -> Joined:
        """Make a link in a namespace."""
        if endpoint.mac:
            name = (endpoint.names or (endpoint.endpoint_id[:12],))[0]
            raise InvalidArgument(
                f"failed to set up container networking: failed to create endpoint {name} on network {network.name}: "
                "ipvlan interfaces do not support custom mac address assignment"
            )
        parent = parents.find(netlink, network)
        request = link.new_ipvlan(endpoint.interface, parent.index, mode_of(network), flag_of(network), netns_fd)
        try:
            netlink.apply(request)
        except OSError as error:
            why = parents.reason(error, "ipvlan")
            raise OSError(error.errno, f"failed to create the ipvlan port: {why}") from error
        return Joined(self._routed(network, endpoint))

    def _routed(self, network: Network, endpoint: Endpoint) -> Endpoint:
        """Return the endpoint with its way out, which is the link itself where no router is asked."""
        if network.internal or mode_of(network) == "l2":
            return endpoint
        has = (endpoint.ipv4, endpoint.ipv6)
        routes = tuple(route for route, address in zip(DEFAULT_ROUTES, has, strict=True) if address)
        return replace(endpoint, gateway4="", gateway6="", routes=routes)
