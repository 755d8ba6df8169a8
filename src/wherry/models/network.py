"""The bodies of the network endpoints."""

from __future__ import annotations

from msgspec import field

from wherry.models.base import Model
from wherry.models.container import EndpointSettings


class IpamPool(Model, frozen=True):
    """One subnet as a client asks for it."""

    subnet: str = ""
    ip_range: str = field(default="", name="IPRange")
    gateway: str = ""
    auxiliary_addresses: dict[str, str] | None = None


class Ipam(Model, frozen=True):
    """Who gives out the addresses, and of which subnets."""

    driver: str = ""
    options: dict[str, str] | None = None
    config: list[IpamPool] | None = None


class ConfigReference(Model, frozen=True):
    """The network whose configuration is to be taken over."""

    network: str = ""


class CreateNetwork(Model, frozen=True):
    """The body of POST /networks/create."""

    name: str = ""
    driver: str = ""
    scope: str = ""
    enable_ipv4: bool | None = field(default=None, name="EnableIPv4")
    enable_ipv6: bool | None = field(default=None, name="EnableIPv6")
    ipam: Ipam | None = field(default=None, name="IPAM")
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: ConfigReference | None = None
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class Connect(Model, frozen=True):
    """The body of POST /networks/ID/connect."""

    container: str = ""
    endpoint_config: EndpointSettings | None = None


class Disconnect(Model, frozen=True):
    """The body of POST /networks/ID/disconnect."""

    container: str = ""
    force: bool = False
