"""docker create: everything that can be wrong with a request is found here, before anything is made."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import structs

from wherry.containers import names, restart, signals
from wherry.containers.catalog import Catalog, Container
from wherry.containers.record import MountRecord, Record
from wherry.errors import EngineError, InvalidArgument, NotFound, SystemFailure
from wherry.events import Bus
from wherry.failpoints import reach
from wherry.images.images import Images
from wherry.models.container import (
    ContainerConfig,
    CreateContainer,
    HostConfig,
    RestartPolicy,
)
from wherry.models.image import Image
from wherry.network import etcfiles, ports
from wherry.network.controller import Networks
from wherry.network.requests import check_mode, check_settings
from wherry.oci import validate
from wherry.services import binds, containerlogs, endpoints, imagemounts, links, merge
from wherry.services.binds import Wanted
from wherry.services.pace import at_their_pace
from wherry.services.provision import Provision, volume_names
from wherry.services.settings import Settings
from wherry.snapshots.api import Snapshotter
from wherry.volumes.records import Volume

SYSTEMS = frozenset(
    {"aix", "android", "darwin", "dragonfly", "freebsd", "illumos", "ios", "js", "linux", "netbsd", "openbsd", "plan9"}
    | {"solaris", "windows"}
)
"""Operating systems that a platform may name by itself (OCI image spec, GOOS)."""
MARKER = ".dockerenv"
"""By this file in its root many a script finds out that it runs in a container."""


@dataclass(frozen=True, slots=True)
class Creation:
    """Makes containers; what it needs is what a container is made of."""

    settings: Settings
    catalog: Catalog
    images: Images
    snapshotter: Snapshotter
    networks: Networks
    bus: Bus
    provision: Provision

    async def create(self, request: CreateContainer, *, name: str, platform: str) -> dict[str, Any]:
        """Make a container from a request; all or nothing. Returns the body of the 201."""
        _check_first(request)
        image = self.images.resolve(request.config.image)
        record, wanted, warnings = self._plan(request, image, name, platform)
        known = await self.provision.recognised(wanted)
        if known != wanted:
            record, wanted = structs.replace(record, mounts=self._located(record.id, known)), known
        self.catalog.check_name_is_free(record.name)
        self.catalog.coming.add(record.id)
        try:
            if volume_names(record):
                await self._make_with_volumes(record, image, wanted)
            else:
                await self._make(record, image)
        finally:
            self.catalog.coming.discard(record.id)
        self.bus.publish("container", "create", record.id, attributes(record))
        return {"Id": record.id, "Warnings": warnings}

    def _plan(
        self, request: CreateContainer, image: Image, name: str, platform: str
    ) -> tuple[Record, tuple[Wanted, ...], list[str]]:
        _check_platform(image, request.config.image, platform)
        config = merge.merge(request.config, image.config)
        container_id = secrets.token_hex(32)
        host = self._with_references(self._host_defaults(request.host_config, config))
        if config.stop_signal:
            signals.parse(config.stop_signal)
        check_mode(request.config, host)  # what an image exposes is no wish
        config = self._with_hostname(config, host, container_id)
        warnings = validate.validate(config, host)
        if self.settings.ids_of(host) is not None:
            validate.check_user_namespace(host)
        self.settings.cgroups_path(host, container_id)
        ports.requests(host.port_bindings or {})
        if host.network_mode == "host" and (host.port_bindings or host.publish_all_ports):
            warnings.append("Published ports are discarded when using host network mode")
        path, args = merge.command_line(config)
        wanted = binds.resolve(host, config, self._inherited(host))
        record = Record(
            id=container_id,
            name=names.check(name) if name else names.invent(self.catalog.names),
            created=time.time_ns(),
            image_id=image.id,
            config=config,
            host_config=host,
            networking=endpoints.wanted(
                request.networking_config, host.network_mode, config.mac_address or "", self.networks
            ),
            driver=self.snapshotter.name,
            path=path,
            args=args,
            mounts=self._located(container_id, wanted),
            links=links.resolve(host, self.catalog),
        )
        self._check_network(record)
        containerlogs.target(record, self.settings.container_root(record.id))
        return record, wanted, warnings

    def _located(self, container_id: str, wanted: Sequence[Wanted]) -> tuple[MountRecord, ...]:
        root = self.settings.container_root(container_id)
        found = (imagemounts.located(each.record, root, self.images) for each in wanted)
        return tuple(self.provision.located(each) for each in found)

    def _inherited(self, host: HostConfig) -> list[Wanted]:
        """Return the mounts of other containers that this one is to have too (--volumes-from)."""
        found = []
        for spec in host.volumes_from or ():
            name, writable = binds.parse_volumes_from(spec)
            found += [binds.inherit(each, writable=writable) for each in self._other(name).record.mounts]
        return found

    def _host_defaults(self, host: HostConfig, config: ContainerConfig) -> HostConfig:
        policy = host.restart_policy
        restart.check(policy)
        if host.auto_remove and policy.name not in ("", "no"):
            raise InvalidArgument("can't create 'AutoRemove' container with restart policy")
        network_disabled = config.network_disabled and host.network_mode in ("", "default")
        mode = "none" if network_disabled else host.network_mode
        return structs.replace(
            host,
            network_mode="bridge" if mode in ("", "default") else mode,
            log_config=containerlogs.with_defaults(host.log_config, self.settings),
            restart_policy=RestartPolicy(name=policy.name or "no", maximum_retry_count=policy.maximum_retry_count),
            shm_size=host.shm_size or self.settings.shm_size,
            ipc_mode=host.ipc_mode or "private",
            cgroupns_mode=host.cgroupns_mode or ("host" if host.privileged else self.settings.cgroupns_default),
            runtime=host.runtime or self.settings.default_runtime,
            memory_swap=host.memory_swap or (2 * host.memory if host.memory > 0 else 0),
            init=host.init if host.init is not None or not self.settings.init_by_default else True,
        )

    def _with_references(self, host: HostConfig) -> HostConfig:
        """Return the modes with the ids of the containers that they name, which outlive a rename.

        Never answered with 404: at create that means "no such image" to the docker CLI, which then tries to pull.
        """
        if self.settings.runtime_command(host.runtime) is None:
            raise InvalidArgument(f"unknown or invalid runtime name: {host.runtime}")
        modes = {name: getattr(host, name) for name in ("network_mode", "ipc_mode", "pid_mode")}
        named = {name: mode for name, mode in modes.items() if mode.removeprefix("container:") not in (mode, "")}
        why = {"network_mode": "joining network namespace of container: "}
        found = {name: self._other(mode, why.get(name, "")) for name, mode in named.items()}
        return structs.replace(host, **{name: f"container:{other.id}" for name, other in found.items()})

    def _other(self, mode: str, why: str = "") -> Container:
        try:
            return self.catalog.resolve(mode.removeprefix("container:"))
        except NotFound as error:
            raise InvalidArgument(f"{why}{error.message}") from error

    def _check_network(self, record: Record) -> None:
        """What networking would refuse at start is refused now, when nothing has been made yet."""
        for name, settings in (record.networking.endpoints_config or {}).items():
            asked = endpoints.request(record, name, settings)
            try:
                if record.host_config.network_mode in ("host", "none"):
                    check_settings(asked, self.networks.resolve(name))
                else:
                    self.networks.check(asked)
            except NotFound as error:
                raise InvalidArgument(f"failed to set up container networking: {error.message}") from error
            except InvalidArgument as error:
                raise InvalidArgument(f"invalid config for network {name}: {error.message}") from error
        etcfiles.check_hostname(record.config.hostname, record.config.domainname)
        etcfiles.Options.of(record.host_config)

    def _with_hostname(self, config: ContainerConfig, host: HostConfig, container_id: str) -> ContainerConfig:
        if host.network_mode.startswith("container:"):
            return structs.replace(config, hostname=self._other(host.network_mode).record.config.hostname)
        if host.uts_mode == "host" and config.hostname:
            raise InvalidArgument("conflicting options: hostname and the UTS mode")
        default = os.uname().nodename if host.network_mode == "host" or host.uts_mode == "host" else container_id[:12]
        return structs.replace(config, hostname=config.hostname or default)

    async def _make_with_volumes(self, record: Record, image: Image, wanted: tuple[Wanted, ...]) -> None:
        """As `_make`, with the volumes that are missing; their records and the container's come at once."""
        async with self.provision.holding(volume_names(record)):
            fresh = self.provision.missing(wanted)
            try:
                await self._make(record, image, fresh)
            except EngineError:
                await at_their_pace(self.provision.unmake, fresh)
                raise
            reach("create.recorded")
            self.provision.made(fresh)

    async def _make(self, record: Record, image: Image, fresh: Sequence[Volume] | None = None) -> None:
        """Make folder, snapshot, volumes and record. fresh: new volumes, None for a container that has no volume."""
        root = self.settings.container_root(record.id)
        try:
            root.mkdir(mode=0o710)
            reach("create.folder")
            if self.snapshotter.instant:
                self.snapshotter.prepare(record.id, image.chain_id, MARKER)
            else:
                await asyncio.to_thread(self.snapshotter.prepare, record.id, image.chain_id, MARKER)
            reach("create.snapshot")
            if fresh is None:
                self.catalog.add(record)
            else:
                if self.provision.instant(record, fresh):
                    self.provision.make(record, fresh)
                else:
                    await at_their_pace(self.provision.make, record, fresh)
                with self.provision.volumes.recording(fresh):
                    self.catalog.add(record)
        except (OSError, EngineError) as error:
            self._unmake(record.id)
            if isinstance(error, OSError):
                raise SystemFailure(f"cannot make the container's folder {root}: {error.strerror}") from error
            raise

    def _unmake(self, container_id: str) -> None:
        """Take away what a creation that failed has left; what is not there needs no removal."""
        shutil.rmtree(self.settings.container_root(container_id), ignore_errors=True)
        if any(info.name == container_id for info in self.snapshotter.walk()):
            self.snapshotter.remove(container_id)


