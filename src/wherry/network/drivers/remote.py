"""The driver of a plugin: who makes the links is another program, and the engine puts them into namespaces.

    open      CreateNetwork              once: a network that a plugin was told of is not announced again
    prepare   CreateEndpoint, Join       -> the name of a link on the host, how it is called inside, gateways, routes
    attach    the link is moved into the namespace and renamed
    program   ProgramExternalConnectivity
    detach    RevokeExternalConnectivity, Leave, DeleteEndpoint; told later, and again until it is heard
    close     DeleteNetwork

What a plugin says is done; what it leaves open is as in dockerd, but for one thing: where it gives no gateway, dockerd
puts the container into one more network (docker_gwbridge), and here it has no way out.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from msgspec import structs

from wherry.errors import EngineError, SystemFailure
from wherry.kernel.netlink import link
from wherry.kernel.netlink.socket import NetlinkSocket
from wherry.models.base import Model
from wherry.network import remotewire as wire
from wherry.network.announced import Told, forget_network, telling
from wherry.network.api import Endpoint, Route
from wherry.network.driver import Joined, Joining
from wherry.network.ipam.subnets import Subnet
from wherry.network.ports import PROTOCOLS, PortRequest
from wherry.network.records import Attached, Network
from wherry.network.requests import is_mac
from wherry.plugins.api import NETWORK, PluginFailed
from wherry.plugins.registry import Nothing

log = logging.getLogger(__name__)

Result = TypeVar("Result")
_PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,11}")
IN_ORDER = 2.0
"""Seconds that a new endpoint waits for the plugin to hear of those that have ended, which may have had its address."""


class RemoteDriver:
    """Driver of one network of a plugin."""

    attachable = True

    def __init__(self, name: str, told: Told) -> None:
        """name: of the plugin."""
        self.network_type = name
        self._told = told
        self._lock = threading.Lock()
        self._sources: dict[str, str] = {}
        self._programmed: set[str] = set()
        self._inherited: frozenset[str] = frozenset()

    def _call(self, method: str, request: Model | None, answer: type[Result]) -> Result:
        """Raises PluginFailed with dockerd's text, PluginSilent, NotFound."""
        plugin = self._told.plugins.get(self.network_type, NETWORK)
        try:
            return plugin.call(f"{NETWORK}.{method}", request, answer)
        except PluginFailed as error:
            if error.status == 200:
                raise PluginFailed(f"remote: {error.reason}", error.reason, 200) from error
            raise

    # Networks

    def open(self, network: Network, avoid: Collection[Subnet] = ()) -> Network:
        """Announce a network, unless the plugin has been told of it. Raises PluginFailed, Unavailable, NotFound."""
        if self._told.announced.has(network.id):
            return network
        scope = self._call("GetCapabilities", None, wire.Capabilities).scope
        if scope not in ("local", "global"):
            raise SystemFailure(f"invalid capability: expecting 'local' or 'global', got {scope}")
        self._told.announced.add(self.network_type, network.id)
        try:
            self._call("CreateNetwork", _new_network(network), Nothing)
        except EngineError as error:
            if isinstance(error, PluginFailed):
                self._told.announced.remove_network(network.id)
            else:  # nobody knows whether it has come so far
                self._forget_network(network.id)
            raise
        return structs.replace(network, scope=scope)

    def close(self, network: Network, *, remove: bool) -> None:
        """With remove have the plugin forget the network. One that does not answer keeps it: that is logged."""
        if not remove:
            return
        try:
            self._call("DeleteNetwork", wire.NetworkRef(network_id=network.id), Nothing)
        except PluginFailed as error:
            log.warning("driver error deleting network", extra={"network": network.name, "error": error.message})
        except EngineError as error:
            log.warning("a plugin has to be told again", extra={"network": network.name, "error": error.message})
            self._forget_network(network.id)
            return
        self._told.announced.remove_network(network.id)

    def _forget_network(self, network_id: str) -> None:
        forget_network(self._told, self.network_type, network_id)

    # Endpoints

    def mac(self, endpoint: Endpoint) -> str:
        """The plugin says."""
        return ""

    def prepare(self, network: Network, endpoint: Endpoint, joining: Joining) -> Endpoint:
        """Have the plugin make a link; returns the endpoint with all that it said of it.

        Raises PluginFailed, SystemFailure, Unavailable, NotFound. `detach` undoes it, whether it failed or not.
        """
        self._told.errands.drained(network.id, IN_ORDER)
        self._told.announced.add(self.network_type, network.id, endpoint.endpoint_id)
        ref = {"network_id": network.id, "endpoint_id": endpoint.endpoint_id}
        options = _ports(joining.ports)
        name = (endpoint.names or (endpoint.endpoint_id[:12],))[0]
        with telling(f"failed to create endpoint {name} on network {network.name}: "):
            request = wire.NewEndpoint(**ref, interface=_interface(endpoint), options=options)
            made = self._call("CreateEndpoint", request, wire.MadeEndpoint)
            endpoint = _completed(endpoint, made.interface or wire.Interface())
        with telling():
            request_ = wire.JoinRequest(**ref, sandbox_key=joining.sandbox_key, options=options)
            answer = self._call("Join", request_, wire.JoinAnswer)
            names = answer.interface_name
            if names is None or not names.src_name:
                raise SystemFailure(f"plugin {self.network_type} names no interface (InterfaceName.SrcName)")
            name = _free(names.dst_prefix or "eth", joining.taken)
            endpoint = replace(_joined(endpoint, answer), interface=name)
        with self._lock:
            self._sources[endpoint.endpoint_id] = names.src_name
        return endpoint

    def attach(self, netlink: NetlinkSocket, network: Network, endpoint: Endpoint, netns_fd: int) -> Joined:
        """Move the link of an endpoint that `prepare` returned into a namespace."""
        with self._lock:
            source = self._sources.pop(endpoint.endpoint_id, "")
        found = link.find_link(netlink, source) if source else None
        if found is None:
            raise SystemFailure(
                f"failed to set up container networking: failed to add interface {source} to sandbox: "
                f'failed to get link by name "{source}": Link not found'
            )
        netlink.apply(link.set_attributes(found.index, link.moved(netns_fd), link.renamed(endpoint.interface)))
        if endpoint.mac and endpoint.mac != found.mac:
            with NetlinkSocket() as inner:  # the thread is in the namespace
                inner.apply(link.set_attributes(endpoint.interface, link.address(endpoint.mac)))
        return Joined(replace(endpoint, mac=endpoint.mac or found.mac), returns=source)

    def program(self, network: Network, endpoint: Endpoint, ports: Sequence[PortRequest]) -> None:
        """Tell the plugin that the way out of a container is here, and what leads in. Raises as `prepare`."""
        with self._lock:
            self._programmed.add(endpoint.endpoint_id)
        request = wire.EndpointRequest(
            network_id=network.id, endpoint_id=endpoint.endpoint_id, options=_ports(tuple(ports))
        )
        with telling():
            self._call_known("ProgramExternalConnectivity", request)

    def _call_known(self, method: str, request: Model) -> None:
        """Call a method that came later than the first plugins."""
        try:
            self._call(method, request, Nothing)
        except PluginFailed as error:
            if not error.unknown:
                raise

    def expose(self, name: str) -> None:
        """The plugin does that."""

    def detach(self, netlink: NetlinkSocket, network: Network, ended: Collection[Attached]) -> None:
        """Have the plugin told that endpoints have ended."""
        for each in ended:
            with self._lock:
                self._sources.pop(each.endpoint.endpoint_id, None)
            if self._told.announced.has(network.id, each.endpoint.endpoint_id):
                self._part(network, each.endpoint.endpoint_id)

    def _part(self, network: Network, endpoint_id: str) -> None:
        done = partial(self._told.announced.remove, network.id, endpoint_id)
        what = f"endpoint {endpoint_id[:12]} of network {network.name} has ended"
        self._told.errands.submit(network.id, what, partial(self._tell_of_end, network, endpoint_id), done)

    def _tell_of_end(self, network: Network, endpoint_id: str) -> None:
        """What the plugin refuses is logged, and no reason to leave the rest undone."""
        ref = wire.EndpointRef(network_id=network.id, endpoint_id=endpoint_id)
        with self._lock:
            programmed = endpoint_id in self._programmed or endpoint_id in self._inherited
        for method in (*(("RevokeExternalConnectivity",) if programmed else ()), "Leave", "DeleteEndpoint"):
            try:
                self._call_known(method, ref)
            except PluginFailed as error:
                log.warning("a plugin refuses", extra={"method": method, "error": error.message})
        with self._lock:
            self._programmed.discard(endpoint_id)

    def sweep(self, netlink: NetlinkSocket, network: Network, keep: Collection[Attached]) -> None:
        """Have the plugin told of all endpoints that an engine before has announced and nobody has any more."""
        known = self._told.announced.endpoints(network.id)
        kept = {each.endpoint.endpoint_id for each in keep}
        with self._lock:
            self._inherited = frozenset(known)  # which of them are the way out of a container is not known any more
        for endpoint_id in known:
            if endpoint_id not in kept:
                self._part(network, endpoint_id)


