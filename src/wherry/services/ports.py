"""Published ports of containers: what their records ask for, what clients see, and changing them while they run."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from socket import socket
from typing import Any

from msgspec import structs

from wherry.containers.catalog import Catalog, Container
from wherry.containers.record import Record
from wherry.errors import Conflict, EngineError, InvalidArgument, NotFound
from wherry.events import Bus
from wherry.models.container import PortBinding
from wherry.network import ports
from wherry.network.api import Sandbox
from wherry.network.controller import Networks
from wherry.network.ports import Bindings, PortRequest, Published
from wherry.services.creation import attributes

Json = Any


def wanted(record: Record) -> tuple[PortRequest, ...]:
    """Return the ports that a container publishes at its start; -P: all that it exposes and that are not named."""
    host = record.host_config
    if not host.in_networks or not (host.port_bindings or host.publish_all_ports):
        return ()
    named = ports.requests(host.port_bindings or {})
    if not host.publish_all_ports:
        return named
    bound = {(each.port, each.protocol) for each in named}
    rest = [each for each in ports.exposed(record.config.exposed_ports or {}) if each not in bound]
    return (*named, *(PortRequest(protocol, port, "") for port, protocol in rest))


def descriptors(sandbox: Sandbox | None) -> dict[str, int]:
    """Return the sockets of a sandbox as a supervisor knows them."""
    return {} if sandbox is None else _descriptors(sandbox.held)


def _descriptors(held: Mapping[Published, socket]) -> dict[str, int]:
    return {_key(published): each.fileno() for published, each in held.items()}


def _key(published: Published) -> str:
    host = f"[{published.host_ip}]" if published.version == 6 else published.host_ip
    return f"{published.protocol} {host}:{published.host_port}"


def shown(
    record: Record, published: Sequence[Published], *, way_out: bool = True
) -> dict[str, list[Json] | None]:
    """Return NetworkSettings.Ports: all ports of a container that runs, None for one that is only exposed.

    way_out: whether it is in a network that leads out; of one that is not, dockerd shows no ports.
    """
    if not record.state.alive or not record.host_config.in_networks or not way_out:
        return {}
    known = [*ports.exposed(record.config.exposed_ports or {}), *((each.port, each.protocol) for each in published)]
    found: dict[str, list[Json] | None] = {f"{port}/{protocol}": None for port, protocol in sorted(set(known))}
    for each in published:
        places = found[each.key] or []
        found[each.key] = [*places, {"HostIp": each.host_ip, "HostPort": str(each.host_port)}]
    return found


def listed(record: Record, published: Sequence[Published]) -> list[Json]:
    """Return Ports of an entry of docker ps."""
    entries: list[Json] = []
    for key, places in shown(record, published).items():
        port, protocol = ports.parse_port(key)
        for place in places or [None]:
            public = {} if place is None else {"IP": place["HostIp"], "PublicPort": int(place["HostPort"])}
            entries.append({**public, "PrivatePort": port, "Type": protocol})
    return entries


Span = tuple[int, int, str]
"""First port, last port and protocol of a filter of docker ps."""


def parse_filter(text: str) -> Span:
    """Return what "8080", "8000-8010/udp" of --filter publish and expose means; raises InvalidArgument."""
    numbers, _, protocol = text.partition("/")
    first, last = ports.parse_range(numbers)
    return first, last, ports.parse_port(f"1/{protocol or 'tcp'}")[1]


def within(port: tuple[int, str], wanted: Sequence[Span]) -> bool:
    """Whether a port is in one of the filters."""
    return any(first <= port[0] <= last and port[1] == protocol for first, last, protocol in wanted)


def exposes(record: Record, wanted: Sequence[Span]) -> bool:
    """Whether a container exposes a port that is in one of the filters."""
    return any(within(each, wanted) for each in ports.exposed(record.config.exposed_ports or {}))


@dataclass(frozen=True, slots=True)
class Ports:
    """PortsBackend: ours, and not Docker's."""

    catalog: Catalog
    networks: Networks
    bus: Bus

    async def listing(self, ref: str) -> Json:
        """GET /wherry/v1/containers/ID/ports."""
        container = self.catalog.resolve(ref)
        return {"Ports": shown(container.record, self.networks.published(container.id))}

    async def add(self, ref: str, bindings: Bindings) -> Json:
        """Publish more ports, now when the container runs, and at each start from now on."""
        asked = _checked(bindings)
        container = self.catalog.resolve(ref)
        async with container.lock:
            self.catalog.check_is_there(container)
            self._check(container)
            if container.record.state.alive:
                await self._publish(container, asked)
            held = container.record.host_config.port_bindings or {}
            merged = {key: [*(held.get(key) or ()), *(bindings.get(key) or ())] for key in (*held, *bindings)}
            self._save(container, merged)
        self._publish_event(container)
        return await self.listing(container.id)

    async def _publish(self, container: Container, asked: tuple[PortRequest, ...]) -> None:
        task = container.task
        if task is None:
            raise Conflict(f"container {container.id} is not running")
        held = await asyncio.to_thread(self.networks.publish, container.id, container.name, asked)
        try:
            await task.hold(_descriptors(held))
        except EngineError:
            await asyncio.to_thread(self.networks.retract, container.id, tuple(held))
            raise
        finally:
            for each in held.values():
                each.close()

    async def remove(self, ref: str, bindings: Bindings) -> Json:
        """Publish ports no more. A place without a port means all of that port of the container. Raises NotFound."""
        asked = _checked(bindings)
        container = self.catalog.resolve(ref)
        async with container.lock:
            self.catalog.check_is_there(container)
            self._check(container)
            gone = [each for each in self.networks.published(container.id) if any(_meant(each, one) for one in asked)]
            rest, dropped = _without(container.record.host_config.port_bindings or {}, asked, gone)
            if not gone and not dropped:
                raise NotFound(f"container {container.name} does not publish {', '.join(bindings)} there")
            if gone and container.task is not None:
                await asyncio.to_thread(self.networks.retract, container.id, gone)
                await container.task.release([_key(each) for each in gone])
            self._save(container, rest)
        self._publish_event(container)
        return await self.listing(container.id)

    def _check(self, container: Container) -> None:
        if not container.record.host_config.in_networks:
            mode = container.record.host_config.network_mode
            raise Conflict(f"container {container.name} has no network of its own (--network {mode}) to publish")

    def _save(self, container: Container, bindings: Mapping[str, Sequence[PortBinding]]) -> None:
        record = container.record
        exposed = {**(record.config.exposed_ports or {}), **{key: {} for key in bindings}}
        host = structs.replace(record.host_config, port_bindings={key: list(each) for key, each in bindings.items()})
        config = structs.replace(record.config, exposed_ports=exposed)
        self.catalog.save(container, structs.replace(record, host_config=host, config=config))

    def _publish_event(self, container: Container) -> None:
        self.bus.publish("container", "update", container.id, attributes(container.record))


