"""A container's tree, with its volumes, in a mount namespace that nobody lives in.

A view is two descriptors, of the namespace and of the tree's root in it. All work goes through the root with
openat2(2), so that paths lead where they would inside, and nowhere else. The mounts are gone when both are closed, or
when we die.

    running    the container's own root mount and those of its mounts that were asked for, taken out of its namespace:
               what is written is seen inside at once. Not /proc, /sys, /dev, nor what it has mounted itself
    stopped    mounted as at its start

A thread of its own does the mounting, since namespaces(7) belong to threads: it goes where it has to and ends there.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from wherry.kernel import const, mountapi, pathsafe
from wherry.kernel.aside import aside
from wherry.kernel.namespaces import owner, parent, setns, unshare
from wherry.runtime import mountoptions
from wherry.runtime.idholder import spawned
from wherry.runtime.idmaps import Ids, map_owners
from wherry.runtime.mounts import Mount
from wherry.runtime.ops_root import attach_root, mount_root
from wherry.runtime.ops_volumes import open_part
from wherry.runtime.roots import make_root
from wherry.runtime.sources import of_host

T = TypeVar("T")
_CHANGED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL)


@dataclass(frozen=True, slots=True)
class Kept:
    """A mount of the container that belongs into the view. source: on the host, "" for a file system in memory.

    subpath: the part of source that is mounted. running: it is there only while the container runs. idmap: how the
    owners of the source are seen when it is mounted here, as `runtime.idmaps` has it, "" for as they are. ids: those
    that the container has for them nevertheless, see `View`.
    """

    destination: str
    source: str = ""
    read_only: bool = False
    subpath: str = ""
    running: bool = False
    idmap: str = ""
    ids: Ids | None = None


@dataclass(slots=True)
class View:
    """root: an O_PATH descriptor of the tree's root. Whoever has a view closes it.

    ids: files have the host's ids for those that the container sees, None when both are the same; foreign: those of
    single mounts, by their numbers.
    """

    root: int
    _namespace: int
    ids: Ids | None = None
    foreign: dict[int, Ids] = field(default_factory=dict)

    def ids_at(self, folder: int) -> Ids | None:
        """Return the ids of the mount that a descriptor is on."""
        return self.foreign.get(_mount_id(folder), self.ids) if self.foreign else self.ids

    def close(self) -> None:
        """Unmount everything."""
        for fd in (self.root, self._namespace):
            if fd >= 0:
                os.close(fd)
        self.root = self._namespace = -1


def of_running(pidfd: int, kept: Iterable[Kept], ids: Ids | None) -> View:
    """Return the view of the container in which the process lives; not of one that may mount, see `rootfs.guarded`.

    ids: of its user namespace. Raises OSError: ESRCH when the process is gone, EPERM when the container has replaced
    its mount namespace.
    """
    return inside(pidfd, lambda thread: gathered(lambda top: _taken(top, kept)), ids)


def inside(pidfd: int, take: Callable[[int], list[tuple[str, int]]], ids: Ids | None) -> View:
    """Return the view of what `take` returns in a copy of a process's mount namespace, where all mounts are private.

    take(thread): gets a descriptor of its own thread in our procfs; returns places and mounts, the root first. In a
    namespace that belongs to another user namespace the mounts are taken themselves, and put together elsewhere: in a
    copy of ours they would be locked into each other (mount_namespaces(7)).
    """
    home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)

    def job(thread: int) -> View:
        if ids is None:
            unshare(const.CLONE_NEWNS)
            _make_private("/")
            taken = take(thread)
        else:
            taken = take(thread)
            for _, tree in taken:
                mountapi.mount_setattr(tree, 0, propagation=const.MS_PRIVATE, recursive=True)
            setns(home, const.CLONE_NEWNS)
            unshare(const.CLONE_NEWNS)
            _make_private("/")
        view = attach(taken, os.open("ns/mnt", os.O_RDONLY | os.O_CLOEXEC, dir_fd=thread))
        view.ids = ids
        return view

    try:
        return visiting(pidfd, job, remapped=ids is not None)
    finally:
        os.close(home)


def visiting(pidfd: int, work: Callable[[int], T], *, remapped: bool) -> T:
    """Return what `work` returns, done by a thread of its own in a process's mount namespace; that is its root.

    work(thread): gets a descriptor of its own thread in our procfs. remapped: whether the engine has given it a user
    namespace. Raises OSError: ESRCH when the process is gone, EPERM when it has moved to another one itself.
    """

    def job() -> T:
        # Of our procfs: in there /proc is the container's
        thread = os.open("/proc/thread-self", const.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            unshare(const.CLONE_FS)
            setns(pidfd, const.CLONE_NEWNS)
            _check_owner(thread, remapped=remapped)
            return work(thread)
        finally:
            os.close(thread)

    return aside(job)


def of_stopped(
    mounts: tuple[Mount, ...], kept: Iterable[Kept], place: Path, *, read_only: bool, layers: int = -1
) -> View:
    """Return the view of a container that does not run. mounts: of the storage driver. place: any directory.

    layers: the mount namespace of the storage driver, -1 for none.
    The caller sees to it that the container is not started meanwhile. Raises OSError from the mounts.
    """

    def job() -> View:
        unshare(const.CLONE_FS | const.CLONE_NEWNS)
        namespace = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _make_private("/")
            root = _mount_root(mounts[0], str(place), layers)
        except BaseException:
            os.close(namespace)
            raise
        view = View(root, namespace)
        try:
            for each in in_order(kept):
                if each.source and not each.running and os.path.lexists(each.source):
                    _mount(view, each)
            if read_only:
                mountapi.mount_setattr(root, const.MOUNT_ATTR_RDONLY)
        except BaseException:
            view.close()
            raise
        return view

    return aside(job)


def _mount_root(mount: Mount, place: str, layers: int) -> int:
    options = mountoptions.parse(mount.options)
    if not options.layers:
        return mount_root(mount.type, mount.source, options, place)
    root = make_root(mount, layers)
    try:
        attach_root(root, place)
    except BaseException:
        os.close(root)
        raise
    return root


def _check_owner(thread: int, *, remapped: bool) -> None:
    """Raise EPERM when the mount namespace that this thread is in belongs to a user namespace that a container made.

    A process can make itself one where no seccomp profile forbids it, and in there may mount what it likes. The
    engine's are children of ours, and no process in one of those can make another child of ours.
    """
    mounts = os.open("ns/mnt", os.O_RDONLY | os.O_CLOEXEC, dir_fd=thread)
    try:
        theirs = owner(mounts)
    finally:
        os.close(mounts)
    try:
        if remapped:
            made, theirs = theirs, parent(theirs)
            os.close(made)
        if not os.path.samestat(os.fstat(theirs), os.stat("ns/user", dir_fd=thread)):
            raise OSError(errno.EPERM, "the container has moved to a user namespace of its own")
    finally:
        os.close(theirs)


def in_order(kept: Iterable[Kept]) -> list[Kept]:
    """Return the mounts with those first that others are in."""
    return sorted(kept, key=lambda each: each.destination.count("/"))


def _make_private(path: str) -> None:
    """What is mounted from here on is for nobody else, and what others mount does not arrive."""
    top = os.open(path, const.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mountapi.mount_setattr(top, 0, propagation=const.MS_PRIVATE, recursive=True)
    finally:
        os.close(top)


def source_of(kept: Kept, *, nested: bool = True) -> int:
    """Return a copy of what is to be mounted, -1 when a part of a volume is not there, or leads out of it.

    nested: with what is mounted in it.
    """
    if not kept.subpath:
        flags = const.AT_RECURSIVE if nested else 0
        return of_host(kept.source, flags)
    try:
        return open_part(kept.source, kept.subpath)
    except OSError as error:
        if error.errno in (*_CHANGED, errno.EXDEV):
            return -1
        raise


def show_owners(tree: int, kept: Kept) -> bool:
    """Map the owners of a copy of a source, if they are to be. Raises OSError.

    False when its file system cannot: then nothing is to be written there.
    """
    try:
        if kept.idmap:
            map_owners(tree, kept.source, kept.idmap, spawned)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return False
    return True


def _mount_id(fd: int) -> int:
    """The number of the mount that a descriptor is on, proc_pid_fdinfo(5)."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as info:
        return next(int(line.split()[1]) for line in info if line.startswith("mnt_id:"))


