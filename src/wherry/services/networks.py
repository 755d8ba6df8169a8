"""The network use cases that exist so far: looking."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from wherry.containers.catalog import Catalog
from wherry.errors import InvalidArgument
from wherry.models.labels import holds
from wherry.models.queries import Filters
from wherry.network.controller import Networks

Json = Any
KNOWN = frozenset({"driver", "id", "label", "name", "scope", "type", "dangling"})


@dataclass(frozen=True, slots=True)
class NetworkService:
    """NetworksBackend."""

    networks: Networks
    catalog: Catalog

    async def listing(self, filters: Filters) -> list[Json]:
        """GET /networks; containers are left out, as dockerd does."""
        for name in filters:
            if name not in KNOWN:
                raise InvalidArgument(f"invalid filter '{name}'")
        found = [self.networks.inspect(name) for name in self.networks.names()]
        return [entry for entry in found if _accepts(entry, filters)]

    async def inspect(self, ref: str) -> Json:
        """GET /networks/ID, with the containers that are in it."""
        entry = self.networks.inspect(ref)
        entry["Containers"] = self._containers(entry["Id"])
        return entry

    def _containers(self, network_id: str) -> dict[str, Json]:
        inside = {}
        for container in self.catalog:
            for each in self.networks.endpoints(container.id):
                if each.network_id == network_id:
                    inside[container.id] = {
                        "Name": container.name,
                        "EndpointID": each.endpoint_id,
                        "MacAddress": each.mac,
                        "IPv4Address": f"{each.ipv4}/{each.ipv4_prefix}" if each.ipv4 else "",
                        "IPv6Address": f"{each.ipv6}/{each.ipv6_prefix}" if each.ipv6 else "",
                    }
        return inside


def _accepts(entry: Mapping[str, Any], filters: Filters) -> bool:
    builtin = entry["Name"] in ("bridge", "host", "none")
    tests: dict[str, Callable[[str], bool]] = {
        "driver": lambda value: entry["Driver"] == value,
        "id": lambda value: entry["Id"].startswith(value),
        "name": lambda value: value in entry["Name"],
        "scope": lambda value: entry["Scope"] == value,
        "type": lambda value: builtin == (value == "builtin"),
        "dangling": lambda value: value in ("false", "0"),
    }
    labels = entry.get("Labels") or {}
    if not all(holds(labels, value) for value in filters.get("label", ())):
        return False
    return all(any(tests[name](value) for value in values) for name, values in filters.items() if name in tests)