def _new_network(network: Network) -> wire.NewNetwork:
    options: dict[str, Any] = {
        wire.ENABLE4: network.ipv4,
        wire.ENABLE6: network.ipv6,
        wire.GENERIC: dict(network.options),
    }
    if network.internal:
        options[wire.INTERNAL] = True
    space = "LocalDefault"
    families = (
        (network.subnet, network.gateway, network.auxiliary),
        (network.subnet6, network.gateway6, network.auxiliary6),
    )
    data4, data6 = ([_data(space, *each)] if each[0] else [] for each in families)
    return wire.NewNetwork(network_id=network.id, options=options, ipv4_data=data4, ipv6_data=data6)


def _data(space: str, subnet: str, gateway: str, auxiliary: Mapping[str, str]) -> wire.AddressData:
    length = subnet.partition("/")[2]
    return wire.AddressData(
        address_space=space,
        pool=subnet,
        gateway=f"{gateway}/{length}" if gateway else "",
        aux_addresses={name: f"{address}/{length}" for name, address in auxiliary.items()},
    )


def _interface(endpoint: Endpoint) -> wire.Interface:
    return wire.Interface(
        address=f"{endpoint.ipv4}/{endpoint.ipv4_prefix}" if endpoint.ipv4 else "",
        address_ipv6=f"{endpoint.ipv6}/{endpoint.ipv6_prefix}" if endpoint.ipv6 else "",
        mac_address=endpoint.mac,
    )


