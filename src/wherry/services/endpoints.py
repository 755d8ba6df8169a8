"""A container's endpoints: what its record asks of networks, as networking and as clients see it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import structs, to_builtins

from wherry.containers.record import Record
from wherry.errors import InvalidArgument, NotFound
from wherry.models.container import EndpointIPAMConfig, EndpointSettings, NetworkingConfig
from wherry.network.api import Endpoint, EndpointRequest
from wherry.network.controller import Networks
from wherry.network.records import PREDEFINED
from wherry.network.requests import NO_OWN_ADDRESS
from wherry.services import links

Json = dict[str, Any]

SHORT_ID = 12
SHARED = "container sharing network namespace with another container or host cannot be connected to any other network"
TO_HOST = "cannot connect container to host network - container must be created in host network mode"
PRIVATE = "container cannot be connected to multiple networks with one of the networks in private (none) mode"


def dns_names(record: Record, aliases: tuple[str, ...]) -> tuple[str, ...]:
    """Return what a container is called in a network of the user, without repetitions, in dockerd's order."""
    return tuple(dict.fromkeys((record.name, *aliases, record.id[:SHORT_ID], record.config.hostname)))


def request(record: Record, network: str, settings: EndpointSettings | None) -> EndpointRequest:
    """Return what a container asks of one network; raises InvalidArgument."""
    asked = settings or EndpointSettings()
    addresses = asked.ipam_config or EndpointIPAMConfig()
    for each in asked.links or ():
        links.check(each)
    aliases = tuple(asked.aliases or ())
    return EndpointRequest(
        network=network,
        ipv4=addresses.ipv4_address,
        ipv6=addresses.ipv6_address,
        mac=asked.mac_address,
        aliases=aliases,
        names=() if network in PREDEFINED else dns_names(record, aliases),
        driver_opts=asked.driver_opts or {},
        gw_priority=asked.gw_priority,
        links=tuple(asked.links or ()),
        link_local=tuple(addresses.link_local_ips or ()),
    )


def requests(record: Record) -> tuple[EndpointRequest, ...]:
    """Return what the container asks of each network; nothing for one that has no network of its own."""
    if not record.host_config.in_networks:
        return ()
    return tuple(request(record, name, each) for name, each in (record.networking.endpoints_config or {}).items())


def wanted(asked: NetworkingConfig, mode: str, mac: str, networks: Networks) -> NetworkingConfig:
    """Return the endpoints of a new container by network name, that of its mode first.

    mac: the container's own MAC address, which is that of its first endpoint. Raises InvalidArgument.
    """
    if mode.startswith("container:"):
        for ref, settings in (asked.endpoints_config or {}).items():
            _check_shared(ref, settings)
        return NetworkingConfig()
    given: dict[str, EndpointSettings] = {}
    for ref, settings in (asked.endpoints_config or {}).items():
        name = _name(ref, networks)
        if name in given:
            raise InvalidArgument(f"network {name} is given twice")
        given[name] = settings or EndpointSettings()
    first = _name(mode, networks)
    own = given.pop(first, EndpointSettings())
    if mac and own.mac_address and mac.lower() != own.mac_address.lower():
        raise InvalidArgument(
            "the container-wide MAC address must match the endpoint-specific MAC address for the main network, "
            "or be left empty"
        )
    if mac:
        own = structs.replace(own, mac_address=mac)
    _check_company(first, given)
    return NetworkingConfig(endpoints_config={first: own, **given})


def _check_shared(ref: str, settings: EndpointSettings | None) -> None:
    """Raise InvalidArgument for an address of a container that has none of its own."""
    addresses = settings.ipam_config if settings else None
    if addresses and (addresses.ipv4_address or addresses.ipv6_address):
        raise InvalidArgument(f"invalid config for network {ref}: invalid endpoint settings:\n{NO_OWN_ADDRESS}")


def _check_company(mode: str, others: Mapping[str, EndpointSettings]) -> None:
    """Raise InvalidArgument for networks that exclude each other."""
    if others and mode == "host":
        raise InvalidArgument(SHARED)
    if "host" in others:
        raise InvalidArgument(TO_HOST)
    if "none" in others or (others and mode == "none"):
        raise InvalidArgument(PRIVATE)


def _name(ref: str, networks: Networks) -> str:
    """Return a network's name; never a 404, which at create means "no such image" to the docker CLI."""
    if ref in ("bridge", "default"):
        return "bridge"  # also where there is no default bridge: the start says so
    try:
        return networks.resolve(ref).name
    except NotFound as error:
        raise InvalidArgument(f"failed to set up container networking: {error.message}") from error


def with_endpoint(record: Record, name: str, settings: EndpointSettings | None) -> Record:
    """Return the record with one endpoint more."""
    held = record.networking.endpoints_config or {}
    return structs.replace(record, networking=NetworkingConfig(endpoints_config={**held, name: settings}))


def without_endpoint(record: Record, name: str) -> Record:
    """Return the record without an endpoint."""
    rest = {key: value for key, value in (record.networking.endpoints_config or {}).items() if key != name}
    return structs.replace(record, networking=NetworkingConfig(endpoints_config=rest))


def shown(record: Record, networks: Networks) -> dict[str, Json]:
    """Return the endpoints by network name: what was asked for, and what the container got while it runs."""
    live = {each.network_name: each for each in networks.endpoints(record.id)}
    answer = {}
    for name, settings in (record.networking.endpoints_config or {}).items():
        wire: Json = to_builtins(settings or EndpointSettings())
        wire["MacAddress"] = "" if name not in live else live[name].mac
        if name in live:
            wire |= _live(live[name])
        elif record.state.started_at or record.state.error:
            wire |= _ended(record, name, networks)
        answer[name] = wire
    return answer


def chosen_mac(record: Record) -> str:
    """Return the MAC address that was asked for in the network of the container's mode, "" for none."""
    settings = (record.networking.endpoints_config or {}).get(record.host_config.network_mode)
    return settings.mac_address if settings is not None else ""


def _live(endpoint: Endpoint) -> Json:
    return {
        "NetworkID": endpoint.network_id,
        "EndpointID": endpoint.endpoint_id,
        "Gateway": endpoint.gateway4,
        "IPAddress": endpoint.ipv4,
        "IPPrefixLen": endpoint.ipv4_prefix,
        "IPv6Gateway": endpoint.gateway6,
        "GlobalIPv6Address": endpoint.ipv6,
        "GlobalIPv6PrefixLen": endpoint.ipv6_prefix,
        "DNSNames": list(endpoint.names) or None,
    }


def _ended(record: Record, name: str, networks: Networks) -> Json:
    """Return what is still shown of a container that ran: where it was and what it was called there."""
    try:
        network = networks.resolve(name)
    except NotFound:
        return {}
    settings = (record.networking.endpoints_config or {}).get(name) or EndpointSettings()
    names = () if network.predefined else dns_names(record, tuple(settings.aliases or ()))
    return {"NetworkID": network.id, "DNSNames": list(names) or None}
