"""How this engine networks."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from wherry.errors import InvalidArgument
from wherry.network.ipam.subnets import Pool, overlapping
from wherry.runtime.idmaps import Ids

DEFAULT_BRIDGE = "wherry0"
DEFAULT_MTU = 1500
BRIDGE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")
"""What becomes part of /proc/sys paths and of table names; the kernel allows 15 bytes (IFNAMSIZ)."""

_SMALLEST = {4: 29, 6: 126}
"""Length of the prefix of the smallest subnet that a default bridge can have."""


class DaemonSettings(Protocol):
    """The settings of the daemon that concern networks, with its names."""

    @property
    def bridge(self) -> str: ...
    @property
    def bip(self) -> str: ...
    @property
    def bip6(self) -> str: ...
    @property
    def fixed_cidr(self) -> str: ...
    @property
    def fixed_cidr_v6(self) -> str: ...
    @property
    def default_gateway(self) -> str: ...
    @property
    def default_gateway_v6(self) -> str: ...
    @property
    def host_gateway_ips(self) -> tuple[str, ...]: ...
    @property
    def ipv6(self) -> bool: ...
    @property
    def icc(self) -> bool: ...
    @property
    def mtu(self) -> int: ...
    @property
    def ip_masq(self) -> bool: ...
    @property
    def ip(self) -> str: ...
    @property
    def ip_forward(self) -> bool: ...
    @property
    def iptables(self) -> bool: ...
    @property
    def ip6tables(self) -> bool: ...
    @property
    def firewall_backend(self) -> str: ...
    @property
    def firewall_watch(self) -> bool: ...
    @property
    def respect_host_firewall(self) -> bool: ...
    @property
    def default_network_opts(self) -> Mapping[str, Mapping[str, str]]: ...
    @property
    def default_address_pools(self) -> tuple[tuple[str, int], ...]: ...


@dataclass(frozen=True, slots=True)
class BridgeAddresses:
    """What the settings say about one family (4 or 6) of the default bridge; "" where they say nothing.

    address: "IP/PREFIX" of the bridge. fixed: the part of its subnet that containers get addresses of. gateway: where
    they send what is for elsewhere, when that is not the bridge.
    """

    version: int
    address: str
    fixed: str
    gateway: str

    def check(self) -> None:
        """Raise InvalidArgument for what cannot be."""
        bip, suffix = ("bip", "") if self.version == 4 else ("bip6", "-v6")
        if self.address:
            self._check_address(bip)
        for what, text in ((f"fixed-cidr{suffix}", self.fixed), (f"default-gateway{suffix}", self.gateway)):
            try:
                wrong = bool(text) and ipaddress.ip_network(text).version != self.version
            except ValueError as error:
                raise InvalidArgument(f"invalid {what} {text!r}: {error}") from error
            if wrong:
                raise InvalidArgument(f"invalid {what} {text!r}: not of IPv{self.version}")

    def _check_address(self, what: str) -> None:
        kind = ipaddress.IPv4Interface if self.version == 4 else ipaddress.IPv6Interface
        try:
            address = kind(self.address)
        except ValueError as error:
            raise InvalidArgument(f"invalid {what} {self.address!r}: {error}") from error
        network = address.network
        ends = {network.network_address} | ({network.broadcast_address} if self.version == 4 else set())
        if network.prefixlen > _SMALLEST[self.version] or address.ip in ends or "%" in self.address:
            such = "172.30.0.1/16" if self.version == 4 else "fd00:30::1/64"
            raise InvalidArgument(f"invalid {what} {self.address!r}: use an address inside its subnet, such as {such}")

    def subnet(self) -> str:
        """Return the subnet that the settings name: that of the address, else the fixed part; "" when they do not."""
        return str(ipaddress.ip_interface(self.address).network) if self.address else self.fixed

    def check_within(self, subnet: str) -> None:
        """Raise InvalidArgument when what is to be in the bridge's subnet is not."""
        parent = ipaddress.ip_network(subnet)
        for what, text in (("fixed-cidr", self.fixed), ("default-gateway", self.gateway)):
            part = ipaddress.ip_network(text) if text else parent
            if part.network_address not in parent or part.broadcast_address not in parent:
                raise InvalidArgument(f"{what} {text} is not within the subnet {subnet} of the default bridge")


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """bridge "": no default bridge. bip "": choose a subnet. binding: the address on which ports are published
    that name none, "" for all; binding6: the same for IPv6. rules: the families that have rules of ours in the packet
    filter. respect_host: what comes to published ports from outside must pass the host's INPUT.
    firewall_watch: rules that somebody removes come back at once. bus: where firewalld is asked. network_opts:
    options of new networks that do not give them, by driver. pools: of which subnets are chosen. stock: sandboxes kept
    ready, 0 for none; ids: of the user namespaces that they belong to, None for the host's."""

    bridge: str = DEFAULT_BRIDGE
    bip: str = ""
    bip6: str = ""
    fixed_cidr: str = ""
    fixed_cidr6: str = ""
    default_gateway: str = ""
    default_gateway6: str = ""
    host_gateways: tuple[str, ...] = ()
    ipv6: bool = False
    icc: bool = True
    mtu: int = DEFAULT_MTU
    masquerade: bool = True
    ip_forward: bool = True
    binding: str = ""
    binding6: str = ""
    firewall: str = "nftables"
    firewall_watch: bool = True
    respect_host: bool = False
    bus: str = "/run/dbus/system_bus_socket"
    rules: tuple[int, ...] = (4, 6)
    network_opts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    pools: tuple[Pool, ...] = ()
    stock: int = 4
    ids: Ids | None = None

    @classmethod
    def of(cls, settings: DaemonSettings) -> NetworkConfig:
        """Take the daemon's settings; raises InvalidArgument for what cannot work."""
        address = "" if settings.ip in ("0.0.0.0", "::") else settings.ip
        rules = (4, 6) if settings.ip6tables else (4,)
        return cls(
            bridge="" if settings.bridge == "none" else settings.bridge or DEFAULT_BRIDGE,
            bip=settings.bip,
            bip6=settings.bip6,
            fixed_cidr=settings.fixed_cidr,
            fixed_cidr6=settings.fixed_cidr_v6,
            default_gateway=settings.default_gateway,
            default_gateway6=settings.default_gateway_v6,
            host_gateways=host_gateways(settings.host_gateway_ips),
            ipv6=settings.ipv6,
            icc=settings.icc,
            mtu=settings.mtu or DEFAULT_MTU,
            masquerade=settings.ip_masq,
            ip_forward=settings.ip_forward,
            binding="" if ":" in address else address,
            binding6=address if ":" in address else "",
            firewall=settings.firewall_backend,
            firewall_watch=settings.firewall_watch,
            respect_host=settings.respect_host_firewall,
            rules=rules if settings.iptables else (),
            network_opts=settings.default_network_opts,
            pools=address_pools(settings.default_address_pools),
        )

    def __post_init__(self) -> None:
        if self.bridge and not BRIDGE_NAME.fullmatch(self.bridge):
            raise InvalidArgument(f"invalid bridge name {self.bridge!r}: at most 15 letters, digits, '_', '.' or '-'")
        if not 68 <= self.mtu <= 65535:
            raise InvalidArgument(f"invalid MTU {self.mtu}: must be between 68 and 65535")
        for version in (4, 6):
            self.family(version).check()
        for text, kind in ((self.binding, ipaddress.IPv4Address), (self.binding6, ipaddress.IPv6Address)):
            try:
                if text:
                    kind("" if "%" in text else text)
            except ValueError:
                raise InvalidArgument(f"invalid default address {text!r} of published ports (ip)") from None

    def family(self, version: int) -> BridgeAddresses:
        """Return what is said about one family of the default bridge."""
        if version == 4:
            return BridgeAddresses(4, self.bip, self.fixed_cidr, self.default_gateway)
        return BridgeAddresses(6, self.bip6, self.fixed_cidr6, self.default_gateway6)


