"""How a network looks to clients: the answer of GET /networks/ID. PURE."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from wherry.models.network import IpamPool
from wherry.network.records import Network

Json = dict[str, Any]


def inspect(network: Network) -> Json:
    """Return everything about a network but its containers, whose names only the caller knows."""
    created = datetime.fromtimestamp(network.created // 10**9, UTC)
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": f"{created:%Y-%m-%dT%H:%M:%S}.{network.created % 10**9:09d}Z",
        "Scope": network.scope,
        "Driver": network.driver,
        "EnableIPv4": network.ipv4,
        "EnableIPv6": network.ipv6,
        "IPAM": {"Driver": network.ipam_driver, "Options": network.ipam_options, "Config": _pools(network)},
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": network.config_from},
        "ConfigOnly": network.config_only,
        "Containers": {},
        "Options": dict(network.options),
        "Labels": dict(network.labels),
    }


def _pools(network: Network) -> list[Json] | None:
    """Return the subnets that were asked for, IPv4 first as in dockerd, and after them those that the engine chose."""
    shown = [_pool(each) for each in sorted(network.asked, key=lambda pool: ":" in pool.subnet)]
    named = [":" in each.subnet for each in network.asked]
    own = (
        (False, network.subnet, network.gateway, network.ip_range, network.auxiliary),
        (True, network.subnet6, network.gateway6, network.ip_range6, network.auxiliary6),
    )
    for is_ipv6, subnet, gateway, part, auxiliary in own:
        if subnet and is_ipv6 not in named:
            chosen = IpamPool(subnet=subnet, ip_range=part, gateway=gateway, auxiliary_addresses=auxiliary)
            shown.append(_pool(chosen))
    return shown or None


def _pool(pool: IpamPool) -> Json:
    """Return a subnet as it was asked for; fields that were not given are left out."""
    shown = {
        "Subnet": pool.subnet,
        "IPRange": pool.ip_range,
        "Gateway": pool.gateway,
        "AuxiliaryAddresses": pool.auxiliary_addresses,
    }
    return {name: value for name, value in shown.items() if value}