def _mount(view: View, kept: Kept) -> None:
    tree = source_of(kept)
    if tree < 0:
        return
    try:
        if not show_owners(tree, kept) or kept.read_only:
            mountapi.mount_setattr(tree, const.MOUNT_ATTR_RDONLY, recursive=True)
        make = pathsafe.make_directories if stat.S_ISDIR(os.fstat(tree).st_mode) else pathsafe.make_file
        target = make(view.root, kept.destination)
        try:
            mountapi.move_mount(tree, target, kept.destination)
            if kept.ids is not None:
                view.foreign[_mount_id(tree)] = kept.ids
        finally:
            os.close(target)
    finally:
        os.close(tree)


def gathered(take: Callable[[int], Iterator[tuple[str, int]]]) -> list[tuple[str, int]]:
    """Return the copies of mounts that `take(top)` yields with their places, or, when it fails, none.

    top: the root of the calling thread, which has a copy of the container's namespace.
    """
    top = os.open("/", const.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    taken: list[tuple[str, int]] = []
    try:
        for each in take(top):
            taken.append(each)  # noqa: PERF402  what was yielded before a failure is closed
    except BaseException:
        for _, tree in taken:
            os.close(tree)
        raise
    finally:
        os.close(top)
    return taken


def _taken(top: int, kept: Iterable[Kept]) -> Iterator[tuple[str, int]]:
    """Yield copies of the container's mounts, its root first."""
    yield "/", mountapi.clone_fd(top)
    for each in in_order(kept):
        tree = _take(top, each)
        if tree >= 0:
            yield each.destination, tree


def _take(top: int, kept: Kept) -> int:
    """Return a copy of one mount, -1 when the container has changed it into something that we had better not touch."""
    try:
        fd = pathsafe.open_path(top, kept.destination)
    except OSError as error:
        if error.errno in _CHANGED:
            return -1
        raise
    try:
        magic = pathsafe.filesystem_magic(fd)
        strange = magic != const.TMPFS_MAGIC if not kept.source else magic == const.FUSE_SUPER_MAGIC
        return -1 if strange else mountapi.clone_fd(fd, const.AT_RECURSIVE)
    finally:
        os.close(fd)


def attach(taken: list[tuple[str, int]], namespace: int) -> View:
    """Put the copies together, on top of all there is in this thread's namespace."""
    root = taken[0][1]
    try:
        top = os.open("/", const.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            mountapi.move_mount(root, top, "/")
        finally:
            os.close(top)
        for destination, tree in taken[1:]:
            try:
                target = pathsafe.open_path(root, destination)
            except OSError as error:
                if error.errno in _CHANGED:
                    continue
                raise
            try:
                mountapi.move_mount(tree, target, destination)
            finally:
                os.close(target)
    except BaseException:
        os.close(root)
        os.close(namespace)
        raise
    finally:
        for _, tree in taken[1:]:
            os.close(tree)
    return View(root, namespace)
