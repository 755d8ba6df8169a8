"""The bodies of libnetwork's protocols for network and address plugins, with the names that they have on the wire.

https://github.com/moby/moby/blob/master/libnetwork/docs/remote.md and ipam.md. A plugin may not know what is marked ?.

    NetworkDriver.GetCapabilities               -> Capabilities
    NetworkDriver.CreateNetwork NewNetwork       DeleteNetwork NetworkRef
    NetworkDriver.CreateEndpoint NewEndpoint    -> MadeEndpoint          DeleteEndpoint EndpointRef
    NetworkDriver.Join JoinRequest              -> JoinAnswer            Leave EndpointRef
    NetworkDriver.ProgramExternalConnectivity ? EndpointRequest          RevokeExternalConnectivity ? EndpointRef
    IpamDriver.GetCapabilities ?                -> IpamCapabilities      GetDefaultAddressSpaces -> AddressSpaces
    IpamDriver.RequestPool PoolRequest          -> PoolAnswer            ReleasePool PoolRef
    IpamDriver.RequestAddress AddressRequest    -> AddressAnswer         ReleaseAddress AddressRef
"""

from __future__ import annotations

from typing import Any

from msgspec import field

from wherry.models.base import Model

GENERIC = "com.docker.network.generic"
INTERNAL = "com.docker.network.internal"
ENABLE4, ENABLE6 = "com.docker.network.enable_ipv4", "com.docker.network.enable_ipv6"
PORT_MAP = "com.docker.network.portmap"
EXPOSED = "com.docker.network.endpoint.exposedports"
ADDRESS_TYPE, GATEWAY = "RequestAddressType", "com.docker.network.gateway"
MAC = "com.docker.network.endpoint.macaddress"

NEXT_HOP, CONNECTED = 0, 1
"""Kinds of routes."""


class Capabilities(Model, frozen=True):
    """What a network plugin is."""

    scope: str = ""
    connectivity_scope: str = ""


class AddressData(Model, frozen=True, omit_defaults=True):
    """One subnet of a network; gateway and auxiliary addresses have the length of the prefix behind them."""

    address_space: str = ""
    pool: str = ""
    gateway: str = ""
    aux_addresses: dict[str, str] = field(default_factory=dict)


class NewNetwork(Model, frozen=True):
    """A network that is made."""

    network_id: str = field(name="NetworkID")
    options: dict[str, Any] = field(default_factory=dict)
    ipv4_data: list[AddressData] = field(default_factory=list, name="IPv4Data")
    ipv6_data: list[AddressData] = field(default_factory=list, name="IPv6Data")


class NetworkRef(Model, frozen=True):
    """A network."""

    network_id: str = field(name="NetworkID")


class EndpointRef(Model, frozen=True):
    """An endpoint."""

    network_id: str = field(name="NetworkID")
    endpoint_id: str = field(name="EndpointID")


class Interface(Model, frozen=True):
    """The addresses of an endpoint's link, with the lengths of their prefixes."""

    address: str = ""
    address_ipv6: str = field(default="", name="AddressIPv6")
    mac_address: str = ""


class NewEndpoint(EndpointRef, frozen=True):
    """An endpoint that is made, with the addresses that it has already."""

    interface: Interface
    options: dict[str, Any] = field(default_factory=dict)


class MadeEndpoint(Model, frozen=True):
    """What the plugin adds to an endpoint."""

    interface: Interface | None = None


class JoinRequest(EndpointRef, frozen=True):
    """An endpoint that comes into a sandbox."""

    sandbox_key: str
    options: dict[str, Any] = field(default_factory=dict)


class EndpointRequest(EndpointRef, frozen=True):
    """Something about an endpoint."""

    options: dict[str, Any] = field(default_factory=dict)


class InterfaceName(Model, frozen=True):
    """The link to move, and how its name begins in the sandbox."""

    src_name: str = ""
    dst_name: str = ""
    dst_prefix: str = ""


class StaticRoute(Model, frozen=True):
    """A route for an endpoint's link."""

    destination: str = ""
    route_type: int = NEXT_HOP
    next_hop: str = ""


class JoinAnswer(Model, frozen=True):
    """What to do in the sandbox."""

    interface_name: InterfaceName | None = None
    gateway: str = ""
    gateway_ipv6: str = field(default="", name="GatewayIPv6")
    static_routes: list[StaticRoute] | None = None
    disable_gateway_service: bool = False


class IpamCapabilities(Model, frozen=True):
    """What an address plugin needs."""

    requires_mac_address: bool = field(default=False, name="RequiresMACAddress")


class AddressSpaces(Model, frozen=True):
    """Where a plugin's pools are when nobody says."""

    local_default_address_space: str = ""
    global_default_address_space: str = ""


class PoolRequest(Model, frozen=True):
    """A subnet that is wanted; "" for any."""

    address_space: str
    pool: str = ""
    sub_pool: str = ""
    options: dict[str, str] = field(default_factory=dict)
    v6: bool = False


class PoolAnswer(Model, frozen=True):
    """A subnet, and by what it is called from now on."""

    pool_id: str = field(default="", name="PoolID")
    pool: str = ""


class PoolRef(Model, frozen=True):
    """A subnet."""

    pool_id: str = field(name="PoolID")


class AddressRequest(PoolRef, frozen=True):
    """An address that is wanted; "" for any."""

    address: str = ""
    options: dict[str, str] | None = None


class AddressAnswer(Model, frozen=True):
    """An address with the length of its prefix."""

    address: str = ""


class AddressRef(PoolRef, frozen=True):
    """An address."""

    address: str
