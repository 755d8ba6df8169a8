"""What a container may ask of a network. PURE. The texts are dockerd's."""

from __future__ import annotations

import ipaddress
import re

from wherry.errors import InvalidArgument
from wherry.models.container import ContainerConfig, HostConfig
from wherry.network import endpointoptions
from wherry.network.api import EndpointRequest
from wherry.network.definition import joined
from wherry.network.records import Network

NO_OWN_ADDRESS = "user specified IP address is supported on user defined networks only"
_NO_OWN_SUBNET = "user specified IP address is supported only when connecting to networks with user configured subnets"
_NO_ALIAS = "network-scoped alias is supported only for containers in user defined networks"
LINKS = "can't be used with links. This would result in undefined behavior"
_MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")


def is_plain(asked: EndpointRequest) -> bool:
    """Whether any sandbox of that network will do."""
    return not (asked.ipv4 or asked.ipv6 or asked.mac or asked.driver_opts or asked.link_local)


def check(asked: EndpointRequest, network: Network) -> None:
    """Raise InvalidArgument for a request that this network can never meet."""
    if network.config_only:
        raise InvalidArgument("cannot create endpoint on configuration-only network")
    if network.driver == "host":
        raise InvalidArgument("container cannot be connected to host network: it has a network namespace of its own")
    check_settings(asked, network)


def check_settings(asked: EndpointRequest, network: Network) -> None:
    """As `check`, also for a network in which containers have no endpoints of their own."""
    if asked.mac and not is_mac(asked.mac):
        raise InvalidArgument(f"invalid MAC address {asked.mac}")
    endpointoptions.check(asked.driver_opts)
    complaints = [*_complaints(asked, network), *_link_local_complaints(asked)]
    if complaints:
        raise InvalidArgument("invalid endpoint settings:\n" + joined(complaints))


def _complaints(asked: EndpointRequest, network: Network) -> list[str]:
    found = []
    wanted = asked.ipv4 or asked.ipv6
    if network.predefined:
        found += [NO_OWN_ADDRESS] if wanted else []
        found += [_NO_OWN_SUBNET] if wanted else []
        found += [_NO_ALIAS] if asked.aliases else []
        return found
    named = {6 if ":" in pool.subnet else 4 for pool in network.asked if pool.subnet}
    if (asked.ipv4 and 4 not in named) or (asked.ipv6 and 6 not in named):
        return [_NO_OWN_SUBNET]
    for address, version, subnet in ((asked.ipv4, 4, network.subnet), (asked.ipv6, 6, network.subnet6)):
        if address and not _is_address(address, version):
            found.append(f"invalid IPv{version} address: {address}")
        if address and not (subnet and _is_address(address, version) and _inside(address, subnet)):
            found.append(f"no configured subnet or ip-range contain the IP address {address}")
    return found


def _link_local_complaints(asked: EndpointRequest) -> list[str]:
    found = []
    for text in asked.link_local:
        try:
            if not ipaddress.ip_address(text).is_link_local or "%" in text:
                found.append(f"invalid link local IP address: {text}")
        except ValueError:
            found.append(f"invalid link-local IP address: {text}")
    return found


def _is_address(text: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(text).version == version and "%" not in text
    except ValueError:
        return False


def _inside(address: str, subnet: str) -> bool:
    """Whether a container can have that address of a subnet, which is of the same family."""
    parent, value = ipaddress.ip_network(subnet), ipaddress.ip_address(address)
    last = parent.broadcast_address if parent.version == 4 else None
    return value in parent and value not in (parent.network_address, last)


def is_mac(text: str) -> bool:
    """Whether a link can have that address: six bytes, not a group address (its lowest bit), not all zero."""
    return bool(_MAC.fullmatch(text)) and not int(text[1], 16) & 1 and text.strip("0:") != ""


def check_mode(config: ContainerConfig, host: HostConfig) -> None:
    """Raise InvalidArgument when a container asks for what its network mode cannot give, in dockerd's order."""
    mode = host.network_mode
    shared = mode.startswith("container:")
    if mode == "container" or mode == "container:":
        raise InvalidArgument("invalid network mode: invalid container format container:<name|id>")
    tests = [
        (shared and config.hostname, "hostname and the network mode"),
        (mode == "host" and host.links, f"host type networking {LINKS}"),
        (shared and host.links, f"container type network {LINKS}"),
        (shared and host.dns, "dns and the network mode"),
        (shared and host.extra_hosts, "custom host-to-IP mapping and the network mode"),
        (
            shared and (host.port_bindings or host.publish_all_ports),
            "port publishing and the container type network mode",
        ),
        (shared and config.exposed_ports, "port exposing and the container type network mode"),
    ]
    for applies, what in tests:
        if applies:
            raise InvalidArgument(f"conflicting options: {what}")
