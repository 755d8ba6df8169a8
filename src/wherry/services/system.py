"""docker info, version, events and system df."""

from __future__ import annotations

import asyncio
import os
import platform
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import wherry.version as release
from wherry.containers.catalog import Catalog
from wherry.errors import InvalidArgument
from wherry.events import Bus, Event
from wherry.logs.drivers import NAMES as LOG_DRIVERS
from wherry.models.labels import holds
from wherry.models.queries import Filters, ListQuery
from wherry.models.times import rfc3339
from wherry.oci.host import HostFacts
from wherry.registry.client import Registries, without_password
from wherry.services.images import ImageService
from wherry.services.looks import Looks
from wherry.services.settings import Settings
from wherry.services.volumes import VolumeService
from wherry.snapshots.api import Snapshotter

Json = Any
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
EVENT_FILTERS = frozenset(
    {"config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope", "secret"}
    | {"service", "type", "volume"}
)


@dataclass(frozen=True, slots=True)
class SystemService:
    """SystemBackend."""

    settings: Settings
    engine_id: str
    catalog: Catalog
    images: ImageService
    volumes: VolumeService
    looks: Looks
    snapshotter: Snapshotter
    facts: HostFacts
    bus: Bus
    registries: Registries
    driver_reason: str = ""
    warnings: tuple[str, ...] = ()

    async def version(self) -> Json:
        """GET /version."""
        kernel, machine = os.uname().release, os.uname().machine
        common = {
            "ApiVersion": release.API_NEWEST,
            "MinAPIVersion": release.API_OLDEST,
            "GitCommit": "",
            "GoVersion": "",
            "Os": "linux",
            "Arch": ARCHITECTURES.get(machine, machine),
            "KernelVersion": kernel,
            "BuildTime": "",
        }
        details = {**common, "Experimental": "false", "Python": platform.python_version(), "Wherry": release.WHERRY}
        return {
            "Platform": {"Name": f"Wherry {release.WHERRY}"},
            "Components": [{"Name": "Engine", "Version": release.COMPATIBLE, "Details": details}],
            "Version": release.COMPATIBLE,
            **common,
        }

    async def info(self) -> Json:
        """GET /info."""
        states = [each.record.state.status for each in self.catalog]
        images = await self.images.listing(all=True, filters={})
        return {
            "ID": self.engine_id,
            "Containers": len(states),
            "ContainersRunning": states.count("running"),
            "ContainersPaused": states.count("paused"),
            "ContainersStopped": len(states) - states.count("running") - states.count("paused"),
            "Images": len(images),
            **self._storage(),
            **self._features(),
            **self._host(),
            "LoggingDriver": self.settings.log_driver,
            "DefaultRuntime": self.settings.default_runtime,
            "Runtimes": self._runtimes(),
            "LiveRestoreEnabled": self.settings.live_restore,
            "InitBinary": "docker-init",
            "SecurityOptions": self._security_options(),
            "FirewallBackend": {"Driver": self.settings.firewall_backend},
            "Labels": list(self.settings.labels),
            "ServerVersion": release.COMPATIBLE,
            "Warnings": list(self.warnings) or None,
        }

    def _security_options(self) -> list[str]:
        found = ["name=apparmor"] if self.facts.apparmor and self.facts.apparmor_parser else []
        found += ["name=seccomp,profile=builtin", *(["name=userns"] if self.settings.ids else [])]
        return [*found, "name=cgroupns"] if self.settings.cgroupns_default == "private" else found

    def _runtimes(self) -> Json:
        own: Json = {name: {"path": "wherry-runtime"} for name in ("runc", "wherry")}
        others = {
            name: {"path": path, **({"runtimeArgs": arguments} if arguments else {})}
            for name, (path, *arguments) in self.settings.runtimes.items()
        }
        return {**own, **others}

    def _storage(self) -> Json:
        status = [list(line) for line in self.snapshotter.status()]
        if self.driver_reason:
            status.append(["Chosen because", self.driver_reason])
        return {
            "Driver": self.snapshotter.name,
            "DriverStatus": status,
            "DockerRootDir": str(self.settings.data_root),
            "Plugins": {
                "Volume": self.volumes.drivers(),
                "Network": self.looks.networks.drivers(),
                "Authorization": None,
                "Log": list(LOG_DRIVERS),
            },
        }

    def _features(self) -> Json:
        names = ("MemoryLimit", "SwapLimit", "CpuCfsPeriod", "CpuCfsQuota", "CPUShares", "CPUSet", "PidsLimit")
        features: Json = dict.fromkeys(names, True)
        return features | {
            "KernelMemoryTCP": False,
            "OomKillDisable": self.facts.cgroup_version == 1,
            "IPv4Forwarding": _read("/proc/sys/net/ipv4/ip_forward") == "1",
            "CgroupDriver": self.settings.cgroup_driver,
            "CgroupVersion": str(self.facts.cgroup_version),
            "Debug": self.settings.debug,
            "NFd": len(os.listdir("/proc/self/fd")),
            "NGoroutines": len(asyncio.all_tasks()),
            "NEventsListener": 0,
            "ExperimentalBuild": False,
            "Isolation": "",
            "Swarm": {
                "NodeID": "",
                "NodeAddr": "",
                "LocalNodeState": "inactive",
                "ControlAvailable": False,
                "Error": "",
                "RemoteManagers": None,
            },
            **{name: {"ID": ""} for name in ("ContainerdCommit", "RuncCommit", "InitCommit")},
        }

    def _host(self) -> Json:
        uname = os.uname()
        return {
            "SystemTime": rfc3339(time.time_ns()),
            "KernelVersion": uname.release,
            "OperatingSystem": _operating_system(),
            "OSVersion": "",
            "OSType": "linux",
            "Architecture": uname.machine,
            "NCPU": len(os.sched_getaffinity(0)),
            "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "Name": uname.nodename,
            "IndexServerAddress": "https://index.docker.io/v1/",
            "RegistryConfig": self.registries.described(),
            "GenericResources": None,
            "HttpProxy": without_password(self.registries.config.http_proxy),
            "HttpsProxy": without_password(self.registries.config.https_proxy),
            "NoProxy": self.registries.config.no_proxy,
            "CDISpecDirs": [],
        }

    async def disk_usage(self, kinds: Collection[str]) -> Json:
        """GET /system/df; kinds: of "image", "container", "volume" and "build-cache" those that are wanted."""
        images: list[Json] | None = None
        containers: list[Json] | None = None
        volumes: list[Json] | None = None
        cache: list[Json] | None = None
        size = 0
        if "image" in kinds:
            images = await self.images.listing(all=False, filters={}, shared=True)
            size = await asyncio.to_thread(self.images.images.disk_size)
        if "container" in kinds:
            containers = await self.looks.listing(ListQuery(all=True, size=True))
        if "volume" in kinds:
            volumes = await self.volumes.usage()
        if "build-cache" in kinds:
            cache = []
        return {
            "LayersSize": size,
            "Images": images,
            "Containers": containers,
            "Volumes": volumes,
            "BuildCache": cache,
        }

    async def events(self, *, since: int, until: int, filters: Filters) -> AsyncIterator[Json]:
        """GET /events: None first (subscribed), then events until `until` (ns, 0 = for ever)."""
        for name in filters:
            if name not in EVENT_FILTERS:
                raise InvalidArgument(f"invalid filter '{name}'")
        subscription = self.bus.subscribe(since=since)
        try:
            yield None
            for event in subscription.past:
                if (not until or event.at <= until) and accepts(event, filters):
                    yield event.to_wire()
            async for event in _following(subscription.queue, until):
                if accepts(event, filters):
                    yield event.to_wire()
        finally:
            self.bus.unsubscribe(subscription)


