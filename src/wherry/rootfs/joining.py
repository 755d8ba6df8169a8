"""Mounts put into a container while it runs, and taken out of it.

    source on the host ---open_tree--> detached tree ---move_mount--> a place below the container's root
      (here)                             (a descriptor)                (a thread in the container's mount namespace)

The place is found with the container's root as the root, and what was found is what is mounted on: by descriptor, so a
link that is swapped meanwhile leads nowhere else. In a container that may mount itself no path crosses a mount
(RESOLVE_NO_XDEV), for behind each could be a file system whose server lets us wait without end, see `rootfs.guarded`;
what is missing is made in a copy of its root alone, where no other mount is.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from wherry.kernel import const, fileids, mountapi, pathsafe
from wherry.kernel.procfs import Mounted
from wherry.rootfs import guarded
from wherry.rootfs.view import visiting
from wherry.runtime.idmaps import Ids
from wherry.runtime.ops_mounts import check_outside_proc

Permit = Callable[[], AbstractContextManager[None]]
_ATTEMPTS = 16
_ONE_MOUNT = pathsafe.IN_ROOT | const.RESOLVE_NO_XDEV
_NO_LINKS = pathsafe.IN_ROOT | const.RESOLVE_NO_SYMLINKS
_KERNELS = ("/proc", "/sys", "/dev")


class NotThere(Exception):
    """At the place there is no mount that the engine has made."""


@dataclass(frozen=True, slots=True)
class Running:
    """A container that runs. pidfd: of its first process. root_device: st_dev of its root, 0 when not known.

    may_mount: whether its processes may mount file systems. ids: of its user namespace, None for the host's.
    """

    pidfd: int
    root_device: int
    may_mount: bool
    ids: Ids | None


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a mount that is to be taken away. fstype: of a file system made for it, "" for a bind.

    state: st_dev and st_ino of a bind's source, None when that is gone from the host.
    """

    fstype: str = ""
    state: tuple[int, int] | None = None


def is_the_kernels(place: str) -> bool:
    """Whether a place is in /proc, /sys or /dev, where some mounts protect the host: none is taken away there."""
    return any(f"{place}/".startswith(f"{each}/") for each in _KERNELS)


def add(container: Running, tree: int, destination: str, permit: Permit) -> None:
    """Put a detached tree at a place of the container, made when it is missing; the caller closes the tree.

    permit: a context that the tree is attached in, which may forbid it; nothing waits for a file system there.
    Raises OSError: ENOTDIR (a file on a directory or the reverse), EXDEV (below another mount of a container that may
    mount), EROFS, ELOOP, EPERM, ESRCH.
    """
    directory = stat.S_ISDIR(os.fstat(tree).st_mode)

    def job(thread: int) -> None:
        if container.ids is not None:  # what is made is to be the container's root's
            fileids.adopt(container.ids.uid(0), container.ids.gid(0))
        top = _open_root(container, thread)
        try:
            for attempt in range(_ATTEMPTS):
                try:
                    _attach(container, top, tree, destination, permit, directory=directory)
                    return
                except FileNotFoundError:  # removed after it was found
                    if attempt == _ATTEMPTS - 1:
                        raise
        finally:
            os.close(top)

    visiting(container.pidfd, job, remapped=container.ids is not None)


