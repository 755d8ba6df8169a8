"""Mounts of containers that exist: added and taken away while they run, and for each start from then on.

    add      record, with new volumes --> mounted in the container       whatever fails undoes what was before it, and
                                                                         what is given up is not mounted later
    remove   unmounted in the container --> record

So an engine that dies between the two leaves a record that says more than is mounted, never less: what a container has
mounted is in use, and the next start of the container mounts it.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec import structs

from wherry.containers import present
from wherry.containers.catalog import Container
from wherry.containers.record import MountRecord, Record
from wherry.errors import (
    Conflict,
    EngineError,
    InvalidArgument,
    NotFound,
    SystemFailure,
    Unavailable,
)
from wherry.failpoints import limit, reach
from wherry.kernel import const, mountapi, procfs
from wherry.models.container import ContainerConfig, HostConfig
from wherry.rootfs import filesystems, joining
from wherry.rootfs.joining import Known, NotThere, Running
from wherry.runtime import mountoptions
from wherry.runtime.idholder import spawned
from wherry.runtime.idmaps import Ids, map_owners
from wherry.runtime.ops_mounts import apply_options, make_filesystem
from wherry.runtime.ops_volumes import open_part
from wherry.runtime.setup import reason
from wherry.runtime.sources import of_host
from wherry.services import binds, imagemounts, propagation
from wherry.services.binds import Wanted
from wherry.services.lifecycle import Lifecycle
from wherry.services.pace import Permit, at_their_pace
from wherry.services.provision import volume_names
from wherry.supervision import remains
from wherry.volumes.records import Volume

if TYPE_CHECKING:
    from collections.abc import Iterator

Json = Any
T = TypeVar("T")
log = logging.getLogger(__name__)

PATIENCE = 30.0
"""Seconds that the kernel may take: a server of a file system that does not answer holds up nobody but who asked."""

_REFUSED = {
    errno.ENOTDIR: "a file cannot be mounted on a directory, nor the reverse",
    errno.EXDEV: "the container may mount file systems, and the path leads through one",
    errno.ELOOP: "too many levels of symbolic links",
    errno.EROFS: "there is no such place, and its file system is read-only",
    errno.EPERM: "",
    errno.ESTALE: "the container changes the path all the time",
    errno.EAGAIN: "the container changes the path all the time",
    errno.ENOENT: "the container changes the path all the time",
}


@dataclass(frozen=True, slots=True)
class Mounting:
    """MountsBackend: ours, and not Docker's."""

    lifecycle: Lifecycle

    async def listing(self, ref: str) -> Json:
        """GET /wherry/v1/containers/ID/mounts."""
        container = self.lifecycle.catalog.resolve(ref)
        return {"Mounts": [present.mount(each) for each in container.record.mounts]}

    async def add(self, ref: str, asked: HostConfig) -> Json:
        """POST to the same: mount more, in the words of -v (binds) and --mount (mounts)."""
        container = self.lifecycle.catalog.resolve(ref)
        driver = container.record.host_config.volume_driver
        host = HostConfig(binds=asked.binds, mounts=asked.mounts, volume_driver=driver)
        wanted = binds.resolve(host, ContainerConfig(user=container.record.config.user))
        if not wanted:
            raise InvalidArgument("no mount given, such as /srv/data:/data")
        wanted = await self.lifecycle.provision.recognised(wanted)
        async with container.lock:
            self._check(container)
            _check_unique(container.record, wanted)
            if container.record.state.alive:
                _check_places(container, [each.record.destination for each in wanted])
            names = [each.record.name for each in wanted if each.record.type == "volume"]
            async with self.lifecycle.provision.holding(names):
                await self._add(container, host, wanted)
        return await self.listing(container.id)

    def _check(self, container: Container) -> None:
        self.lifecycle.catalog.check_is_there(container)
        if container.record.state.status in ("removing", "dead"):
            raise Conflict(f"container {container.name} is marked for removal")

    async def _add(self, container: Container, host: HostConfig, wanted: Sequence[Wanted]) -> None:
        provision, before = self.lifecycle.provision, container.record
        fresh = provision.missing(wanted)
        root, images = self.lifecycle.settings.container_root(container.id), self.lifecycle.images
        added = [provision.located(imagemounts.located(each.record, root, images)) for each in wanted]
        try:
            await asyncio.to_thread(provision.make_later, before, added, fresh)
            with provision.volumes.recording(fresh):
                # of the record as it is by now: the container may have ended meanwhile
                self.lifecycle.catalog.save(container, _with(container.record, host, added))
        except EngineError:
            await asyncio.to_thread(provision.unmake, fresh)
            raise
        reach("mount.recorded")
        new = provision.made(fresh)
        if container.record.state.alive:
            try:
                added = await self._placed(container, added)
                await self._attach(container, added)
            except EngineError:
                await self._undo(container, before, added, fresh, new)
                raise
            reach("mount.attached")
            provision.publish_mounts(container.record, "mount", added)
        self.lifecycle.publish(container, "update")

    async def _placed(self, container: Container, added: Sequence[MountRecord]) -> list[MountRecord]:
        """Have the plugins mount their volumes, and write down where; return these mounts as they are then."""
        places = {each.destination for each in added}
        mounts = (await self.lifecycle.provision.plugin_mounts.mounted_later(container.record, added)).mounts
        if mounts != container.record.mounts:
            self.lifecycle.catalog.save(container, structs.replace(container.record, mounts=mounts))
        return [each for each in mounts if each.destination in places]

    async def _attach(self, container: Container, added: Sequence[MountRecord]) -> None:
        done: list[MountRecord] = []
        try:
            for each in added:
                await self._hold(container, each)
                await self._inside(container, self._put, each)
                done.append(each)
        except EngineError:
            for each in reversed(done):
                try:
                    await self._inside(container, self._take, each, True)
                except EngineError as failure:
                    log.warning("a mount may stay", extra={"container": container.id, "error": failure.message})
            raise

    async def _hold(self, container: Container, mount: MountRecord) -> None:
        """Have the supervisor keep a volume mounted that is a file system of its own."""
        if self.lifecycle.provision.is_file_system(mount):
            namespace = await self._inside(container, self._mounted, mount)
            try:
                if namespace >= 0 and container.task is not None:
                    await container.task.hold({_key(mount): namespace})
            finally:
                if namespace >= 0:
                    os.close(namespace)

    async def _release(self, container: Container, gone: Sequence[MountRecord], kept: Record) -> None:
        """Have the supervisor let go of file systems that the container does not have any more."""
        names = volume_names(kept)
        keys = [_key(each) for each in gone if each.name not in names and self.lifecycle.provision.is_file_system(each)]
        if keys and container.task is not None:
            try:
                await container.task.release(keys)
            except EngineError as error:
                log.warning("a volume stays mounted", extra={"container": container.id, "error": error.message})

    async def _undo(
        self,
        container: Container,
        before: Record,
        added: Sequence[MountRecord],
        fresh: Sequence[Volume],
        new: Sequence[Volume],
    ) -> None:
        """Take the mounts out of the record again, forget the volumes that are fresh here, and remove new ones.

        A plugin's volume that was there before is fresh and not new.
        """
        provision = self.lifecycle.provision
        await self._release(container, added, before)
        await provision.plugin_mounts.part_later(before, [each for each in added if each.source])  # mounted by then
        names = await at_their_pace(provision.removable, [each.name for each in new])
        with provision.volumes.forgetting([*names, *(each.name for each in fresh if each not in new)]):
            now, held = container.record, before.host_config
            host = structs.replace(now.host_config, binds=held.binds, mounts=held.mounts)
            self.lifecycle.catalog.save(container, structs.replace(now, host_config=host, mounts=before.mounts))
        await asyncio.to_thread(provision.discard, names)
        for name in names:
            provision.publish(name, "destroy")

    async def remove(self, ref: str, target: str, *, force: bool) -> Json:
        """DELETE of the same: unmount what is at `target`, and mount it no more. Raises NotFound, Conflict (in use)."""
        container = self.lifecycle.catalog.resolve(ref)
        destination = binds.clean_destination(target, "")
        async with container.lock:
            self._check(container)
            record = container.record
            found = next((each for each in record.mounts if each.destination == destination), None)
            if found is None:
                raise NotFound(f"container {container.name} has no mount at {destination}")
            if record.state.alive:
                if not force:
                    _check_places(container, [destination])
                await self._inside(container, self._take, found, force)
                reach("mount.detached")
            self.lifecycle.catalog.save(container, _without(container.record, destination))
            if record.state.alive:
                self.lifecycle.provision.publish_mounts(record, "unmount", [found])
                await self.lifecycle.provision.plugin_mounts.part_later(container.record, [found])
                await self._release(container, [found], container.record)
        self.lifecycle.publish(container, "update")
        return await self.listing(container.id)

    # In threads, with the container's lock held

    async def _inside(self, container: Container, work: Callable[..., T], *arguments: object) -> T:
        """Do blocking work on a running container; it owns what it uses, so that it may be given up.

        What is given up does not mount anything later: it gets a permit, which is closed then.
        """
        permit = Permit()
        doing = at_their_pace(work, container, permit, *arguments)
        try:
            async with asyncio.timeout(limit("mount.patience", PATIENCE)):
                return await asyncio.shield(doing)
        except TimeoutError:
            if await at_their_pace(permit.close):  # it did so in this moment, and only has to come back
                return await doing
            doing.add_done_callback(partial(_ended_late, container.id))
            raise Unavailable(
                f"container {container.name}: a file system has not answered for {PATIENCE:.0f} s; "
                "wherry mount ls says what is mounted"
            ) from None

    def _mounted(self, container: Container, permit: Permit, mount: MountRecord) -> int:
        """Return a mount namespace that has a volume mounted, -1 when the container's supervisor has one already."""
        provision, name = self.lifecycle.provision, mount.name
        if provision.held_by(container.record, name):
            return -1
        (volume,) = provision.volume_mounts(container.record, [name])
        try:
            namespace = filesystems.made(volume)
        except OSError as error:
            raise SystemFailure(volume.complaint + reason(error)) from error
        try:
            reach("mount.made")
            with permit.used():
                return namespace
        except BaseException:
            os.close(namespace)
            raise

    def _put(self, container: Container, permit: Permit, mount: MountRecord) -> None:
        tree = self._tree(container, mount)
        try:
            reach("mount.opened")
            with _running(container, mount.destination) as inside:
                joining.add(inside, tree, mount.destination, permit.used)
        finally:
            os.close(tree)

    def _tree(self, container: Container, mount: MountRecord) -> int:
        """Return what is to be mounted, detached."""
        provision, ids = self.lifecycle.provision, Ids.of_words(container.record.state.ids)
        if mount.type == "image":
            place = self.lifecycle.settings.rootfs_path
            may_mount = container.record.may_mount
            return imagemounts.opened(mount, self.lifecycle.snapshotter, place, ids, may_mount=may_mount)
        binds.make_source(mount, ids)
        propagation.check([mount])
        wanted = provision.mount(mount, ids)
        options = mountoptions.parse(wanted.options)
        try:
            if mount.type == "tmpfs":
                data = options.data if ids is None else ids.settings(("uid=0", "gid=0", *options.data))
                tree = make_filesystem("tmpfs", "tmpfs", data, options.attributes)
            elif self.lifecycle.provision.is_file_system(mount):
                namespace = provision.held_by(container.record, mount.name)
                if not namespace:
                    raise Conflict(f"container {container.id} ended just now; try again")
                tree = filesystems.copied(namespace, wanted.source, mount.subpath)
            elif options.subpath:
                tree = open_part(wanted.source, options.subpath)
            else:
                deep = const.AT_RECURSIVE if options.recursive else 0
                tree = of_host(wanted.source, deep)
        except OSError as error:
            raise SystemFailure(f"cannot mount {wanted.source}: {error}") from error
        try:
            if ids is not None:
                _lock(tree, wanted.source, may_mount=container.record.may_mount)
            apply_options(tree, options)
            if options.idmap:
                map_owners(tree, wanted.source, options.idmap, spawned)
        except OSError as error:
            os.close(tree)
            raise SystemFailure(f"cannot mount {wanted.source}: {error}") from error
        return tree

    def _take(self, container: Container, _: Permit, mount: MountRecord, force: bool) -> None:
        """Given up, it is taken out later nevertheless: the record then says more than is mounted, never less."""
        known = self._known(mount)
        place = mount.destination
        try:
            with _running(container, place) as inside:
                joining.remove(inside, place, known, force=force)
        except NotThere:
            if not force:
                raise Conflict(
                    f"what is at {place} in container {container.name} is not the mount that the engine made; "
                    "--force takes it out of the record"
                ) from None

    def _known(self, mount: MountRecord) -> Known:
        provision = self.lifecycle.provision
        if mount.type == "tmpfs":
            return Known("tmpfs")
        if self.lifecycle.provision.is_file_system(mount):
            return Known(provision.behind(mount).fstype)
        source = provision.host_path(mount)
        if mount.type == "image":
            view = self.lifecycle.snapshotter.view(mount.chain_id)
            if view.type != "bind":
                return Known(view.type)
            source = view.source
        try:
            fd = open_part(source, mount.subpath) if mount.subpath else os.open(source, const.O_PATH | os.O_CLOEXEC)
        except OSError:
            return Known()
        try:
            state = os.fstat(fd)
            return Known(state=(state.st_dev, state.st_ino))
        finally:
            os.close(fd)