def attributes(record: Record) -> dict[str, str]:
    """Return the attributes that every event of a container carries."""
    return {**(record.config.labels or {}), "image": record.config.image, "name": record.name}


def _check_first(request: CreateContainer) -> None:
    """Complain, in dockerd's order, about what is wrong whatever the image is."""
    config = request.config
    if config == ContainerConfig():
        raise InvalidArgument("config cannot be empty in order to create a container")
    validate.validate(config, request.host_config)
    if not config.image and not (config.cmd or config.entrypoint):
        raise InvalidArgument("no command specified")
    if not config.image:
        raise InvalidArgument("no image given: a container is made from an image")


def _check_platform(image: Image, reference: str, platform: str) -> None:
    if not platform:
        return
    if platform.count("/") > 2:
        raise InvalidArgument(f'"{platform}": cannot parse platform specifier: invalid argument')
    if "/" not in platform and platform not in SYSTEMS:
        raise InvalidArgument(f'"{platform}": unknown operating system or architecture: invalid argument')
    system, _, rest = platform.partition("/")
    wanted = rest.partition("/")[0]
    if system != image.os or (wanted and image.architecture and wanted != image.architecture):
        raise NotFound(    # for a 404 clients pull the one for that platform
            f"image with reference {reference} was found but its platform ({image.os}/{image.architecture}) "
            f"does not match the specified platform ({platform})"
        )