def _ports(asked: Sequence[PortRequest]) -> dict[str, Any]:
    exposed = [{"Proto": PROTOCOLS[each.protocol], "Port": each.port} for each in asked]
    mapped = [
        {
            "Proto": PROTOCOLS[each.protocol],
            "IP": "",
            "Port": each.port,
            "HostIP": each.address,
            "HostPort": each.first,
            "HostPortEnd": each.last or each.first,
        }
        for each in asked
    ]
    return {wire.EXPOSED: exposed, wire.PORT_MAP: mapped}


def _completed(endpoint: Endpoint, said: wire.Interface) -> Endpoint:
    """Return an endpoint with what the plugin adds. It may add what was open and change nothing."""
    if said.mac_address:
        if endpoint.mac:
            raise SystemFailure(
                f"driver modified interface MAC address: endpoint interface MAC present ({endpoint.mac}). "
                f"Cannot be modified with {said.mac_address}."
            )
        if not is_mac(said.mac_address):
            raise SystemFailure(f"address {said.mac_address}: invalid MAC address")
        endpoint = replace(endpoint, mac=said.mac_address.lower())
    for text, version in ((said.address, 4), (said.address_ipv6, 6)):
        if text:
            endpoint = _with_address(endpoint, text, version)
    return endpoint


def _with_address(endpoint: Endpoint, text: str, version: int) -> Endpoint:
    try:
        given = ipaddress.ip_interface(text if "/" in text else "")
    except ValueError:
        raise SystemFailure(f"invalid CIDR address: {text}") from None
    if given.version != version:
        raise SystemFailure(f"invalid IPv{version} address: {text}")
    has = endpoint.ipv4 if version == 4 else endpoint.ipv6
    if has:
        length = endpoint.ipv4_prefix if version == 4 else endpoint.ipv6_prefix
        raise SystemFailure(
            f"driver modified interface address: endpoint interface IP present ({has}/{length}). "
            f"Cannot be modified with ({text})."
        )
    if version == 4:
        return replace(endpoint, ipv4=str(given.ip), ipv4_prefix=given.network.prefixlen)
    return replace(endpoint, ipv6=str(given.ip), ipv6_prefix=given.network.prefixlen)


def _joined(endpoint: Endpoint, answer: wire.JoinAnswer) -> Endpoint:
    """Return an endpoint with the ways that the plugin gives; none of ours, as its gateway is the plugin's affair."""
    gateway4, gateway6 = _gateway(answer.gateway, 4), _gateway(answer.gateway_ipv6, 6)
    routes = []
    for each in map(_route, answer.static_routes or ()):
        if each.next_hop and each.destination == "0.0.0.0/0":
            gateway4 = gateway4 or each.next_hop
        elif each.next_hop and each.destination == "::/0":
            gateway6 = gateway6 or each.next_hop
        else:
            routes.append(each)
    return replace(endpoint, gateway4=gateway4, gateway6=gateway6, routes=tuple(routes))


def _gateway(text: str, version: int) -> str:
    name = "Gateway" if version == 4 else "GatewayIPv6"
    try:
        given = ipaddress.ip_address(text) if text else None
    except ValueError:
        given = None
    if text and (given is None or given.version != version):
        raise SystemFailure(f'unable to parse {name} "{text}"')
    return str(given) if given is not None else ""


def _route(said: wire.StaticRoute) -> Route:
    try:
        destination = ipaddress.ip_network(said.destination if "/" in said.destination else "", strict=False)
    except ValueError:
        raise SystemFailure(f"invalid CIDR address: {said.destination}") from None
    if said.route_type == wire.CONNECTED:
        return Route(str(destination))
    try:
        hop = ipaddress.ip_address(said.next_hop)
    except ValueError:
        raise SystemFailure(f"failed to parse nexthop IP {said.next_hop}") from None
    if hop.version != destination.version or said.route_type != wire.NEXT_HOP:
        raise SystemFailure(f"failed to set static route: {said.destination} via {said.next_hop}")
    return Route(str(destination), str(hop))


def _free(prefix: str, taken: Collection[str]) -> str:
    """Return the first name of a link that nobody in the sandbox has."""
    if not _PREFIX.fullmatch(prefix):
        raise SystemFailure(f"failed to set interface name: invalid prefix {prefix[:80]!r}")
    return next(name for number in range(len(taken) + 1) if (name := f"{prefix}{number}") not in taken)
