"""docker cp and docker export: files of a container out of it and into it, whether it runs or not.

A container that does not run is mounted for the time of the copy, and is not started meanwhile: its lock is held. One
that runs is looked at through a copy of its own mounts, see `rootfs.view`, and goes on undisturbed.
"""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from wherry.archive.compression import CompressionError, decompressed
from wherry.archive.tar import Source, TarError
from wherry.containers.catalog import Container
from wherry.containers.record import MountRecord
from wherry.errors import Conflict, InvalidArgument, SystemFailure
from wherry.kernel import const, fileids
from wherry.models.queries import ArchiveAnswer, ExtractQuery, PathStat
from wherry.packing.pack import Packer
from wherry.packing.unpack import KindMismatch, Unpacker
from wherry.rootfs import guarded, paths, view
from wherry.rootfs.view import Kept, View
from wherry.runtime.idmaps import Ids
from wherry.runtime.mountoptions import IDMAP
from wherry.runtime.passwd import Accounts
from wherry.runtime.setup import SetupError
from wherry.services import owners
from wherry.services.chunks import Chunks
from wherry.services.lifecycle import Lifecycle
from wherry.services.pace import at_their_pace
from wherry.supervision import remains

Result = TypeVar("Result")
_FOLDER = const.O_PATH | os.O_DIRECTORY
_FILES = ("hosts", "hostname", "resolv.conf")
_REFUSED = (
    errno.EROFS, errno.EBUSY, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ESTALE, errno.EAGAIN,
    errno.ENOTEMPTY,
)  # fmt: skip
"""What the place says to a copy that cannot be right, as opposed to a disk that fails.

EAGAIN (see `pathsafe`) and ENOTEMPTY come of names that the container changes meanwhile.
"""


@dataclass(frozen=True, slots=True)
class Copying:
    """Copies out of and into containers. ref: the container as the client calls it, for messages."""

    lifecycle: Lifecycle

    async def look(self, container: Container, ref: str, path: str) -> PathStat:
        """Say what a path names."""
        async with self._view(container) as tree:
            return await _work(paths.look, tree.root, path, f"in container {ref}")

    async def take(self, container: Container, ref: str, path: str) -> ArchiveAnswer:
        """Return a tar of what a path names, and what that is."""
        held = AsyncExitStack()
        try:
            tree = await held.enter_async_context(self._view(container))
            where = f"in container {ref}"
            found = await _work(paths.look, tree.root, path, where)
            source = await _work(_Source.open, tree.root, path, found, where)
            held.callback(os.close, source.folder)
        except BaseException:
            await held.aclose()
            raise
        self.lifecycle.publish(container, "archive-path")
        return ArchiveAnswer(found, Chunks(source.packed(tree.ids_at(source.folder)), held))

    async def put(self, container: Container, ref: str, query: ExtractQuery, body: BinaryIO) -> None:
        """Unpack a tar, compressed or not, in a directory of the container."""
        async with self._view(container) as tree:
            # A descriptor of its own: when the engine stops, the view is closed while this still waits for the client
            target = _Target(os.dup(tree.root), tree, self.lifecycle.settings.data_root)
            await _work(_put, target, container.record.config.user, query, body, f"in container {ref}")
        self.lifecycle.publish(container, "extract-to-dir")

    async def export(self, container: Container) -> Chunks[bytes]:
        """Return a tar of the whole root file system, without what is mounted into it."""
        held = AsyncExitStack()
        try:
            tree = await held.enter_async_context(self._view(container, bare=True))
        except BaseException:
            await held.aclose()
            raise
        self.lifecycle.publish(container, "export")
        return Chunks(_exported(tree.root, tree.ids), held)

    @asynccontextmanager
    async def _view(self, container: Container, *, bare: bool = False) -> AsyncIterator[View]:
        """Give the container's tree; bare: without its mounts."""
        async with AsyncExitStack() as stack:
            if not container.record.state.alive:
                await stack.enter_async_context(container.lock)
            kept = () if bare else self._kept(container)
            if container.record.state.alive:  # it may have been started while we waited
                tree = await _work(_of_running, container, kept)
            else:
                tree = await _work(self._of_stopped, container, kept)
            try:
                yield tree
            finally:
                await at_their_pace(tree.close)

    def _kept(self, container: Container) -> tuple[Kept, ...]:
        record, settings = container.record, self.lifecycle.settings
        root = settings.container_root(record.id)
        ids = Ids.of_words(record.state.ids) if record.state.alive else settings.ids_of(record.host_config)
        own = ids.words if ids is not None and record.state.alive else ""
        mounts = {f"/etc/{name}": Kept(f"/etc/{name}", str(root / name), idmap=own) for name in _FILES}
        records = {each.destination: each for each in record.mounts}
        for each in self.lifecycle.provision.places(record):
            running, shown, foreign = each.kind == "mounted", "", None
            if not running and each.destination in records:
                shown, foreign = self._owners(records[each.destination], ids, alive=record.state.alive)
            mounts[each.destination] = Kept(
                *(each.destination, each.source, each.read_only, each.subpath),
                running=running, idmap=shown, ids=foreign,
            )  # fmt: skip
        return tuple(mounts.values())

    def _owners(self, mount: MountRecord, ids: Ids | None, *, alive: bool) -> tuple[str, Ids | None]:
        """Return how owners are mapped in a mount that is made for the view, and the ids that it has all the same.

        In that of a container that runs files have the host's ids; in one that does not, those that the container sees,
        but for folders of the host.
        """
        behind = self.lifecycle.provision.behind(mount) if mount.type == "volume" else None
        if alive or ids is None:
            return "".join(owners.shown(mount, ids, behind)).removeprefix(IDMAP), None
        if mount.idmap:
            return mount.idmap, None
        return "", None if owners.shown(mount, ids, behind) else ids

    def _of_stopped(self, container: Container, kept: tuple[Kept, ...]) -> View:
        life = self.lifecycle
        if container.id not in life.catalog:
            raise Conflict(f"container {container.id} has been removed")
        mounts = life.snapshotter.mounts(container.id)
        read_only = container.record.host_config.readonly_rootfs
        layers = life.snapshotter.mount_namespace
        return view.of_stopped(mounts, kept, life.settings.rootfs_path, read_only=read_only, layers=layers)