def _lock(tree: int, source: str, *, may_mount: bool) -> None:
    """Let nothing that a container with a user namespace mounts get out to the host, and nothing be undone there.

    At a start the kernel sees to both (docs/kernel/user-namespaces.md). Raises OSError EPERM for a container that may
    mount, and so could make writable what the host has mounted read-only.
    """
    mountapi.mount_setattr(tree, 0, propagation=const.MS_SLAVE, recursive=True)
    if not may_mount:
        return
    place = os.path.realpath(source)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        mounts = [procfs.parse_mount(line) for line in table.read().splitlines()]
    above = max((each.target for each in mounts if f"{place}/".startswith(f"{each.target.rstrip('/')}/")), key=len)
    within = [each for each in mounts if each.target == above or each.target.startswith(f"{place}/")]
    flags = sorted({flag for each in within for flag in each.options} & {"ro", "nosuid", "nodev", "noexec"})
    if flags:
        raise OSError(
            errno.EPERM,
            f"the host has it mounted {','.join(flags)}, which a container that may mount could undo; "
            "give it with -v at the container's start",
        )


def _ended_late(container_id: str, work: asyncio.Future[Any]) -> None:
    error = None if work.cancelled() else work.exception()
    log.warning("what was given up has ended", extra={"container": container_id, "error": str(error or "")})