def _open_root(container: Running, thread: int) -> int:
    top = os.open("/", const.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if container.may_mount:
            guarded.check_root(guarded.table(thread)[guarded.mount_id(thread, top)], container.root_device)
    except BaseException:
        os.close(top)
        raise
    return top


def _attach(
    container: Running, top: int, tree: int, destination: str, permit: Permit, *, directory: bool
) -> None:
    target = _target(container, top, destination, directory=directory)
    try:
        check_outside_proc(target, destination, tree)
        if directory != stat.S_ISDIR(os.fstat(target).st_mode):
            raise OSError(errno.ENOTDIR, "a file cannot be mounted on a directory, nor the reverse", destination)
        with permit():
            mountapi.move_mount(tree, target, destination)
    finally:
        os.close(target)


def _target(container: Running, top: int, destination: str, *, directory: bool) -> int:
    resolve = _ONE_MOUNT if container.may_mount else pathsafe.IN_ROOT
    try:
        return pathsafe.open_path(top, destination, resolve=resolve)
    except FileNotFoundError:
        pass
    try:
        if not container.may_mount:
            return _make(top, destination, directory=directory)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
    # A root that the container sees read-only can be written here, as at the container's start
    alone = mountapi.clone_fd(top)
    try:
        mountapi.mount_setattr(alone, 0, clear=const.MOUNT_ATTR_RDONLY)
        os.close(_make(alone, destination, directory=directory))
    finally:
        os.close(alone)
    return pathsafe.open_path(top, destination, resolve=resolve)


def _make(root: int, path: str, *, directory: bool) -> int:
    make = pathsafe.make_directories if directory else pathsafe.make_file
    return make(root, path)


def remove(container: Running, destination: str, known: Known, *, force: bool) -> None:
    """Unmount what the engine has mounted at a place of the container. force: also when it is in use, lazily.

    Raises NotThere, and OSError: EBUSY when a process of the container, or another mount, is in it.
    """

    def job(thread: int) -> None:
        top = _open_root(container, thread)
        try:
            parent, name = _find(container, thread, top, destination, known)
        finally:
            os.close(top)
        try:
            os.fchdir(parent)  # umount2(2) takes no descriptor; a mount point cannot be renamed by who sees it as one
            mountapi.umount2(name, const.UMOUNT_NOFOLLOW | (const.MNT_DETACH if force else 0))
        finally:
            os.close(parent)

    visiting(container.pidfd, job, remapped=container.ids is not None)


def _find(container: Running, thread: int, top: int, destination: str, known: Known) -> tuple[int, str]:
    """Return a descriptor of the folder that a mount point is in, and its name."""
    mounts = guarded.table(thread)
    mounted = _by_table(mounts, destination) if container.may_mount else _by_path(mounts, thread, top, destination)
    folder, _, name = mounted.target.rpartition("/")
    if not name or is_the_kernels(mounted.target):
        raise NotThere
    # In a container that may mount, a place below a mount is not taken: what that is now nobody knows
    links = _NO_LINKS | (const.RESOLVE_NO_XDEV if container.may_mount else 0)
    try:
        parent = pathsafe.open_path(top, folder or "/", resolve=links, directory=True)
    except OSError as error:
        raise NotThere from error
    try:
        if _mount_at(thread, parent, name) != mounted.id or not _is_ours(parent, name, mounted, destination, known):
            raise NotThere
    except BaseException:
        os.close(parent)
        raise
    return parent, name


def _by_table(mounts: dict[int, Mounted], destination: str) -> Mounted:
    found = [each for each in mounts.values() if each.target == destination]
    if len(found) != 1:
        raise NotThere
    return found[0]


def _by_path(mounts: dict[int, Mounted], thread: int, top: int, destination: str) -> Mounted:
    try:
        fd = pathsafe.open_path(top, destination)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise NotThere from error
        raise
    try:
        return mounts[guarded.mount_id(thread, fd)]
    finally:
        os.close(fd)


def _mount_at(thread: int, parent: int, name: str) -> int:
    """Return the number of the mount on an entry of a folder; nothing that is mounted there is asked."""
    try:
        fd = pathsafe.openat2(parent, name, const.O_PATH | os.O_NOFOLLOW, resolve=_NO_LINKS)
    except OSError as error:
        raise NotThere from error
    try:
        return guarded.mount_id(thread, fd)
    finally:
        os.close(fd)


def _is_ours(parent: int, name: str, mounted: Mounted, destination: str, known: Known) -> bool:
    """Whether a mount is the one that is known: by its kind or its device, and by its inode if a link led to it."""
    if known.fstype:
        return mounted.type == known.fstype
    if known.state is None:
        return mounted.target == destination
    device, inode = known.state
    if mounted.device != f"{os.major(device)}:{os.minor(device)}":
        return False
    if mounted.target == destination:
        return True
    fd = pathsafe.openat2(parent, name, const.O_PATH | os.O_NOFOLLOW, resolve=_NO_LINKS)
    try:
        state = os.fstat(fd)
        return (state.st_dev, state.st_ino) == (device, inode)
    finally:
        os.close(fd)