def _checked(bindings: Bindings) -> tuple[PortRequest, ...]:
    asked = ports.requests(bindings)
    if not asked:
        raise InvalidArgument("no port given, such as 8080:80")
    return asked


def _meant(published: Published, asked: PortRequest) -> bool:
    return (
        (published.port, published.protocol) == (asked.port, asked.protocol)
        and (not asked.address or asked.address == published.host_ip)
        and (not asked.first or asked.first <= published.host_port <= asked.last)
    )


def _without(
    held: Bindings, asked: Sequence[PortRequest], gone: Sequence[Published]
) -> tuple[dict[str, list[PortBinding]], bool]:
    """Return the bindings that stay, and whether any does not: those that are meant, or gave what is gone."""
    rest: dict[str, list[PortBinding]] = {}
    dropped = False
    left = list(gone)
    for key, places in held.items():
        for place in places or ():
            (one,) = ports.requests({key: [place]})
            source = next((each for each in left if _meant(each, one)), None)
            if source is not None:
                here = [each for each in left if each.host_port == source.host_port and _meant(each, one)]
                left = [each for each in left if each not in here]
                other = _other_family(one, here, asked)
                if other:
                    rest.setdefault(key, []).append(structs.replace(place, host_ip=other))
            elif not any(_covers(each, one) for each in asked):
                rest.setdefault(key, []).append(place)
                continue
            dropped = True
    return rest, dropped


def _other_family(held: PortRequest, gone: Sequence[Published], asked: Sequence[PortRequest]) -> str:
    """Return where a port of both families stays published when that of one address goes; "" if nowhere."""
    named = any(each.address and any(_meant(one, each) for one in gone) for each in asked)
    families = {each.version for each in gone}
    if held.address or not named or len(families) != 1:
        return ""
    return ports.ANY if families == {6} else ports.ANY6


def _covers(asked: PortRequest, held: PortRequest) -> bool:
    return (
        (asked.port, asked.protocol) == (held.port, held.protocol)
        and (not asked.address or asked.address in ((held.address,) if held.address else (ports.ANY, ports.ANY6)))
        and (not asked.first or (asked.first <= held.first and held.last <= asked.last))
    )
