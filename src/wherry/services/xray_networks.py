"""wherry xray network: what the engine knows of a network, handed to the look at the kernel, and both in one answer."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from wherry.containers.catalog import Catalog, Container
from wherry.errors import SystemFailure
from wherry.models.times import rfc3339
from wherry.models.xray_network import SCHEMA, NetworkXray
from wherry.network import options
from wherry.network.api import Endpoint
from wherry.network.controller import Networks
from wherry.network.ports import Published
from wherry.network.records import Network
from wherry.network.sandbox import gateway_of
from wherry.network.sublinks import parent_of
from wherry.xray.netlook import SHARING, NetworkLook
from wherry.xray.netsubject import AskedMember, AskedPort, NetworkSubject

MODES = {4: options.GATEWAY_MODE, 6: options.GATEWAY_MODE6}
ANYWHERE = ("", "0.0.0.0", "::")


@dataclass(slots=True)
class NetworkXrays:
    """Answers one at a time: a look takes a thread that others need too."""

    networks: Networks
    catalog: Catalog
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def look(self, ref: str) -> NetworkXray:
        """GET /wherry/v1/networks/ID/xray; raises NotFound, SystemFailure."""
        network = self.networks.resolve(ref)
        async with self._turn:
            began = time.monotonic_ns()
            look = NetworkLook(self._subject(network))
            try:
                await asyncio.to_thread(look.take)
            except OSError as error:
                raise SystemFailure(f"cannot look at network {network.name}: {error.strerror or error}") from error
        return NetworkXray(
            schema=SCHEMA,
            id=network.id,
            name=network.name,
            driver=network.driver,
            scope=network.scope,
            internal=network.internal,
            taken_at=rfc3339(time.time_ns()),
            took=time.monotonic_ns() - began,
            kernel=os.uname().release,
            bridge=look.bridge,
            parent=look.parent,
            outside=look.outside,
            sysctls=look.sysctls,
            containers=look.containers,
            published=look.published,
            paths=look.paths,
            problems=look.problems,
            differences=look.differences,
            notes=tuple(look.notes),
            left_out=look.left_out,
        )

    def _subject(self, network: Network) -> NetworkSubject:
        given = network.options
        others = [self.networks.resolve(name) for name in self.networks.names()]
        return NetworkSubject(
            id=network.id,
            name=network.name,
            driver=network.driver,
            scope=network.scope,
            internal=network.internal,
            bridge=bridge_of(network),
            parent=parent_of(network) if network.driver in ("macvlan", "ipvlan") else "",
            subnets=tuple(each for each in (network.subnet, network.subnet6) if each),
            gateways=tuple(_gateways(network)),
            masquerade=_families(network, ("nat", "nat-unprotected")) if self._masquerades(network) else (),
            icc=options.flag(given, options.ICC, True),
            open=_families(network, ("nat-unprotected",)),
            routed=_families(network, ("routed",)),
            trusted=options.trusted(given),
            members=tuple(self._members(network)),
            ports=tuple(self._ports(network)),
            others={bridge_of(each): each.name for each in others if each.id != network.id and bridge_of(each)},
        )

    def _masquerades(self, network: Network) -> bool:
        """Whether a network asks for it, and the engine at all, which its default network says."""
        asking = [each for each in (network, *self._defaults()) if each.driver == "bridge"]
        return not network.internal and all(options.flag(each.options, options.MASQUERADE, True) for each in asking)

    def _defaults(self) -> list[Network]:
        return [self.networks.resolve(name) for name in self.networks.names() if name == "bridge"]

    def _inside(self, network: Network) -> Iterator[tuple[Container, Endpoint]]:
        for container_id, endpoint in self.networks.inside(network.id).items():
            if container_id in self.catalog:
                yield self.catalog.resolve(container_id), endpoint

    def _members(self, network: Network) -> Iterator[AskedMember]:
        if network.driver in SHARING:
            for each in self.catalog:
                state = each.record.state
                if state.alive and each.record.host_config.network_mode == network.name:
                    yield AskedMember(each.id, each.name, state.pid, state.start_time)
            return
        for container, endpoint in self._inside(network):
            state = container.record.state
            if state.alive:
                yield AskedMember(
                    id=container.id,
                    name=container.name,
                    pid=state.pid,
                    start_time=state.start_time,
                    interface=endpoint.interface,
                    mac=endpoint.mac,
                    addresses=tuple(_addresses(endpoint)),
                )

    def _ports(self, network: Network) -> Iterator[AskedPort]:
        for container, endpoint in self._inside(network):
            if not container.record.state.alive:
                continue
            for port in self.networks.published(container.id):
                carrier = gateway_of(self.networks.endpoints(container.id), 6 if ":" in port.host_ip else 4)
                if carrier is not None and carrier.network_id == network.id:
                    yield from _asked(container.name, endpoint, port)


def _asked(name: str, endpoint: Endpoint, port: Published) -> Iterable[AskedPort]:
    target = endpoint.ipv6 if ":" in port.host_ip else endpoint.ipv4
    address = "" if port.host_ip in ANYWHERE else port.host_ip
    if target:
        yield AskedPort(name, port.protocol, address, port.host_port, target, port.port)


def bridge_of(network: Network) -> str:
    """Return the name of a network's bridge, "" for those that have none."""
    if network.driver != "bridge":
        return ""
    return network.options.get(options.NAME) or f"br-{network.id[:12]}"


def _families(network: Network, modes: Collection[str]) -> tuple[int, ...]:
    """Return the families whose containers are reached in one of these ways (gateway modes)."""
    return tuple(family for family, name in MODES.items() if options.gateway_mode(network.options, name) in modes)


def _gateways(network: Network) -> Iterator[str]:
    """Yield the addresses that the bridge should have."""
    alone = _families(network, (options.ISOLATED,))
    inhibited = options.flag(network.options, options.INHIBIT_IPV4, False)
    pairs = {4: (network.subnet, network.gateway), 6: (network.subnet6, network.gateway6)}
    for family, (subnet, gateway) in pairs.items():
        if network.driver == "bridge" and gateway and family not in alone and not (family == 4 and inhibited):
            yield f"{gateway}/{subnet.rpartition('/')[2]}"


def _addresses(endpoint: Endpoint) -> Iterator[str]:
    if endpoint.ipv4:
        yield f"{endpoint.ipv4}/{endpoint.ipv4_prefix}"
    if endpoint.ipv6:
        yield f"{endpoint.ipv6}/{endpoint.ipv6_prefix}"