async def _following(queue: asyncio.Queue[Event | None], until: int) -> AsyncIterator[Event]:
    """Yield events as they come, until a point in time (Unix ns, 0 = for ever)."""
    while not until or time.time_ns() < until:
        left = (until - time.time_ns()) / 1e9 if until else None
        try:
            event = await asyncio.wait_for(queue.get(), left)
        except TimeoutError:
            return
        if event is None or (until and event.at > until):
            return
        yield event


def accepts(event: Event, filters: Filters) -> bool:
    """Return whether an event passes the filters of docker events."""
    attributes: Mapping[str, str] = event.attributes

    tests: dict[str, Callable[[str], bool]] = {
        "type": lambda value: event.kind == value,
        "event": lambda value: value in (event.action, event.action.split(":")[0]),
        "scope": lambda value: value == "local",
        "label": lambda value: holds(attributes, value),
        **{kind: partial(_is_about, event, kind) for kind in ("container", "image", "network", "volume")},
    }
    return all(any(tests[name](value) for value in values) for name, values in filters.items() if name in tests)


def _is_about(event: Event, kind: str, value: str) -> bool:
    """Return whether the event's object is the named one; an image is also what its containers were made from."""
    if kind == "image":
        name = event.id if event.kind == "image" else event.attributes.get("image", "")
        return event.kind in ("image", "container") and value in (name, name.partition(":")[0])
    return event.kind == kind and (event.id.startswith(value) or event.attributes.get("name") == value)


def _read(path: str) -> str:
    return Path(path).read_text().strip()


def _operating_system() -> str:
    try:
        for line in Path("/etc/os-release").read_text().splitlines():
            if line.startswith("PRETTY_NAME="):
                return line.partition("=")[2].strip("\"'")
    except OSError:
        pass
    return "Linux"
