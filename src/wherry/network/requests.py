"""What a container may ask of a network. PURE. The texts are dockerd's."""

from __future__ import annotations

import re

from wherry.errors import InvalidArgument
from wherry.models.container import ContainerConfig, HostConfig
from wherry.network.api import EndpointRequest
from wherry.network.records import Network

BUILT_IN = ("bridge", "host", "none")
_NO_OWN_ADDRESS = (
    "invalid endpoint settings:\n* user specified IP address is supported on user defined networks only\n"
    "* user specified IP address is supported only when connecting to networks with user configured subnets"
)
_LINKS = "can't be used with links. This would result in undefined behavior"
_MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")


def is_plain(asked: EndpointRequest) -> bool:
    """Whether any sandbox of that network will do."""
    return not (asked.ipv4 or asked.ipv6 or asked.mac or asked.driver_opts)


def check(asked: EndpointRequest, network: Network) -> None:
    """Raise InvalidArgument for a request that this network can never meet."""
    prefix = f"invalid config for network {asked.network}: "
    if network.driver == "host":
        raise InvalidArgument("container cannot be connected to host network: it has a network namespace of its own")
    if asked.mac and not is_mac(asked.mac):
        raise InvalidArgument(f"{prefix}invalid MAC address {asked.mac}")
    if network.name in BUILT_IN:
        check_no_address(asked.network, asked.ipv4 or asked.ipv6)


def check_no_address(network: str, address: str) -> None:
    """Raise InvalidArgument for an address that is asked of a network where nobody can choose; "": none is."""
    if address:
        raise InvalidArgument(f"invalid config for network {network}: {_NO_OWN_ADDRESS}")


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
        (mode == "host" and host.links, f"host type networking {_LINKS}"),
        (shared and host.links, f"container type network {_LINKS}"),
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
