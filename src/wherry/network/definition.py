"""From a request to the record of a new network. PURE. The texts are dockerd's.

What is only a mistake here is found before anything is made; whether a subnet is free, only the controller knows.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterator

from msgspec import structs

from wherry.errors import Forbidden, InvalidArgument, NotFound, NotImplementedHere
from wherry.models.network import CreateNetwork, Ipam, IpamPool
from wherry.network import options, sublinks
from wherry.network.records import PREDEFINED, Network, new_id

NO_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm '
    "and try again."
)


def define(asked: CreateNetwork) -> Network:
    """Return the record of a network; its subnet and gateway are "" where the engine may choose.

    Raises InvalidArgument, Forbidden, NotFound (no such driver) and NotImplementedHere.
    """
    _check_name(asked.name)
    _check_kind(asked)
    driver = _driver(asked.driver)
    _check_families(asked)
    ipam = asked.ipam or Ipam()
    if ipam.driver not in ("", "default"):
        raise NotFound(f'plugin "{ipam.driver}" not found')
    pools = tuple(ipam.config or ())
    complaints = [complaint for pool in pools for complaint in _complaints(pool)]
    if complaints:
        raise InvalidArgument("invalid network config:\n" + joined(complaints))
    if len(pools) > 1:
        raise Forbidden(f"{driver} driver doesn't support multiple subnets")
    given = dict(asked.options or {})
    if driver == "bridge":
        options.check(given)
    pool = pools[0] if pools else IpamPool()
    network = Network(
        id=new_id(),
        name=asked.name,
        driver=driver,
        created=time.time_ns(),
        subnet=pool.subnet,
        gateway=pool.gateway or _first(pool),
        ip_range=pool.ip_range,
        auxiliary=pool.auxiliary_addresses or {},
        asked=pools,
        ipam_options=ipam.options,
        options=given,
        labels=asked.labels or {},
        internal=asked.internal,
        attachable=asked.attachable,
    )
    return _with_sublinks(network) if driver in sublinks.PREFIXES else network


def _with_sublinks(network: Network) -> Network:
    """Return a network of macvlan or ipvlan; where no router is asked, it has a gateway only when one is named."""
    sublinks.check(network)
    named = network.asked[0].gateway if network.asked else ""
    return network if sublinks.has_gateway(network) else structs.replace(network, gateway=named)


def _check_name(name: str) -> None:
    if not name.strip():
        raise InvalidArgument("invalid name: name is empty")
    if name in (*PREDEFINED, "default"):
        raise Forbidden(f"operation is not permitted on predefined {name} network ")
    if not name.isprintable() or len(name) > 255:
        raise InvalidArgument(f"invalid name {name[:80]!r}: at most 255 printable characters")


def _check_kind(asked: CreateNetwork) -> None:
    if asked.ingress:
        raise Forbidden("Ingress network can only be global scope network")
    if asked.scope not in ("", "local"):
        raise Forbidden("cannot create a swarm scoped network when swarm is not active")
    if asked.config_only or (asked.config_from and asked.config_from.network):
        raise NotImplementedHere("networks that only hold a configuration: this engine does not have them")


def _driver(name: str) -> str:
    if name in ("", "default", "bridge"):
        return "bridge"
    if name in ("host", "null"):
        raise Forbidden(f'only one instance of "{name}" network is allowed')
    if name == "overlay":
        raise Forbidden(NO_SWARM)
    if name in sublinks.PREFIXES:
        return name
    raise NotFound(f'plugin "{name}" not found')


def _check_families(asked: CreateNetwork) -> None:
    if asked.enable_ipv6:
        raise NotImplementedHere("IPv6 in networks (--ipv6): this engine does not have that yet")
    if asked.enable_ipv4 is False:
        raise InvalidArgument("IPv4 or IPv6 must be enabled")


def joined(complaints: list[str]) -> str:
    """Return what is wrong: a sentence, or a list of several."""
    return complaints[0] if len(complaints) == 1 else "\n".join(f"* {each}" for each in complaints)


def _network(text: str, what: str) -> ipaddress.IPv4Network:
    """Return a subnet; raises ValueError with the complaint."""
    try:
        found = ipaddress.ip_network(text if "/" in text else "", strict=False)
    except ValueError:
        raise ValueError(f"invalid {what} {text}: invalid CIDR block notation") from None
    if isinstance(found, ipaddress.IPv6Network):
        raise NotImplementedHere(f"{text}: this engine does not have IPv6 in networks yet")
    if str(found) != text:
        raise ValueError(f"invalid {what} {text}: it should be {found}")
    return found


def _complaints(pool: IpamPool) -> Iterator[str]:
    """Yield what is wrong with one subnet."""
    try:
        subnet = _network(pool.subnet, "subnet")
    except ValueError as error:
        yield str(error)
        return
    if subnet.prefixlen > 30:
        yield f"invalid subnet {subnet}: too small, a gateway and a container need two addresses"
    if pool.ip_range:
        try:
            if not _network(pool.ip_range, "ip-range").subnet_of(subnet):
                yield f"invalid ip-range {pool.ip_range}: parent subnet {subnet} doesn't contain ip-range"
        except ValueError as error:
            yield str(error)
    named = {"gateway": pool.gateway} if pool.gateway else {}
    for name, address in (pool.auxiliary_addresses or {}).items():
        named[f"auxiliary address {name}"] = address
    for what, text in named.items():
        yield from _address_complaints(what, text, subnet)


def _address_complaints(what: str, text: str, subnet: ipaddress.IPv4Network) -> Iterator[str]:
    shown = f"{what} {text}" if what == "gateway" else what
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        yield f"invalid {shown}: invalid address"
        return
    if address not in subnet:
        yield f"invalid {shown}: parent subnet {subnet} doesn't contain this address"
    elif address in (subnet.network_address, subnet.broadcast_address):
        yield f"invalid {shown}: the first and the last address of subnet {subnet} belong to nobody"


def _first(pool: IpamPool) -> str:
    """Return the gateway where nobody names one: the first free address, as of any container."""
    if not pool.subnet:
        return ""
    subnet = ipaddress.IPv4Network(pool.subnet)
    taken = {*(pool.auxiliary_addresses or {}).values(), str(subnet.network_address), str(subnet.broadcast_address)}
    for address in ipaddress.IPv4Network(pool.ip_range or pool.subnet):
        if str(address) not in taken:
            return str(address)
    raise Forbidden(f"no available IPv4 addresses on this network's address pools: {pool.subnet}")