@contextmanager
def _running(container: Container, place: str) -> Iterator[Running]:
    """Give the running container; what the kernel says in the block becomes the engine's error."""
    state, task = container.record.state, container.task
    pidfd = remains.open_process(state.pid, state.start_time) if state.pid else None
    if pidfd is None:
        raise Conflict(f"container {container.id} ended just now; try again")
    try:
        device = task.root_device if task is not None else 0
        yield Running(pidfd, device, container.record.may_mount, Ids.of_words(state.ids))
    except ProcessLookupError as error:
        raise Conflict(f"container {container.id} ended just now; try again") from error
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise Conflict(
                f"{place} is in use by a process of container {container.name}, or something is mounted in it; "
                "--force takes it away nevertheless"
            ) from error
        if error.errno in _REFUSED:
            raise InvalidArgument(f"{place} in container {container.name}: {_REFUSED[error.errno] or error}") from error
        raise SystemFailure(f"{place} in container {container.name}: {error}") from error
    finally:
        os.close(pidfd)


def _check_places(container: Container, places: Sequence[str]) -> None:
    """Raise Conflict for what could not be taken away again while the container runs."""
    for place in filter(joining.is_the_kernels, places):
        raise Conflict(f"{place} in container {container.name}: nothing is mounted in /proc, /sys or /dev, nor taken "
                       "away there, while a container runs: stop it first")  # fmt: skip


