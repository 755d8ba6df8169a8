"""From a request to the record of a new network. PURE. The texts are dockerd's.

What is only a mistake here is found before anything is made; whether a subnet is free, only the controller knows.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from msgspec import structs

from wherry.errors import Forbidden, InvalidArgument, NotFound
from wherry.models.network import CreateNetwork, Ipam, IpamPool
from wherry.network import configurations, options, sublinks
from wherry.network.ipam.subnets import Subnet
from wherry.network.records import PREDEFINED, Network, new_id

Defaults = Mapping[str, Mapping[str, str]]

_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
NO_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm '
    "and try again."
)

HasPlugin = Callable[[str], bool]
"""Whether there is a plugin of a name."""


def define(
    asked: CreateNetwork, has_plugin: HasPlugin = lambda name: False, defaults: Defaults | None = None
) -> Network:
    """Return the record of a network; its subnets and gateways are "" where the engine or a plugin may choose.

    defaults: options that it has when they are not asked for, by driver.

    Raises InvalidArgument, Forbidden, NotFound (no such driver).
    """
    _check_name(asked.name)
    _check_kind(asked)
    driver = _driver(asked.driver, has_plugin)
    given = {**(defaults or {}).get(driver, {}), **(asked.options or {})}
    ipv4, ipv6 = _families(asked, given)
    ipam = asked.ipam or Ipam()
    ipam_driver = ipam.driver or "default"
    if ipam_driver != "default" and not has_plugin(ipam_driver):
        raise NotFound(f'plugin "{ipam.driver}" not found')
    network = Network(
        id=new_id(),
        name=asked.name,
        driver="null" if asked.config_only else driver,
        created=time.time_ns(),
        ipv4=ipv4,
        ipv6=ipv6,
        asked=_pools(ipam, ipv6=ipv6),
        ipam_driver=ipam_driver,
        ipam_options=ipam.options,
        options=given,
        labels=asked.labels or {},
        internal=asked.internal,
        attachable=asked.attachable,
        config_only=asked.config_only,
    )
    return network if asked.config_only else _complete(network)


def _complete(network: Network) -> Network:
    """Return a network with the subnets that were asked for, and what its driver says about gateways."""
    driver = network.driver
    if driver == "bridge":
        options.check(network.options, internal=network.internal)
    pool = _only(network.asked, 4, driver) if network.ipv4 else IpamPool()
    pool6 = _only(network.asked, 6, driver) if network.ipv6 else IpamPool()
    network = structs.replace(
        network,
        subnet=pool.subnet,
        gateway=pool.gateway or _first(pool),
        ip_range=pool.ip_range,
        auxiliary=pool.auxiliary_addresses or {},
        subnet6=pool6.subnet,
        gateway6=pool6.gateway or _first(pool6),
        ip_range6=pool6.ip_range,
        auxiliary6=pool6.auxiliary_addresses or {},
    )
    if network.ipam_driver != "default":  # whoever gives out the addresses chooses the gateway too
        network = structs.replace(network, gateway=pool.gateway, gateway6=pool6.gateway)
    if driver in sublinks.PREFIXES:
        return _with_sublinks(network)
    return _with_modes(network) if driver == "bridge" else network


def _with_sublinks(network: Network) -> Network:
    """Return a network of macvlan or ipvlan; where no router is asked, it has a gateway only when one is named."""
    sublinks.check(network)
    return network if sublinks.has_gateway(network) else _with_named_gateways(network, ipv4=False, ipv6=False)


def _with_modes(network: Network) -> Network:
    """Return a network of bridges: where the host is not in it, it has a gateway only when one is named."""
    modes = (options.gateway_mode(network.options, name) for name in (options.GATEWAY_MODE, options.GATEWAY_MODE6))
    ipv4, ipv6 = (mode != options.ISOLATED for mode in modes)
    return _with_named_gateways(network, ipv4=ipv4, ipv6=ipv6)


def _with_named_gateways(network: Network, *, ipv4: bool, ipv6: bool) -> Network:
    """Return a network without the gateways that nobody named, of families that need none."""
    named = [each.gateway for each in network.asked if each.gateway]
    gateway = network.gateway if ipv4 or network.gateway in named else ""
    gateway6 = network.gateway6 if ipv6 or network.gateway6 in named else ""
    return structs.replace(network, gateway=gateway, gateway6=gateway6)


def _check_name(name: str) -> None:
    if not name.strip():
        raise InvalidArgument("invalid name: name is empty")
    if name in (*PREDEFINED, "default"):
        raise Forbidden(f"operation is not permitted on predefined {name} network ")
    if not name.isprintable() or len(name) > 255:
        raise InvalidArgument(f"invalid name {name[:80]!r}: at most 255 printable characters")


def _check_kind(asked: CreateNetwork) -> None:
    configurations.check(asked)
    if asked.ingress:
        raise Forbidden("Ingress network can only be global scope network")
    if asked.scope not in ("", "local"):
        raise Forbidden("cannot create a swarm scoped network when swarm is not active")


def _driver(name: str, has_plugin: HasPlugin) -> str:
    if name in ("", "default", "bridge"):
        return "bridge"
    if name in ("host", "null"):
        raise Forbidden(f'only one instance of "{name}" network is allowed')
    if name == "overlay":
        raise Forbidden(NO_SWARM)
    if name in sublinks.PREFIXES or has_plugin(name):
        return name
    raise NotFound(f'plugin "{name}" not found')


def _families(asked: CreateNetwork, given: Mapping[str, str]) -> tuple[bool, bool]:
    """Return whether the network has IPv4 and IPv6: of the request's own fields, else of its options."""
    ipv4, ipv6 = (
        options.switch(given, name, default) if own is None else own
        for own, name, default in (
            (asked.enable_ipv4, options.ENABLE_IPV4, True),
            (asked.enable_ipv6, options.ENABLE_IPV6, False),
        )
    )
    if not ipv4 and not ipv6:
        raise InvalidArgument("IPv4 or IPv6 must be enabled")
    return ipv4, ipv6


