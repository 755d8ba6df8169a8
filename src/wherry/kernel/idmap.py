"""Idmapped mounts (5.12): files seen, through one mount, as those of others. mount_setattr(2), user_namespaces(7).

A mapping is that of a user namespace which nobody lives in: the first number of a line of uid_map is the id on the
disk, the second the id that is seen. What is not mapped is seen as the overflow id (65534), and an id that is not
mapped cannot own anything new: EOVERFLOW.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence

from wherry.kernel import const, mountapi
from wherry.kernel.namespaces import unshare
from wherry.kernel.process import set_parent_death_signal

Range = tuple[int, int, int]
"""First id on the disk, first id that is seen, how many. Of a namespace that somebody lives in: inside, outside."""
Start = Callable[[int, int], int]
_OWNED = {"net": const.CLONE_NEWNET}


def namespace(uids: Sequence[Range], gids: Sequence[Range], start: Start, kind: str = "user") -> int:
    """Return a descriptor of a user namespace with these mappings, or of one that belongs to it (kind: net).

    start(told, flags): starts a process that runs `live` with these and returns its pid. Raises OSError: EPERM
    without CAP_SETUID, EINVAL for ranges that overlap, ENOSPC at a limit of /proc/sys/user.
    """
    heard, told = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            pid = start(told, 0 if kind == "user" else _OWNED[kind])
        finally:
            os.close(told)
        try:
            name = os.read(heard, 64).decode()
            if not name.isdigit():
                raise OSError(errno.EPERM, "no user namespace can be made", "/proc/sys/user/max_user_namespaces")
            process = f"/proc/{name}"
            for file, ranges in (("uid_map", uids), ("gid_map", gids)):
                _write(f"{process}/{file}", "".join(f"{disk} {seen} {count}\n" for disk, seen, count in ranges))
            return os.open(f"{process}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    finally:
        os.close(heard)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise OSError(error.errno, f"write: {error.strerror}", path) from error
    finally:
        os.close(fd)


def live(told: int, flags: int = 0, parent: int = 0) -> None:
    """Make a user namespace, say which process of /proc this is, and wait to be killed, or for the parent's end.

    flags: CLONE_NEW* of namespaces that shall belong to it. parent: whose child this is, 0 when not known.
    """
    unshare(const.CLONE_NEWUSER | flags)
    set_parent_death_signal(signal.SIGKILL)  # after what changes credentials, which takes it back: prctl(2)
    os.write(told, os.readlink("/proc/self").encode())  # the number that /proc has, whatever namespace we are in
    os.close(told)
    while not parent or os.getppid() == parent:  # not gone before the signal was asked for
        signal.pause()


def forked(told: int, flags: int = 0) -> int:
    """Start `live` in a fork: for a process that has one thread."""
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            live(told, flags, parent)
        finally:
            os._exit(1)
    return pid


def spawned(told: int, flags: int = 0) -> int:
    """Start `live` in an interpreter of its own: for a process with threads."""
    code = f"from wherry.kernel.idmap import live; live(1, {flags})"
    argv = [sys.executable, "-I", "-c", code]
    return os.posix_spawn(sys.executable, argv, {}, file_actions=[(os.POSIX_SPAWN_DUP2, told, 1)])


def apply(tree: int, user_namespace: int, *, recursive: bool = False) -> None:
    """Map the ids of a detached mount. Raises OSError: EINVAL (its file system cannot), EPERM (it is mapped)."""
    mountapi.mount_setattr(tree, const.MOUNT_ATTR_IDMAP, user_namespace=user_namespace, recursive=recursive)