def _key(mount: MountRecord) -> str:
    """Return by what name the supervisor holds the file system of a volume."""
    return f"volume {mount.name}"


def _check_unique(record: Record, wanted: Sequence[Wanted]) -> None:
    taken = {each.destination for each in record.mounts}
    taken |= {binds.clean_destination(path, "") for path in record.host_config.tmpfs or ()}
    for each in wanted:
        if each.record.destination in taken:
            raise InvalidArgument(f"Duplicate mount point: {each.record.destination}")


def _with(record: Record, host: HostConfig, added: Sequence[MountRecord]) -> Record:
    """Return a record with more mounts, as if it had been made with them."""
    held = record.host_config
    merged = structs.replace(
        held,
        binds=[*(held.binds or ()), *(host.binds or ())] or None,
        mounts=[*(held.mounts or ()), *(host.mounts or ())] or None,
    )
    mounts = sorted([*record.mounts, *added], key=lambda each: each.destination.count("/"))
    return structs.replace(record, host_config=merged, mounts=tuple(mounts))


def _without(record: Record, destination: str) -> Record:
    """Return a record without the mount at a place."""
    held, config = record.host_config, record.config

    def stays(place: str) -> bool:
        return binds.clean_destination(place, "") != destination

    merged = structs.replace(
        held,
        binds=[each for each in held.binds or () if stays(binds.parse_bind(each).record.destination)] or None,
        mounts=[each for each in held.mounts or () if stays(each.target)] or None,
    )
    volumes = {path: value for path, value in (config.volumes or {}).items() if stays(f"/{path}")}
    kept = tuple(each for each in record.mounts if each.destination != destination)
    config = structs.replace(config, volumes=volumes or None)
    return structs.replace(record, host_config=merged, config=config, mounts=kept)