def host_gateways(given: Iterable[str]) -> tuple[str, ...]:
    """Return what host-gateway means: an address of each family at most, IPv4 first. Raises InvalidArgument."""
    found: dict[int, str] = {}
    for text in given:
        try:
            address = ipaddress.ip_address("" if "%" in text else text)
        except ValueError:
            raise InvalidArgument(f"invalid IP address {text!r} of host-gateway-ips") from None
        if address.version in found:
            raise InvalidArgument(f"only one IPv{address.version} host gateway IP address can be specified")
        found[address.version] = str(address)
    return tuple(found[version] for version in sorted(found))


def address_pools(given: Iterable[tuple[str, int]]) -> tuple[Pool, ...]:
    """Return the blocks of default-address-pools, each a base and the length of the prefix of its subnets."""
    found: list[Pool] = []
    for base, size in given:
        try:
            block = ipaddress.ip_network(base)
        except ValueError as error:
            raise InvalidArgument(f"invalid default-address-pools base {base!r}: {error}") from error
        if not block.prefixlen <= size <= block.max_prefixlen - 2:
            raise InvalidArgument(
                f"invalid default-address-pools size {size}: for base {base} it must be from {block.prefixlen} to "
                f"{block.max_prefixlen - 2}"
            )
        if any(overlapping(block, each.base) for each in found):
            raise InvalidArgument(f"default-address-pools base {base} overlaps with another one")
        found.append(Pool(block, size))
    return tuple(found)