def _of_running(container: Container, kept: tuple[Kept, ...]) -> View:
    state, task = container.record.state, container.task
    pidfd = remains.open_process(state.pid, state.start_time) if state.pid else None  # it may end as we come here
    ids = Ids.of_words(state.ids)
    ended = Conflict(f"container {container.id} ended just now; try again")
    if pidfd is None:
        raise ended
    try:
        if container.record.may_mount:
            return guarded.of_running(pidfd, kept, ids, root_device=task.root_device if task is not None else 0)
        return view.of_running(pidfd, kept, ids)
    except ProcessLookupError as error:
        raise ended from error
    finally:
        os.close(pidfd)


async def _work(job: Callable[..., Result], *arguments: object) -> Result:
    """Run blocking work; what the kernel says of it becomes the engine's error."""
    try:
        return await at_their_pace(job, *arguments)
    except (TarError, CompressionError) as error:
        raise InvalidArgument(f"cannot unpack the archive: {error}") from error
    except SetupError as error:
        raise InvalidArgument(str(error)) from error
    except OSError as error:
        kind = InvalidArgument if error.errno in _REFUSED else SystemFailure
        raise kind(f"cannot copy: {error}") from error


@dataclass(frozen=True, slots=True)
class _Source:
    """What is to be packed. folder: an open directory. base: in it, "" for itself. name: in the tar."""

    folder: int
    base: str
    name: bytes

    @classmethod
    def open(cls, root: int, text: str, found: PathStat, where: str) -> _Source:
        path = paths.clean(text)
        name = os.fsencode(posixpath.basename(path.rstrip("/")) or "/")
        if found.is_folder:
            return cls(paths.open_at(root, path, _FOLDER, where=where), "", name)
        above, _, base = path.rpartition("/")
        return cls(paths.open_at(root, above or "/", _FOLDER, where=where), base, name)

    def packed(self, ids: Ids | None) -> Generator[bytes, None, None]:
        packer = Packer(self.folder, owner=ids.own if ids else None)
        yield from packer.one(self.base, self.name) if self.base else packer.tree("", self.name)
        yield from packer.end()


def _exported(root: int, ids: Ids | None) -> Generator[bytes, None, None]:
    packer = Packer(root, owner=ids.own if ids else None)
    yield from packer.tree("", b"", itself=False)
    yield from packer.end()


@dataclass(frozen=True, slots=True)
class _Target:
    """A tree to unpack into. root: its root. ours: a folder of the engine's, whose disk must not become full."""

    root: int
    view: View
    ours: Path

    def unpack(self, folder: int, body: Source, **how: Any) -> None:
        """Unpack a tar in a folder of the tree."""
        how["reserve"] = os.fstat(folder).st_dev in (os.fstat(self.root).st_dev, os.stat(self.ours).st_dev)
        ids = self.view.ids_at(folder)
        if ids is None:
            Unpacker(folder, **how).run(body)
        else:
            with fileids.adopted(*ids.host(0, 0)):
                Unpacker(folder, ids=ids.host, **how).run(body)


def _put(target: _Target, user: str, query: ExtractQuery, body: BinaryIO, where: str) -> None:
    """Unpack; closes the root of `target`."""
    root = target.root
    folder = -1
    try:
        path = paths.clean(query.path)
        folder = paths.open_at(root, path, const.O_PATH, where=where)
        if not paths.is_folder(folder):
            raise InvalidArgument("extraction point is not a directory")
        if os.fstatvfs(folder).f_flag & os.ST_RDONLY:
            same = os.fstat(folder).st_dev == os.fstat(root).st_dev
            what = "container rootfs" if same else "mounted volume"
            raise InvalidArgument(f"{what} is marked read-only")
        owner = None
        if query.copy_owner and user:
            identity = Accounts(root).identify(user)
            owner = identity.uid, identity.gid
        try:
            target.unpack(folder, decompressed(body)[0], owner=owner, replace=not query.keep_kind)
        except KindMismatch as error:
            raise InvalidArgument(f'{error} "{path}"') from error
    finally:
        for fd in (folder, root):
            if fd >= 0:
                os.close(fd)
