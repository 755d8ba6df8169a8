"""The network use cases: making, removing, looking, and moving containers in and out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from wherry.containers.catalog import Catalog, Container
from wherry.containers.record import Record
from wherry.errors import Conflict, Forbidden, InvalidArgument, NotFound
from wherry.events import Bus
from wherry.models import prune
from wherry.models.container import EndpointSettings
from wherry.models.labels import holds
from wherry.models.network import CreateNetwork
from wherry.models.patterns import compile_pattern
from wherry.models.queries import Filters
from wherry.network import etcfiles, livefiles
from wherry.network.api import Endpoint, EndpointRequest
from wherry.network.controller import Networks
from wherry.network.records import PREDEFINED, Network
from wherry.services import endpoints
from wherry.services.pace import at_their_pace
from wherry.services.settings import Settings
from wherry.supervision.remains import open_namespace

Json = Any
Result = TypeVar("Result")
KNOWN = frozenset({"driver", "id", "label", "name", "scope", "type", "dangling"})
FROM_HOST = "cannot disconnect container from host network - container was created in host network mode"


@dataclass(frozen=True, slots=True)
class NetworkService:
    """NetworksBackend."""

    settings: Settings
    networks: Networks
    catalog: Catalog
    bus: Bus

    # ---- looking

    async def listing(self, filters: Filters) -> list[Json]:
        """GET /networks; containers are left out, as dockerd does."""
        tests = _tests(filters, self.networks)
        found = [self.networks.inspect(name) for name in self.networks.names()]
        return [entry for entry in found if all(test(entry) for test in tests)]

    async def inspect(self, ref: str) -> Json:
        """GET /networks/ID, with the containers that are in it."""
        entry = self.networks.inspect(ref)
        for container_id, endpoint in self.networks.inside(entry["Id"]).items():
            if container_id in self.catalog:
                entry["Containers"][container_id] = _inside(self.catalog.resolve(container_id).name, endpoint)
        if entry["Name"] == "host":  # they are in it, without an endpoint
            sharing = [each.record for each in self.catalog if each.record.host_config.network_mode == "host"]
            nowhere = Endpoint(entry["Id"], "host", "", "", "")
            entry["Containers"] = {each.id: _inside(each.name, nowhere) for each in sharing if each.state.alive}
        return entry

    # ---- networks

    async def create(self, asked: CreateNetwork) -> Json:
        """POST /networks/create."""
        network = await at_their_pace(self.networks.create, asked)
        self._publish(network, "create")
        return {"Id": network.id, "Warning": ""}

    async def remove(self, ref: str) -> None:
        """DELETE /networks/ID."""
        self._publish(await at_their_pace(self.networks.remove, ref), "destroy")

    async def prune(self, filters: Filters) -> Json:
        """POST /networks/prune: remove what no running container is in."""
        chosen = prune.chosen(filters, time.time_ns())
        removed = []
        for name in self.networks.names():
            try:
                network = self.networks.resolve(name)
                if network.predefined or not chosen(network.created, network.labels):
                    continue
                await self.remove(network.id)
            except (Forbidden, NotFound):
                continue  # somebody is in it, or it is gone
            removed.append(network.name)
        self.bus.publish("network", "prune", "", {"reclaimed": "0"})
        return {"NetworksDeleted": removed or None}

    # ---- containers in networks

    async def connect(self, ref: str, container_ref: str, settings: EndpointSettings | None) -> None:
        """POST /networks/ID/connect: now for a container that runs, and at each start from now on."""
        network = self.networks.resolve(ref)
        container = self._container(container_ref)
        async with container.lock:
            self.catalog.check_is_there(container)
            _check_company(container.record, network)
            asked = endpoints.request(container.record, network.name, settings)
            if container.record.state.alive:
                await self._join(container, asked)
            else:
                self.networks.check(asked)
            self.catalog.save(container, endpoints.with_endpoint(container.record, network.name, settings))

    async def _join(self, container: Container, asked: EndpointRequest) -> None:
        record, first = container.record, not self.networks.has_names(container.id)
        endpoint = await at_their_pace(
            _with, _namespace(container), lambda fd: self.networks.connect(container.id, fd, asked)
        )
        livefiles.add(self._file(container, "hosts"), _hosts_lines(record, endpoint))
        if first and self.networks.has_names(container.id):
            options = etcfiles.Options.of(record.host_config)
            texts = etcfiles.resolver_before_and_after(options, etcfiles.addresses([endpoint]))
            livefiles.replace(self._file(container, "resolv.conf"), *texts)
        publish(self.bus, container.id, endpoint, "connect", self.networks.resolve(endpoint.network_id).driver)

    async def disconnect(self, ref: str, container_ref: str, *, force: bool) -> None:
        """POST /networks/ID/disconnect."""
        try:
            container = self._container(container_ref)
        except NotFound as error:
            self.networks.resolve(ref)  # of two things that are not there, the network is told
            raise NotFound(f"endpoint {container_ref} not found" if force else error.message) from error
        # A network may have been removed while the container did not run, which so could not start again.
        remembered = container.record.networking.endpoints_config or {}
        name = ref if ref in remembered else self.networks.resolve(ref).name
        async with container.lock:
            self.catalog.check_is_there(container)
            if container.record.host_config.network_mode == "host" and name == "host":
                raise InvalidArgument(FROM_HOST)
            if name not in (container.record.networking.endpoints_config or {}):
                kind = "network" if container.record.state.alive else "the network"
                raise NotFound(f"container {container.id} is not connected to {kind} {name}")
            await self._leave(container, name)
            self.catalog.save(container, endpoints.without_endpoint(container.record, name))

    async def _leave(self, container: Container, name: str) -> None:
        """Take a running container out of a network; one that ends meanwhile has left by itself."""
        endpoint = next((each for each in self.networks.endpoints(container.id) if each.network_name == name), None)
        namespace = _open_namespace(container) if container.record.state.alive else None
        if endpoint is None or namespace is None:
            return
        driver, network = self.networks.resolve(endpoint.network_id).driver, endpoint.network_id
        try:
            await at_their_pace(_with, namespace, lambda fd: self.networks.disconnect(container.id, fd, network))
        except NotFound:
            return
        livefiles.remove(self._file(container, "hosts"), _hosts_lines(container.record, endpoint))
        publish(self.bus, container.id, endpoint, "disconnect", driver)

    def _container(self, ref: str) -> Container:
        if not ref:
            raise InvalidArgument('invalid name or ID supplied: ""')
        return self.catalog.resolve(ref)

    def _file(self, container: Container, name: str) -> Path:
        return self.settings.container_root(container.id) / name

    def _publish(self, network: Network, action: str) -> None:
        self.bus.publish("network", action, network.id, {"name": network.name, "type": network.driver})


def publish(bus: Bus, container_id: str, endpoint: Endpoint, action: str, driver: str) -> None:
    """Publish that a container came into a network of a driver, or left it."""
    attributes = {"container": container_id, "name": endpoint.network_name, "type": driver}
    bus.publish("network", action, endpoint.network_id, attributes)


def _check_company(record: Record, network: Network) -> None:
    """Raise InvalidArgument when this container can be in no further network, or not in this one."""
    if not record.host_config.own_network:
        raise InvalidArgument(endpoints.SHARED)
    if network.name == "host":
        raise InvalidArgument(endpoints.TO_HOST)
    if "none" in (network.name, *(record.networking.endpoints_config or {})):
        raise InvalidArgument(endpoints.PRIVATE)


def _open_namespace(container: Container) -> int | None:
    """Return a descriptor of a container's network namespace, None when its first process is gone."""
    state = container.record.state
    return open_namespace(state.pid, state.start_time, "net")


