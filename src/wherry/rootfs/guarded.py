"""The view of a running container that may mount: nothing that it has mounted itself is asked for anything.

The kernel waits for the server of a FUSE file system without end, and nothing but the end of the whole process ends
that. A container with the right to mount can be such a server, at any place, and hide it below an overlay or a loop
device. So no path is walked before the mount table has said what is on it: reading that asks no file system.

    root                        taken when it has the device number that it had before the container's program ran
    what lies on the host       taken from there, as for a container that does not run
    file systems in memory      taken when nothing but such is mounted on the way: no server can be behind them
    volumes that are mounted    not in sight: what is at their place may be anything by now
    for containers only
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from wherry.kernel import const, mountapi, pathsafe
from wherry.kernel.procfs import Mounted, parse_mount
from wherry.rootfs.view import Kept, View, gathered, in_order, inside, show_owners, source_of
from wherry.runtime.idmaps import Ids

_OWN_LINKS = pathsafe.IN_ROOT | const.RESOLVE_NO_SYMLINKS
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE)
_MEMORY = ("tmpfs", "ramfs")
_DISKLESS = ("overlay", "fuse", "fuseblk", "nfs", "nfs4", "9p", "virtiofs", "cifs")
"""Never the root of a container whose root is a folder, when nobody knows its device."""


def of_running(pidfd: int, kept: Iterable[Kept], ids: Ids | None, *, root_device: int) -> View:
    """Return the view of the container in which the process lives. root_device: of its root, 0 when not known.

    ids: of its user namespace. Raises OSError: ESRCH when the process is gone, EPERM when the container has replaced
    its root or its namespace.
    """
    wanted = in_order(kept)
    sources = _sources(wanted)
    try:
        take = partial(_taken, wanted=wanted, sources=sources, root_device=root_device)
        return inside(pidfd, lambda thread: gathered(lambda top: take(thread, top)), ids)
    except BaseException:
        for fd in sources.values():
            os.close(fd)
        raise


def _sources(wanted: Sequence[Kept]) -> dict[str, int]:
    """Return copies of what lies on the host, by destination, with the owners of the container. We are still there."""
    found: dict[str, int] = {}
    try:
        for each in wanted:
            if not each.source or each.running or not os.path.lexists(each.source):
                continue
            tree = source_of(each, nested=False)
            if tree < 0:
                continue
            found[each.destination] = tree
            if not show_owners(tree, each) or each.read_only:
                mountapi.mount_setattr(tree, const.MOUNT_ATTR_RDONLY)
    except BaseException:
        for fd in found.values():
            os.close(fd)
        raise
    return found


def _taken(
    thread: int, top: int, *, wanted: Sequence[Kept], sources: dict[str, int], root_device: int
) -> Iterator[tuple[str, int]]:
    mounts = table(thread)
    check_root(mounts[mount_id(thread, top)], root_device)
    yield "/", mountapi.clone_fd(top)
    for each in wanted:
        if each.destination in sources:
            yield each.destination, sources.pop(each.destination)
        elif not each.source and (tree := _in_memory(top, each.destination, mounts.values())) >= 0:
            yield each.destination, tree


def _read(thread: int, name: str) -> str:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=thread)
    with open(fd, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def table(thread: int) -> dict[int, Mounted]:
    """Return this thread's mounts by their number (proc_pid_mountinfo(5))."""
    found = map(parse_mount, _read(thread, "mountinfo").splitlines())
    return {each.id: each for each in found}


def mount_id(thread: int, fd: int) -> int:
    """Return the number of the mount that a descriptor is on, without asking its file system (proc_pid_fdinfo(5))."""
    found = re.search(r"^mnt_id:\s*(\d+)", _read(thread, f"fdinfo/{fd}"), re.MULTILINE)
    if found is None:
        raise OSError(errno.ENODATA, "the kernel does not say what is mounted")
    return int(found[1])


def check_root(mounted: Mounted, device: int) -> None:
    """Raise EPERM when a mount is not the root file system, of that device, with which a container was started."""
    known = mounted.device == f"{os.major(device)}:{os.minor(device)}" if device else mounted.type not in _DISKLESS
    if not known:
        raise OSError(errno.EPERM, "the container has replaced its root by a file system of its own")


def _in_memory(top: int, place: str, mounts: Iterable[Mounted]) -> int:
    """Return a copy of a file system in memory, -1 when something else is at its place or on the way there."""
    way = [each for each in mounts if each.target != "/" and f"{place}/".startswith(f"{each.target}/")]
    if len({each.target for each in way}) < len(way) or any(each.type not in _MEMORY for each in way):
        return -1
    if place not in (each.target for each in way):
        return -1
    try:
        fd = pathsafe.open_path(top, place, resolve=_OWN_LINKS)
    except OSError as error:
        if error.errno in _GONE:
            return -1
        raise
    try:
        return mountapi.clone_fd(fd)
    finally:
        os.close(fd)
