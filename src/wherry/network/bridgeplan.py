"""What one bridge is to be like: of the daemon's settings for the default one, of its record for a network's. PURE."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field

from wherry.network import options
from wherry.network.config import NetworkConfig
from wherry.network.firewall.api import BridgeRules
from wherry.network.records import Network

ALIAS = "wherry"


@dataclass(frozen=True, slots=True)
class BridgePlan:
    """name: of the link. address: "IP/PREFIX" to have, "" to choose. alias: by which the link is known as ours.

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
    address: str = ""
    advice: str = "choose another name with --bridge"
    subnet_advice: str = "set --bip"
    shown: Mapping[str, str] = field(default_factory=dict)

    def owns(self, alias: str) -> bool:
        """Whether a link with that alias is this bridge, made by this engine under any of its run roots."""
        return alias.split()[-1:] == self.alias.split()[-1:]

    def rules(self, subnet: str) -> BridgeRules:
        """Return what the firewall has to know."""
        return BridgeRules(self.name, subnet, self.masquerade and not self.internal, self.icc, self.internal)


def of_default(config: NetworkConfig) -> BridgePlan:
    """Return the plan of the default bridge."""
    return BridgePlan(
        name=config.bridge,
        mtu=config.mtu,
        masquerade=config.masquerade,
        ip_forward=config.ip_forward,
        address=str(config.bridge_address()) if config.bip else "",
        shown={
            options.DEFAULT_BRIDGE: "true",
            options.ICC: "true",
            options.MASQUERADE: "true" if config.masquerade else "false",
            options.HOST_BINDING: config.binding or "0.0.0.0",
            options.NAME: config.bridge,
            options.MTU: str(config.mtu),
        },
    )


def of_network(network: Network, config: NetworkConfig, owner: str) -> BridgePlan:
    """Return the plan of a network's bridge."""
    prefix = ipaddress.IPv4Network(network.subnet).prefixlen if network.subnet else 0
    return BridgePlan(
        name=network.options.get(options.NAME) or f"br-{network.id[:12]}",
        mtu=options.mtu(network.options, config.mtu),
        alias=f"{ALIAS} {owner} {network.id}",
        masquerade=options.flag(network.options, options.MASQUERADE, True) and config.masquerade,
        icc=options.flag(network.options, options.ICC, True),
        internal=network.internal,
        ip_forward=config.ip_forward,
        address=f"{network.gateway}/{prefix}" if network.gateway else "",
        advice=f"choose another name with -o {options.NAME}",
        subnet_advice="name one with --subnet",
        shown=network.options,
    )
