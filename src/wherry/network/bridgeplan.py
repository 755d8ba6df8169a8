"""What one bridge is to be like: of the daemon's settings for the default one, of its record for a network's. PURE."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field

from msgspec import structs

from wherry.network import options
from wherry.network.config import NetworkConfig
from wherry.network.firewall.api import BridgeRules
from wherry.network.ipam.subnets import AddressSpace
from wherry.network.records import OTHER_GATEWAY, OTHER_GATEWAY6, Network

ALIAS = "wherry"


@dataclass(frozen=True, slots=True)
class BridgePlan:
    """name: of the link. ipv4, ipv6: the families that it has. alias: by which the link is known as ours.

    address, address6: "IP/PREFIX" to have, "" to choose, of one of the blocks of `space`. fallback, fallback6: the
    subnet of a bridge that has no address yet, "" to choose. inhibit_ipv4: somebody else has the gateway's address.
    trusted: see `BridgeRules`.

    advice, subnet_advice: what the user can do when the name cannot be had, or there is no subnet. shown: the options
    that clients see.
    """

    name: str
    mtu: int
    alias: str = ALIAS
    masquerade: bool = True
    icc: bool = True
    internal: bool = False
    ip_forward: bool = True
    ipv4: bool = True
    ipv6: bool = False
    address: str = ""
    address6: str = ""
    fallback: str = ""
    fallback6: str = ""
    gateway_mode: str = "nat"
    gateway_mode6: str = "nat"
    inhibit_ipv4: bool = False
    trusted: tuple[str, ...] = ()
    space: AddressSpace = field(default_factory=AddressSpace)
    advice: str = "choose another name with --bridge"
    subnet_advice: str = "set --bip"
    shown: Mapping[str, str] = field(default_factory=dict)

    def owns(self, alias: str) -> bool:
        """Whether a link with that alias is this bridge, made by this engine under any of its run roots."""
        return alias.split()[-1:] == self.alias.split()[-1:]

    def rules(self, network: Network) -> BridgeRules:
        """Return what the firewall has to know; the network has its subnets."""
        masquerade = self.masquerade and not self.internal
        return BridgeRules(
            self.name,
            network.subnet if self.ipv4 else "",
            masquerade and self.gateway_mode.startswith("nat"),
            self.icc,
            self.internal,
            subnet6=network.subnet6 if self.ipv6 else "",
            masquerade6=masquerade and self.gateway_mode6.startswith("nat"),
            gateway_mode=self.gateway_mode,
            gateway_mode6=self.gateway_mode6,
            trusted=self.trusted,
        )

    def isolated(self, version: int) -> bool:
        """Whether a family has no gateway at all: the host is not in the network."""
        return (self.gateway_mode if version == 4 else self.gateway_mode6) == options.ISOLATED

    def has_gateway(self, version: int) -> bool:
        """Whether the bridge has the gateway's address of a family."""
        return not self.isolated(version) and not (version == 4 and self.inhibit_ipv4)


def of_default(config: NetworkConfig, space: AddressSpace | None = None) -> BridgePlan:
    """Return the plan of the default bridge."""
    return BridgePlan(
        name=config.bridge,
        mtu=config.mtu,
        masquerade=config.masquerade,
        icc=config.icc,
        ip_forward=config.ip_forward,
        ipv6=config.ipv6,
        address=config.bip,
        address6=config.bip6,
        fallback=config.fixed_cidr,
        fallback6=config.fixed_cidr6,
        space=space or AddressSpace(),
        shown={
            options.DEFAULT_BRIDGE: "true",
            options.ICC: "true" if config.icc else "false",
            options.MASQUERADE: "true" if config.masquerade else "false",
            options.HOST_BINDING: config.binding or "0.0.0.0",
            options.NAME: config.bridge,
            options.MTU: str(config.mtu),
        },
    )


def of_network(network: Network, config: NetworkConfig, owner: str, space: AddressSpace) -> BridgePlan:
    """Return the plan of a network's bridge."""
    return BridgePlan(
        name=network.options.get(options.NAME) or f"br-{network.id[:12]}",
        mtu=options.mtu(network.options, config.mtu),
        alias=f"{ALIAS} {owner} {network.id}",
        masquerade=options.flag(network.options, options.MASQUERADE, True) and config.masquerade,
        icc=options.flag(network.options, options.ICC, True),
        internal=network.internal,
        ip_forward=config.ip_forward,
        ipv4=network.ipv4,
        ipv6=network.ipv6,
        address=_with_prefix(network.gateway, network.subnet),
        address6=_with_prefix(network.gateway6, network.subnet6),
        gateway_mode=options.gateway_mode(network.options, options.GATEWAY_MODE),
        gateway_mode6=options.gateway_mode(network.options, options.GATEWAY_MODE6),
        inhibit_ipv4=options.flag(network.options, options.INHIBIT_IPV4, False),
        trusted=options.trusted(network.options),
        space=space,
        advice=f"choose another name with -o {options.NAME}",
        subnet_advice="name one with --subnet",
        shown=network.options,
    )


def with_settings(network: Network, config: NetworkConfig) -> Network:
    """Return the default bridge's network as the settings want it; they may have changed since the last time."""
    kept6 = {} if config.ipv6 else {"subnet6": "", "gateway6": ""}
    other = {OTHER_GATEWAY: config.default_gateway} if config.default_gateway else {}
    other6 = {OTHER_GATEWAY6: config.default_gateway6} if config.default_gateway6 and config.ipv6 else {}
    return structs.replace(
        network,
        ipv6=config.ipv6,
        ip_range=config.fixed_cidr,
        ip_range6=config.fixed_cidr6 if config.ipv6 else "",
        auxiliary=other,
        auxiliary6=other6,
        **kept6,
    )


def check_settings(network: Network, config: NetworkConfig) -> None:
    """Raise InvalidArgument when the subnet of the default bridge does not hold what the settings put into it."""
    config.family(4).check_within(network.subnet)
    if network.subnet6:
        config.family(6).check_within(network.subnet6)


def _with_prefix(address: str, subnet: str) -> str:
    """Return "IP/PREFIX" of an address of a subnet, "" without an address."""
    return f"{address}/{ipaddress.ip_network(subnet).prefixlen}" if address else ""
