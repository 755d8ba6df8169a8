"""How this engine networks."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Protocol

from wherry.errors import InvalidArgument

DEFAULT_BRIDGE = "wherry0"
DEFAULT_MTU = 1500
BRIDGE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")
"""What becomes part of /proc/sys paths and of table names; the kernel allows 15 bytes (IFNAMSIZ)."""


class DaemonSettings(Protocol):
    """The settings of the daemon that concern networks, with its names."""

    @property
    def bridge(self) -> str: ...
    @property
    def bip(self) -> str: ...
    @property
    def mtu(self) -> int: ...
    @property
    def ip_masq(self) -> bool: ...
    @property
    def ip(self) -> str: ...
    @property
    def ip_forward(self) -> bool: ...
    @property
    def firewall_backend(self) -> str: ...
    @property
    def firewall_watch(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """bridge "": no default bridge. bip "": choose a subnet. binding: the address on which ports are published
    that name none, "" for all. stock: sandboxes kept ready, 0 for none. firewall_watch: rules that somebody
    removes come back at once. bus: where firewalld is asked."""

    bridge: str = DEFAULT_BRIDGE
    bip: str = ""
    mtu: int = DEFAULT_MTU
    masquerade: bool = True
    ip_forward: bool = True
    binding: str = ""
    firewall: str = "nftables"
    firewall_watch: bool = True
    bus: str = "/run/dbus/system_bus_socket"
    stock: int = 4

    @classmethod
    def of(cls, settings: DaemonSettings) -> NetworkConfig:
        """Take the daemon's settings; raises InvalidArgument for what cannot work."""
        bridge = "" if settings.bridge == "none" else settings.bridge or DEFAULT_BRIDGE
        return cls(
            bridge=bridge,
            bip=settings.bip,
            mtu=settings.mtu or DEFAULT_MTU,
            masquerade=settings.ip_masq,
            ip_forward=settings.ip_forward,
            binding="" if settings.ip == "0.0.0.0" else settings.ip,
            firewall=settings.firewall_backend,
            firewall_watch=settings.firewall_watch,
        )

    def __post_init__(self) -> None:
        if self.bridge and not BRIDGE_NAME.fullmatch(self.bridge):
            raise InvalidArgument(f"invalid bridge name {self.bridge!r}: at most 15 letters, digits, '_', '.' or '-'")
        if not 68 <= self.mtu <= 65535:
            raise InvalidArgument(f"invalid MTU {self.mtu}: must be between 68 and 65535")
        if self.bip:
            self.bridge_address()
        if self.binding:
            try:
                ipaddress.IPv4Address(self.binding)
            except ValueError:
                raise InvalidArgument(f"invalid default address {self.binding!r} of published ports (ip)") from None

    def bridge_address(self) -> ipaddress.IPv4Interface:
        """Return `bip` as a value; raises InvalidArgument."""
        try:
            address = ipaddress.IPv4Interface(self.bip)
        except ValueError as error:
            raise InvalidArgument(f"invalid bip {self.bip!r}: {error}") from error
        network = address.network
        if network.prefixlen > 29 or address.ip in (network.network_address, network.broadcast_address):
            raise InvalidArgument(f"invalid bip {self.bip!r}: use an address inside its subnet, such as 172.30.0.1/16")
        return address
