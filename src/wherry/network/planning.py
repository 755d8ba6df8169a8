"""From what a container asks of networks to endpoints that can be made: addresses are taken and plugins asked.

All that may take time happens here, in the thread of the one who wants it. What comes after, in the workshop that all
share, only makes links.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from wherry.errors import NotFound
from wherry.network import endpointoptions, options
from wherry.network.api import Endpoint, EndpointRequest
from wherry.network.directory import Directory, Entry
from wherry.network.driver import Asking, Joining
from wherry.network.records import Attached, Network, new_id
from wherry.network.sandbox import Plan

Discard = Callable[[Sequence[Attached]], None]
"""Takes endpoints that come to nothing, with what was taken and announced for them."""


def nowhere(network: Network) -> Endpoint:
    """Return an endpoint without a link or an address."""
    return Endpoint(network.id, network.name, new_id(), interface="", mac="")


def plans(
    directory: Directory, container: str, asked: Sequence[EndpointRequest], joining: Joining, discard: Discard
) -> list[Plan]:
    """Return the plan of a sandbox's endpoints, all or none; the first by priority and name gets eth0.

    Raises NotFound, InvalidArgument (a name of an interface), Conflict (an address), SystemFailure, Unavailable (a
    plugin).
    """
    made: list[Plan] = []
    try:
        asked = sorted(asked, key=lambda request: (-request.gw_priority, request.network))
        for each, interface in zip(asked, _interfaces(directory, asked, joining), strict=True):
            taken = tuple(other.endpoint.interface for other in made)
            known = replace(joining, taken=(*joining.taken, *taken), interface=interface)
            made.append(plan(directory, container, each, known, discard))
    except BaseException:
        discard([Attached(each.endpoint, "") for each in made])
        raise
    return made


def _interfaces(directory: Directory, asked: Sequence[EndpointRequest], joining: Joining) -> list[str]:
    prefixes = [directory.named(each.network).options.get(options.IFACE_PREFIX, "") or "eth" for each in asked]
    wanted = [(each.driver_opts, prefix) for each, prefix in zip(asked, prefixes, strict=True)]
    return endpointoptions.interfaces(wanted, joining.taken)


def plan(
    directory: Directory, container: str, asked: EndpointRequest, joining: Joining, discard: Discard
) -> Plan:
    """Return the plan of one endpoint. Raises as `plans`."""
    network = directory.named(asked.network)
    entry = directory.get(network.id)
    if entry is None:
        raise NotFound(f"network {network.name} not found")
    interface = joining.interface or _interfaces(directory, [asked], joining)[0]
    endpoint = replace(_addressed(entry, asked, container), gw_priority=asked.gw_priority)
    if not endpoint.ipv4 and not endpoint.ipv6:
        return Plan(entry.driver, network, nowhere(network))
    names, links = ((), ()) if network.predefined else (asked.names, asked.links)
    mac = asked.mac.lower() or entry.driver.mac(endpoint)
    endpoint = replace(endpoint, names=names, links=links, link_local=asked.link_local)
    endpoint = replace(endpoint, interface=interface, mac=mac)
    if isinstance(entry.driver, Asking):
        try:
            endpoint = entry.driver.prepare(network, endpoint, joining)
        except BaseException:
            discard([Attached(endpoint, "")])
            raise
    return Plan(entry.driver, network, endpoint, endpointoptions.sysctls(asked.driver_opts, endpoint.interface))


def _addressed(entry: Entry, asked: EndpointRequest, container: str) -> Endpoint:
    """Return an endpoint with the addresses that it gets, which are taken now: all or none.

    An IPv6 address that nobody asks for is the one with the place of the IPv4 address, as long as it is free.
    """
    network, endpoint = entry.network, nowhere(entry.network)
    if entry.pool is not None:
        ipv4 = entry.pool.reserve(asked.ipv4, container) if asked.ipv4 else entry.pool.allocate(container)
        gateway4 = "" if network.internal else network.router
        endpoint = replace(endpoint, ipv4=ipv4, ipv4_prefix=entry.pool.prefix, gateway4=gateway4)
    if entry.pool6 is None:
        return endpoint
    try:
        if asked.ipv6:
            ipv6 = entry.pool6.reserve(asked.ipv6, container)
        else:
            offset = entry.pool.offset(endpoint.ipv4) if entry.pool is not None else 0
            ipv6 = entry.pool6.allocate(container, offset=offset)
    except BaseException:
        entry.release([endpoint])
        raise
    gateway6 = "" if network.internal else network.router6
    return replace(endpoint, ipv6=ipv6, ipv6_prefix=entry.pool6.prefix, gateway6=gateway6)