def _namespace(container: Container) -> int:
    """As `_open_namespace`; raises Conflict."""
    fd = _open_namespace(container)
    if fd is None:
        raise Conflict(f"container {container.id} is not running")
    return fd


def _with(fd: int, work: Callable[[int], Result]) -> Result:
    """Do something with a descriptor and close it, in one thread: its number must not be another's in between."""
    try:
        return work(fd)
    finally:
        os.close(fd)


def _hosts_lines(record: Record, endpoint: Endpoint) -> str:
    return etcfiles.own_lines(record.config.hostname, record.config.domainname, etcfiles.addresses([endpoint]))


def _inside(name: str, endpoint: Endpoint) -> Json:
    return {
        "Name": name,
        "EndpointID": endpoint.endpoint_id,
        "MacAddress": endpoint.mac,
        "IPv4Address": f"{endpoint.ipv4}/{endpoint.ipv4_prefix}" if endpoint.ipv4 else "",
        "IPv6Address": f"{endpoint.ipv6}/{endpoint.ipv6_prefix}" if endpoint.ipv6 else "",
    }


Test = Callable[[Mapping[str, Any]], bool]


def _tests(filters: Filters, networks: Networks) -> list[Test]:
    """Return one test per filter; values of one filter are alternatives, but all labels must hold."""
    tests: list[Test] = []
    for name, values in filters.items():
        if name not in KNOWN:
            raise InvalidArgument(f"invalid filter '{name}'")
        if name == "label":
            tests += [_labelled(value) for value in values]
        elif values:
            tests.append(_any([_test(name, value, networks) for value in values]))
    return tests


def _labelled(wanted: str) -> Test:
    return lambda entry: holds(entry["Labels"], wanted)


def _any(tests: Sequence[Test]) -> Test:
    return lambda entry: any(test(entry) for test in tests)


def _test(name: str, value: str, networks: Networks) -> Test:
    if name == "dangling":
        if value not in ("true", "1", "false", "0"):
            raise InvalidArgument('invalid value for filter \'dangling\', must be "true" (or "1"), or "false" (or "0")')
        return lambda entry: _dangling(entry, networks) == (value in ("true", "1"))
    if name == "type":
        if value not in ("custom", "builtin"):
            raise InvalidArgument(f"invalid filter: 'type'='{value}'")
        return lambda entry: (entry["Name"] in PREDEFINED) == (value == "builtin")
    if name in ("driver", "scope"):
        return lambda entry: entry[name.capitalize()] == value
    key = "Id" if name == "id" else "Name"
    try:
        pattern = compile_pattern(value)
    except InvalidArgument:
        return lambda entry: value in entry[key]
    return lambda entry: pattern.search(entry[key])


def _dangling(entry: Mapping[str, Any], networks: Networks) -> bool:
    return entry["Name"] not in PREDEFINED and not networks.inside(entry["Id"])
