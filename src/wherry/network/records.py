"""What the engine remembers of networks and endpoints: the JSON of ``networks.record`` and ``endpoints.record``."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass

from msgspec import field, json

from wherry.models.base import Model
from wherry.models.network import IpamPool
from wherry.network.api import Endpoint
from wherry.network.firewall.api import Forward
from wherry.network.ipam.subnets import Subnet
from wherry.network.ports import Published

OTHER_GATEWAY, OTHER_GATEWAY6 = "DefaultGatewayIPv4", "DefaultGatewayIPv6"
"""Auxiliary addresses with a meaning, as in dockerd: `network create --aux-address DefaultGatewayIPv4=10.1.0.254`."""

PREDEFINED = ("bridge", "host", "none")
"""The networks that every engine has."""


class Network(Model, frozen=True):
    """A network. subnet "" for those that give out no addresses. created: Unix ns.

    subnet6 and so on: the same for IPv6, where the network has that. asked: the subnets as the user wrote them, which
    is what clients are shown; none when the engine chose. config_only: it holds a configuration for others and no
    container; config_from: the name of the one that this network took its configuration from. pool_id, pool_id6: by
    which the plugin that gives out the addresses knows the subnets.
    """

    id: str
    name: str
    driver: str
    created: int
    subnet: str = ""
    gateway: str = ""
    ip_range: str = ""
    auxiliary: dict[str, str] = field(default_factory=dict)
    ipv4: bool = True
    ipv6: bool = False
    subnet6: str = ""
    gateway6: str = ""
    ip_range6: str = ""
    auxiliary6: dict[str, str] = field(default_factory=dict)
    ipam_driver: str = "default"
    pool_id: str = ""
    pool_id6: str = ""
    scope: str = "local"
    config_only: bool = False
    config_from: str = ""
    asked: tuple[IpamPool, ...] = ()
    ipam_options: dict[str, str] | None = None
    options: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    internal: bool = False
    attachable: bool = False

    def encode(self) -> bytes:
        """Return the record as the store keeps it."""
        return json.encode(self)

    @property
    def router(self) -> str:
        """Where containers send what is for elsewhere: the gateway, or another that is named among the auxiliary."""
        return self.auxiliary.get(OTHER_GATEWAY, "") or self.gateway

    @property
    def router6(self) -> str:
        """The same for IPv6."""
        return self.auxiliary6.get(OTHER_GATEWAY6, "") or self.gateway6

    @property
    def predefined(self) -> bool:
        """Whether it is one of those that are always there."""
        return self.name in PREDEFINED

    @property
    def subnets(self) -> tuple[Subnet, ...]:
        """The subnets as values: none, one, or one of each family."""
        return tuple(ipaddress.ip_network(each) for each in (self.subnet, self.subnet6) if each)


@dataclass(frozen=True, slots=True)
class Attached:
    """An endpoint as the store keeps it: with its sandbox, that one's --dns, the name of its link on the host,
    and the ports of its container when it has the way out. returns: as in Joined.
    """

    endpoint: Endpoint
    sandbox_id: str
    host_link: str = ""
    nameservers: tuple[str, ...] = ()
    published: tuple[Published, ...] = ()
    returns: str = ""

    def encode(self) -> bytes:
        """Return the record as the store keeps it."""
        return json.encode(self)

    @property
    def forwards(self) -> tuple[Forward, ...]:
        """What the firewall has to know of its ports; none for a family in which it has no way out."""
        end = self.endpoint
        addresses = {4: end.ipv4 if end.gateway4 else "", 6: end.ipv6 if end.gateway6 else ""}
        found = ((each, addresses[each.version]) for each in self.published)
        return tuple(each.forward(address) for each, address in found if address)


_networks = json.Decoder(Network)
_attached = json.Decoder(Attached)


def decode_network(data: bytes) -> Network:
    """Read a network back."""
    return _networks.decode(data)


def decode_attached(data: bytes) -> Attached:
    """Read an endpoint back."""
    return _attached.decode(data)


def new_id() -> str:
    """Return a fresh 64-digit id."""
    return os.urandom(32).hex()
