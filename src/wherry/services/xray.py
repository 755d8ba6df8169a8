"""wherry xray: what the engine knows of a container, handed to the look at the kernel, and both in one answer."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wherry.containers.catalog import Catalog, Container
from wherry.containers.record import Record
from wherry.errors import EngineError, NotFound
from wherry.images.config import chain_ids
from wherry.images.images import Images
from wherry.models.times import SECOND, rfc3339
from wherry.models.xray import SCHEMA, Layer, Remains, Xray
from wherry.models.xray_network import NetworkXray
from wherry.network.controller import Networks
from wherry.runtime import exits
from wherry.runtime.cgroups import Cgroup
from wherry.services.lifecycle import Lifecycle
from wherry.services.settings import Settings
from wherry.services.xray_networks import NetworkXrays
from wherry.snapshots.api import Snapshotter
from wherry.xray import timeline
from wherry.xray.look import Look
from wherry.xray.mounts import lower, name_layer
from wherry.xray.subject import Connection, Other, Subject

Spec = Mapping[str, Any]
ENDING = 2.0
"""Seconds in which the supervisor of a process that is gone tells of its end."""
AT_ONCE = 2
"""Looks at the same time: each takes a thread that others need too."""
KERNEL_NAMES = {"mount": "mnt", "network": "net"}
JOINABLE = ("network", "ipc", "pid")
FILES = ("resolv.conf", "hostname", "hosts")
LONGEST_COMMAND = 120


@dataclass(slots=True)
class XrayService:
    """XrayBackend."""

    settings: Settings
    lifecycle: Lifecycle
    images: Images
    networks: Networks
    _turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    _networks: NetworkXrays = field(init=False)

    def __post_init__(self) -> None:
        self._networks = NetworkXrays(self.networks, self.lifecycle.catalog)

    @property
    def _catalog(self) -> Catalog:
        return self.lifecycle.catalog

    async def network(self, ref: str) -> NetworkXray:
        """GET /wherry/v1/networks/ID/xray."""
        return await self._networks.look(ref)

    async def look(self, ref: str) -> Xray:
        """GET /wherry/v1/containers/ID/xray."""
        container = self._catalog.resolve(ref)
        async with self._turn:
            began = time.monotonic_ns()
            if container.record.state.alive:
                try:
                    return await self._running(container, began)
                except NotFound:
                    if container.id not in self._catalog:
                        raise
                    await _until_recorded(container)
            return await self._resting(container, began)

    # A container that runs

    async def _running(self, container: Container, began: int) -> Xray:
        subject = self._subject(container)
        look = Look(subject, self.lifecycle.launching.facts.machine)
        await asyncio.to_thread(look.take)
        return self._answer(
            container,
            began,
            pid=subject.pid,
            differences=tuple(look.differences),
            notes=tuple(look.notes),
            **look.sections,
        )

    def _answer(self, container: Container, began: int, **sections: Any) -> Xray:
        record = container.record
        return Xray(
            schema=SCHEMA,
            id=container.id,
            name=container.name,
            image=record.config.image,
            status=record.state.status,
            taken_at=rfc3339(time.time_ns()),
            took=time.monotonic_ns() - began,
            kernel=os.uname().release,
            start=timeline.read(record.state.phases, record.state.started_at),
            **{"pid": 0, **sections},
        )

    def _subject(self, container: Container) -> Subject:
        record = container.record
        spec, refused = self._asked(record)
        execs = container.task.execs.values() if container.task else ()
        return Subject(
            id=container.id,
            pid=record.state.pid,
            start_time=record.state.start_time,
            cgroup_path=Cgroup.open(self.lifecycle.cgroup_path(container)).path,
            spec=spec,
            refused=refused,
            modes=self._modes(record, spec) if spec else {},
            others=tuple(
                Other(each.name, each.record.state.pid)
                for each in self._catalog
                if each is not container and each.record.state.alive
            ),
            layers=self._layers(record),
            files=self._files(record),
            execs={each.pid: each.id for each in execs if each.pid},
            connections=self._connections(container),
            has_init=bool(record.host_config.init) and not record.host_config.pid_mode,
        )

    def _asked(self, record: Record) -> tuple[Spec | None, str]:
        """What was asked for: the spec that a start would make of the record now."""
        private = record.host_config.own_network
        try:
            return self.lifecycle.launching.spec(record, (), private_network=private), ""
        except EngineError as error:
            return None, error.message

    def _modes(self, record: Record, spec: Spec) -> dict[str, str]:
        host = record.host_config
        named = {"network": host.network_mode, "ipc": host.ipc_mode, "pid": host.pid_mode}
        listed = {each["type"]: each.get("path", "") for each in spec["linux"]["namespaces"]}
        modes = {}
        for kind in ("cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"):
            mode = "private" if kind in listed else "host"
            if listed.get(kind) and kind in JOINABLE:
                mode = f"container:{self._catalog.resolve(named[kind].removeprefix('container:')).name}"
            modes[KERNEL_NAMES.get(kind, kind)] = mode
        return modes

    def _layers(self, record: Record) -> dict[str, Layer]:
        """Name the layers of the image by chain ID; none when it was removed by force."""
        try:
            digests = list(self.images.inspect(record.image_id)["RootFS"].get("Layers") or ())
            steps = [each for each in self.images.history(record.image_id) if each.get("Size") or len(digests) == 1]
        except NotFound:
            return {}
        commands = [each.get("CreatedBy", "") for each in reversed(steps)]
        found = {}
        for number, (chain, digest) in enumerate(zip(chain_ids(digests), digests, strict=True), 1):
            command = commands[number - 1] if len(commands) == len(digests) else ""
            name = f"layer {number} of {len(digests)}" + (f": {command[:LONGEST_COMMAND]}" if command else "")
            found[chain] = Layer(directory="", name=name, digest=digest)
        return found

    def _files(self, record: Record) -> dict[str, str]:
        mode = record.host_config.network_mode
        owner = record.id
        if mode.startswith("container:"):
            try:
                owner = self._catalog.resolve(mode.removeprefix("container:")).id
            except EngineError:
                return {}  # the container whose network it shares was removed
        root = self.settings.container_root(owner)
        taken = {bind.destination for bind in record.mounts}
        return {f"/etc/{name}": str(root / name) for name in FILES if f"/etc/{name}" not in taken}

    def _connections(self, container: Container) -> tuple[Connection, ...]:
        found = []
        for each in self.networks.endpoints(container.id):
            network = self.networks.resolve(each.network_id)
            found.append(
                Connection(
                    network=each.network_name,
                    interface=each.interface,
                    mac=each.mac,
                    ipv4=f"{each.ipv4}/{each.ipv4_prefix}" if each.ipv4 else "",
                    ipv6=f"{each.ipv6}/{each.ipv6_prefix}" if each.ipv6 else "",
                    gateway=each.gateway4,
                    firewall_table=self.networks.firewall_table(network),
                )
            )
        return tuple(found)

    # A container that does not run

    async def _resting(self, container: Container, began: int) -> Xray:
        layers, path = self._layers(container.record), self.lifecycle.cgroup_path(container)
        remains = await asyncio.to_thread(self._remains, container.record, layers, path)
        return self._answer(container, began, remains=remains)

    def _remains(self, record: Record, layers: Mapping[str, Layer], cgroup_path: str) -> Remains:
        state = record.state
        root, run_dir = self.settings.container_root(record.id), self.settings.run_dir(record.id)
        log = root / f"{record.id}-json.log"
        known = exits.read_exit(str(run_dir))
        below, upper, size = _storage(self.lifecycle.snapshotter, record.id, layers)
        groups = [each for each in Cgroup.open(cgroup_path).directories if os.path.isdir(each)]
        return Remains(
            exit_code=state.exit_code,
            signal=known.signal if known and known.at == state.finished_at else 0,
            oom_killed=state.oom_killed,
            error=state.error,
            started_at=rfc3339(state.started_at),
            finished_at=rfc3339(state.finished_at),
            lasted=max(0, state.finished_at - state.started_at) // SECOND if state.finished_at else 0,
            layers=below,
            upper=upper,
            size=size,
            log=str(log) if log.exists() else "",
            log_size=sum(each.stat().st_size for each in root.glob(f"{log.name}*")),
            files=tuple(str(root / name) for name in FILES if (root / name).exists()),
            left_behind=tuple(groups),
        )


async def _until_recorded(container: Container) -> None:
    """Wait until the record of a container whose process has just ended says so."""
    if container.task is not None:
        await asyncio.wait([container.task.exited], timeout=ENDING)
        await asyncio.sleep(0)


def _storage(
    snapshotter: Snapshotter, container_id: str, layers: Mapping[str, Layer]
) -> tuple[tuple[Layer, ...], str, int]:
    """Return the layers below, the directory of what it wrote itself, and the bytes of that; -1 when it is gone."""
    try:
        mount = snapshotter.mounts(container_id)[0]
        size = snapshotter.usage(container_id).size
    except NotFound:
        return (), "", -1
    upper = next((each.partition("=")[2] for each in mount.options if each.startswith("upperdir=")), mount.source)
    # on kernels before 6.8 the names are relative to the mount's source
    return tuple(name_layer(each, layers) for each in lower(mount.options)), os.path.join(mount.source, upper), size
