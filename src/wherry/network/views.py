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
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": network.ipam_options, "Config": _pools(network)},
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {},
        "Options": dict(network.options),
        "Labels": dict(network.labels),
    }


def _pools(network: Network) -> list[Json] | None:
    if network.asked:
        return [_pool(each) for each in network.asked]
    return [_pool(IpamPool(subnet=network.subnet, gateway=network.gateway))] if network.subnet else None


def _pool(pool: IpamPool) -> Json:
    """Return a subnet as it was asked for; fields that were not given are left out."""
    shown = {
        "Subnet": pool.subnet,
        "IPRange": pool.ip_range,
        "Gateway": pool.gateway,
        "AuxiliaryAddresses": pool.auxiliary_addresses,
    }
    return {name: value for name, value in shown.items() if value}
