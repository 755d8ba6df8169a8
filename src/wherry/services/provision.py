"""The volumes of containers: made and filled at create, found at start, removed with the container.

Whether a volume is in use is read off the records of the containers each time; nothing is counted, so nothing can be
counted wrong. Who makes or removes volumes holds their locks, in the order of their names, until the records say so.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from weakref import WeakValueDictionary

from msgspec import structs

from wherry.containers.catalog import Catalog
from wherry.containers.record import MountRecord, Record
from wherry.errors import Conflict, EngineError, InvalidArgument, SystemFailure
from wherry.events import Bus
from wherry.failpoints import reach
from wherry.kernel import procfs
from wherry.rootfs import filesystems
from wherry.runtime.idmaps import OWNER, Ids
from wherry.runtime.mountoptions import SUBPATH
from wherry.runtime.mounts import Mount, VolumeMount
from wherry.services import owners
from wherry.services.binds import Wanted
from wherry.services.pluginmounts import PluginMounts
from wherry.services.population import Population
from wherry.services.strangers import Strangers
from wherry.volumes import backing, names, quotas
from wherry.volumes.backing import Backing
from wherry.volumes.local import Volumes
from wherry.volumes.records import ANONYMOUS, LOCAL, Volume
from wherry.volumes.remote import RemoteVolumes

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """A mount of a container as the host can reach it, running or not.

    kind: bind, volume, tmpfs, or "mounted" for what is there only in containers that run. source: a path on the host,
    "" for a tmpfs. subpath: to be opened below source without leaving it (RESOLVE_BENEATH), "" for all of it.
    """

    destination: str
    kind: str
    source: str
    subpath: str
    read_only: bool


@dataclass(frozen=True, slots=True)
class Provision:
    """Gives containers their volumes."""

    volumes: Volumes
    catalog: Catalog
    population: Population
    bus: Bus
    remote: RemoteVolumes
    strangers: Strangers
    plugin_mounts: PluginMounts
    _locks: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)
    _made: set[str] = field(default_factory=set)
    """Volumes that plugins have made for us and that have no record yet."""

    @asynccontextmanager
    async def holding(self, names: Iterable[str]) -> AsyncIterator[None]:
        """Keep others from making, removing or mounting volumes of these names."""
        async with AsyncExitStack() as held:
            for name in sorted(set(names)):
                lock = self._locks.get(name)
                if lock is None:
                    self._locks[name] = lock = asyncio.Lock()
                await held.enter_async_context(lock)
            yield

    def users(self, name: str) -> list[str]:
        """Return the ids of the containers that have a volume."""
        return [each.id for each in self.catalog if any(mount.name == name for mount in each.record.mounts)]

    def in_use(self) -> Counter[str]:
        """Return the names of all volumes that containers have, and how many have each."""
        return Counter(name for container in self.catalog for name in volume_names(container.record))

    # Create

    async def recognised(self, wanted: Sequence[Wanted]) -> tuple[Wanted, ...]:
        """Name the drivers of volumes that nobody named one for, that are new to us, and that a plugin has."""
        found = []
        for each in wanted:
            record = each.record
            if record.type == "volume" and not (record.driver or record.anonymous or record.name in self.volumes):
                known = await self.strangers.find(record.name)
                if known is not None:
                    each = replace(each, record=structs.replace(record, driver=known.driver))
            found.append(each)
        return tuple(found)

    def missing(self, wanted: Sequence[Wanted]) -> list[Volume]:
        """Return the volumes that have to be made; call it with their locks held."""
        fresh: dict[str, Volume] = {}
        for each in wanted:
            record = each.record
            if record.type != "volume" or record.name in self.volumes or record.name in fresh:
                continue
            labels = None if each.labels is None else dict(each.labels)
            if record.anonymous:
                labels = {**(labels or {}), ANONYMOUS: ""}
            options = None if each.options is None else dict(each.options)
            driver = names.driver(record.driver)
            fresh[record.name] = Volume(
                name=record.name, created=time.time_ns(), driver=driver, labels=labels, options=options
            )
        return list(fresh.values())

    def located(self, record: MountRecord) -> MountRecord:
        """Return a mount with place and driver of its volume filled in.

        Raises Conflict when it has another driver, NotFound when there is none such.
        """
        if record.type != "volume":
            return record
        driver = names.driver(record.driver)
        if record.name in self.volumes:
            has = self.volumes.get(record.name).driver
            if record.driver and driver != has:
                self.remote.check_there(driver, record.name)
                raise other_driver(record.name, has)
            driver = has
        source = str(self.volumes.mountpoint(record.name)) if driver == LOCAL else ""
        return structs.replace(record, source=source, driver=driver)

    def make(self, record: Record, fresh: Sequence[Volume]) -> None:
        """Make the folders of new volumes, and fill those that the image has something for. Blocks.

        Raises SystemFailure or InvalidArgument; `unmake` takes away what there is then.
        """
        for volume in fresh:
            self.make_volume(volume)
        reach("create.volumes")
        self.population.fill(record, {volume.name: volume for volume in fresh})
        reach("create.filled")

    def instant(self, record: Record, fresh: Sequence[Volume]) -> bool:
        """Whether `make` is a few system calls on directories of ours: a thread for them would take longer."""
        ours = all(volume.local and not volume.options for volume in fresh)
        return ours and self.population.done(record, {volume.name: volume for volume in fresh})

    def make_later(self, record: Record, mounts: Sequence[MountRecord], fresh: Sequence[Volume]) -> None:
        """As `make`, for mounts that a container gets after it was made. Blocks."""
        for volume in fresh:
            self.make_volume(volume)
        self.population.fill_later(record, mounts, {volume.name: volume for volume in fresh})

    def make_volume(self, volume: Volume) -> None:
        """Make what a new volume needs; one that its plugin has already is taken as it is. Blocks.

        Raises SystemFailure; NotFound without the plugin.
        """
        if volume.local:
            self.volumes.make(volume.name)
            if size := (volume.options or {}).get("size"):
                self._limit(volume.name, quotas.parse_size(size))
        elif self.remote.create(volume.driver, volume.name, volume.options):
            self._made.add(volume.name)

    def _limit(self, name: str, size: int) -> None:
        try:
            quotas.limit(name, self.volumes.folder(""), self.volumes.mountpoint(name), size)
        except BaseException:
            self.volumes.discard(name)
            raise

    def unmake(self, fresh: Iterable[Volume]) -> None:
        """Take away what was made for volumes that are not to be. Blocks."""
        for volume in fresh:
            if volume.local:
                self.discard([volume.name])
            elif volume.name in self._made:
                self._made.discard(volume.name)
                try:
                    self.remote.remove(volume.driver, volume.name)
                except EngineError as error:
                    log.warning("a volume stays with its plugin", extra={"volume": volume.name, "error": str(error)})

    def made(self, fresh: Iterable[Volume]) -> list[Volume]:
        """Tell of new volumes, whose records are written by now, and return them.

        A plugin's that was there before is new to us alone: it is not told of, and not ours to take away again.
        """
        new = [volume for volume in fresh if volume.local or volume.name in self._made]
        for volume in fresh:
            self._made.discard(volume.name)
            self.volumes.settle(volume.name)
        for volume in new:
            self.publish(volume.name, "create", driver=volume.driver)
        return new

    # Start

    def behind(self, mount: MountRecord) -> Backing:
        """Return what is behind the volume of a mount; raises NotFound when the volume is gone."""
        volume = self.volumes.get(mount.name)
        return backing.of(volume.options, volume.driver)

    def places(self, record: Record) -> tuple[Place, ...]:
        """Return all mounts of a container that its user asked for, parents first, from the records alone."""
        found = [self._place(each) for each in record.mounts]
        for path, options in (record.host_config.tmpfs or {}).items():
            found.append(Place(os.path.normpath(path), "tmpfs", "", "", "ro" in options.split(",")))
        return tuple(sorted(found, key=lambda place: place.destination.count("/")))

    def _place(self, mount: MountRecord) -> Place:
        elsewhere = mount.type == "image" or (mount.type == "volume" and self.behind(mount).while_used)
        kind = "mounted" if elsewhere else mount.type
        return Place(mount.destination, kind, self.host_path(mount), mount.subpath, not mount.rw)

    def host_path(self, mount: MountRecord) -> str:
        """Return the path on the host that is mounted; for a volume of the kind "mounted", the one that it covers."""
        if mount.type != "volume":
            return mount.source
        behind = self.behind(mount)
        return behind.device if behind.bind else mount.source

    def file_systems(self, record: Record) -> list[str]:
        """Return the names of the volumes of a container that are file systems to be mounted."""
        return [each.name for each in record.mounts if self.is_file_system(each)]

    def is_file_system(self, mount: MountRecord) -> bool:
        """Whether a mount is that of a volume which is a file system to be mounted; raises NotFound without it."""
        return mount.type == "volume" and self.behind(mount).mounted

    def volume_mounts(self, record: Record, names: Sequence[str]) -> tuple[VolumeMount, ...]:
        """Return what the supervisor has to mount; call it with the locks of these volumes held. May ask the DNS."""
        found = []
        for name in names:
            place = str(self.volumes.mountpoint(name))
            behind = backing.resolved(backing.of(self.volumes.get(name).options), place)
            found.append(
                VolumeMount(
                    place=place,
                    fstype=behind.fstype,
                    device=behind.device,
                    flags=behind.flags,
                    data=behind.data,
                    holder=self.holder(name, record.id),
                    complaint=behind.complaint(place, ""),
                )
            )
        return tuple(found)

    def holder(self, name: str, newcomer: str = "") -> str:
        """Return a mount namespace that has a volume mounted, "" when no container that runs has it but newcomer.

        Blocks.
        """
        for container in self.catalog:
            if container.id != newcomer and name in volume_names(container.record):
                found = self.held_by(container.record, name)
                if found:
                    return found
        return ""

    def held_by(self, record: Record, name: str) -> str:
        """Return the mount namespace in which the supervisor of a container has a volume, "" for none. Blocks."""
        state = record.state
        supervisor = _parent(state.pid) if state.alive and state.pid else 0
        return filesystems.namespace_with(supervisor, str(self.volumes.mountpoint(name))) if supervisor else ""

    def mount(self, record: MountRecord, ids: Ids | None) -> Mount:
        """Return a mount as the runtime takes it. ids: of the container. Raises SystemFailure, NotFound."""
        if record.idmap:
            self._check_owner(record)
        behind = self.behind(record) if record.type == "volume" else None
        options = (*record.options, *owners.shown(record, ids, behind))
        if record.type == "image":
            part = (f"{SUBPATH}{record.subpath}",) if record.subpath else ()
            return Mount("volume", record.source, record.destination, (*options, *part))
        if behind is None:
            return Mount(record.type, record.source or record.type, record.destination, options)
        source = self.host_path(record)
        if behind.bind and not os.path.exists(source):
            raise SystemFailure(behind.complaint(record.source, "no such file or directory"))
        if record.subpath:
            options += (f"{SUBPATH}{record.subpath}",)
        if record.copy and behind.while_used:
            options += ("tmpcopyup",)
        kind = "volume" if behind.mounted else "bind"
        return Mount(kind, source, record.destination, (*options, *(behind.attributes if behind.bind else ())))

    def _check_owner(self, record: MountRecord) -> None:
        """Raise InvalidArgument when nobody can say by whose ids a mount with `idmap` would go."""
        if record.idmap.startswith(OWNER) and self.is_file_system(record):
            raise InvalidArgument(
                f"volume {record.name} is mounted for its containers alone, and whose it is cannot be seen before: "
                "give the mapping, as idmap=uids=1000-0-1;gids=1000-0-1"
            )

    # Remove

    def orphans(self, record: Record) -> list[str]:
        """Return the volumes that go with a container: nobody named them, and no other container has them."""
        mine = [each.name for each in record.mounts if each.anonymous]
        return [name for name in mine if name in self.volumes and self.users(name) == [record.id]]

    def removable(self, names: Iterable[str]) -> list[str]:
        """Begin to remove volumes; return those that can be forgotten. Blocks; raises SystemFailure.

        What a plugin cannot remove now, or has something mounted in it, stays a volume, for another attempt.
        """
        found = []
        for name in names:
            volume = self.volumes.get(name)
            try:
                self.begin_removal(volume)
                found.append(name)
            except EngineError as error:
                if volume.local and not isinstance(error, Conflict):
                    raise
                log.warning("a volume stays", extra={"volume": name, "error": error.message})
        return found

    def begin_removal(self, volume: Volume) -> None:
        """Begin to remove a volume, before its record goes; a plugin's is gone then. Blocks. Raises an EngineError."""
        if volume.local:
            if place := self.volumes.mounted_inside(volume.name):
                raise Conflict(f"remove {volume.name}: something is mounted in it, at {place}")
            self.unsettle([volume.name])
        else:
            self.remote.remove(volume.driver, volume.name)

    def unsettle(self, names: Iterable[str]) -> None:
        """Begin to remove volumes, before their records go. Blocks; raises SystemFailure."""
        for name in names:
            try:
                self.volumes.unsettle(name)
            except OSError as error:
                raise SystemFailure(f"remove {name}: {error}") from error

    def discard(self, names: Iterable[str]) -> None:
        """Delete the folders of volumes whose records are gone. Blocks; raises SystemFailure."""
        for name in names:
            self.volumes.discard(name)

    def publish(self, name: str, action: str, **more: str) -> None:
        """Publish an event of a volume."""
        self.bus.publish("volume", action, name, {"driver": LOCAL, **more})

    def publish_mounts(self, record: Record, action: str, mounts: Sequence[MountRecord] | None = None) -> None:
        """Publish that a container has, or has no longer, its volumes, or those of some of its mounts."""
        for each in record.mounts if mounts is None else mounts:
            if each.type != "volume":
                continue
            place = {
                "destination": each.destination,
                "propagation": each.propagation,
                "read/write": str(each.rw).lower(),
            }
            told = place if action == "mount" else {}
            self.publish(each.name, action, container=record.id, driver=each.driver, **told)


def _parent(pid: int) -> int:
    """Return the parent of a process, 0 when it is gone; proc_pid_stat(5)."""
    try:
        with procfs.Process(pid) as process:
            return process.stat().parent
    except (FileNotFoundError, ProcessLookupError):
        return 0


def other_driver(name: str, driver: str) -> Conflict:
    """Return dockerd's refusal to have two volumes of one name."""
    return Conflict(f'create {name}: a volume named {name} already exists with the "{driver}" driver. '
                    "Choose a different volume name")


def volume_names(record: Record) -> set[str]:
    """Return the names of a container's volumes."""
    return {each.name for each in record.mounts if each.type == "volume"}