def _pools(ipam: Ipam, *, ipv6: bool) -> tuple[IpamPool, ...]:
    """Return the subnets that were asked for, in the canonical form. Raises InvalidArgument.

    One of IPv6 for a network without it is taken and shown, but nobody looks into it, as with dockerd.
    """
    complaints: list[str] = []
    found = []
    for pool in ipam.config or ():
        if not ipv6 and ":" in pool.subnet:
            found.append(pool)
            continue
        wrong = list(_complaints(pool))
        complaints += wrong
        if not wrong:
            found.append(_canonical(pool))
    if complaints:
        raise InvalidArgument("invalid network config:\n" + joined(complaints))
    return tuple(found)


def _canonical(pool: IpamPool) -> IpamPool:
    """Return a subnet as everybody writes it: fd00::1, not FD00:0::0001."""
    auxiliary = pool.auxiliary_addresses
    return IpamPool(
        subnet=str(ipaddress.ip_network(pool.subnet)),
        ip_range=str(ipaddress.ip_network(pool.ip_range)) if pool.ip_range else "",
        gateway=str(ipaddress.ip_address(pool.gateway)) if pool.gateway else "",
        auxiliary_addresses=auxiliary and {name: str(ipaddress.ip_address(each)) for name, each in auxiliary.items()},
    )


def _only(pools: Sequence[IpamPool], version: int, driver: str) -> IpamPool:
    """Return the subnet of a family, an empty one when none was named; raises Forbidden for several."""
    found = [each for each in pools if (":" in each.subnet) == (version == 6)]
    if len(found) > 1:
        raise Forbidden(f"{driver} driver doesn't support multiple subnets")
    return found[0] if found else IpamPool()


def joined(complaints: list[str]) -> str:
    """Return what is wrong: a sentence, or a list of several."""
    return complaints[0] if len(complaints) == 1 else "\n".join(f"* {each}" for each in complaints)


def _network(text: str, what: str) -> Subnet:
    """Return a subnet; raises ValueError with the complaint."""
    try:
        given = ipaddress.ip_interface(text if "/" in text and "%" not in text else "")
    except ValueError:
        raise ValueError(f"invalid {what} {text}: invalid CIDR block notation") from None
    found = given.network
    if found.network_address != given.ip:
        raise ValueError(f"invalid {what} {text}: it should be {found}")
    return found


def _complaints(pool: IpamPool) -> Iterator[str]:
    """Yield what is wrong with one subnet."""
    try:
        subnet = _network(pool.subnet, "subnet")
    except ValueError as error:
        yield str(error)
        return
    yield from _unfit(subnet)
    if pool.ip_range:
        yield from _range_complaints(pool.ip_range, subnet)
    named = {"gateway": pool.gateway} if pool.gateway else {}
    for name, address in (pool.auxiliary_addresses or {}).items():
        named[f"auxiliary address {name}"] = address
    for what, text in named.items():
        yield from _address_complaints(what, text, subnet)


def _unfit(subnet: Subnet) -> Iterator[str]:
    """Yield why no container can have an address of a subnet."""
    if subnet.is_multicast:
        yield f"multicast subnet '{subnet}' is not allowed"
    if isinstance(subnet, ipaddress.IPv6Network) and subnet.subnet_of(_MAPPED):
        yield f"invalid subnet {subnet}: these are IPv4 addresses"
    if subnet.max_prefixlen - subnet.prefixlen < 2:
        yield f"invalid subnet {subnet}: too small, a gateway and a container need two addresses"


def _range_complaints(text: str, subnet: Subnet) -> Iterator[str]:
    try:
        part = _network(text, "ip-range")
    except ValueError as error:
        yield str(error)
        return
    if part.version != subnet.version:
        yield f"invalid ip-range {text}: parent subnet is an IPv{subnet.version} block"
    elif not _within(part, subnet):
        yield f"invalid ip-range {text}: parent subnet {subnet} doesn't contain ip-range"


def _within(part: Subnet, subnet: Subnet) -> bool:
    return part.network_address in subnet and part.broadcast_address in subnet


def _address_complaints(what: str, text: str, subnet: Subnet) -> Iterator[str]:
    shown = f"{what} {text}" if what == "gateway" else what
    try:
        address = ipaddress.ip_address("" if "%" in text else text)
    except ValueError:
        yield f"invalid {shown}: invalid address"
        return
    if address.version != subnet.version:
        yield f"invalid {shown}: parent subnet is an IPv{subnet.version} block"
    elif address not in subnet:
        yield f"invalid {shown}: parent subnet {subnet} doesn't contain this address"
    elif address.version == 4 and address in (subnet.network_address, subnet.broadcast_address):
        yield f"invalid {shown}: the first and the last address of subnet {subnet} belong to nobody"
    elif address == subnet.network_address:
        yield f"invalid {shown}: the first address of subnet {subnet} is that of all its routers"


def _first(pool: IpamPool) -> str:
    """Return the gateway where nobody names one: the first free address, as of any container."""
    if not pool.subnet:
        return ""
    subnet = ipaddress.ip_network(pool.subnet)
    taken = {*(pool.auxiliary_addresses or {}).values(), str(subnet.network_address)}
    taken |= {str(subnet.broadcast_address)} if subnet.version == 4 else set()
    for address in ipaddress.ip_network(pool.ip_range or pool.subnet):
        if str(address) not in taken:
            return str(address)
    raise Forbidden(f"no available IPv{subnet.version} addresses on this network's address pools: {pool.subnet}")
