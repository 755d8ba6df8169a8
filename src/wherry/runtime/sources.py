"""Sources of bind mounts: copied from the host, or from another container, before the root of this one changes."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from wherry.kernel import const, mountapi, namespaces, pathsafe
from wherry.runtime.setup import Operation, Setup, SetupError, reason

_NOBODYS = const.RESOLVE_NO_MAGICLINKS


@dataclass(slots=True)
class OpenSources(Operation):
    """Take detached copies of everything of the host that is mounted into the container, before the root changes.

    Copies taken before our own mounts become slaves still belong to the host's peer groups, which is what a bind
    with shared propagation needs.
    """

    sources: tuple[tuple[int, str, str, bool], ...]

    def describe(self) -> str:
        return "open the sources of mounts"

    def run(self, setup: Setup) -> None:
        for key, source, target, recursive in self.sources:
            try:
                setup.sources[key] = copy_tree(source, const.AT_RECURSIVE if recursive else 0)
            except OSError as error:
                what = "stat" if error.errno == errno.ENOENT else "open_tree"
                message = f'error mounting "{source}" to rootfs at "{target}": {what} {source}: {reason(error)}'
                raise SetupError(message, error.errno or 0, source) from error


def of_another(source: str) -> tuple[str, str]:
    """Return PID and PATH of "/proc/PID/root/PATH", which is in another mount namespace; two "" for other paths."""
    top, proc, process, root, *rest = [*source.split("/", 4), "", "", ""][:5]
    if (top, proc, root) == ("", "proc", "root") and process.isascii() and process.isdigit() and rest[0]:
        return process, "/" + rest[0]
    return "", ""


def of_host(source: str, flags: int) -> int:
    """Return a detached copy of what is mounted at a path of the host.

    Raises OSError: ELOOP when the path leads through a magic link of procfs. /proc/self/fd/3 is another file for each
    process: one of ours. What names a process by its number (/proc/1/ns/net) is the same for all.
    """
    top, proc, process = [*source.split("/", 3), "", "", ""][:3]
    if (top, proc) == ("", "proc") and process.isascii() and process.isdigit():
        return mountapi.open_tree(const.AT_FDCWD, source, const.OPEN_TREE_CLONE | flags)
    try:
        # As a directory first: of one that is mounted when it is used (autofs) a mere O_PATH is before the mount
        place = pathsafe.openat2(const.AT_FDCWD, source, const.O_PATH | os.O_DIRECTORY, resolve=_NOBODYS)
    except NotADirectoryError:
        place = pathsafe.openat2(const.AT_FDCWD, source, const.O_PATH, resolve=_NOBODYS)
    try:
        return mountapi.clone_fd(place, flags)
    finally:
        os.close(place)


def copy_tree(source: str, flags: int) -> int:
    """Return a detached copy of what is mounted at a path of the host.

    "/proc/PID/root/PATH" is a path in the mount namespace of another process, and only there can its mounts be
    copied: open_tree(2) gives EINVAL for one of another namespace. PATH cannot lead out of that process's root.
    """
    process, path = of_another(source)
    if not process:
        return of_host(source, flags)
    there, root = (os.open(f"/proc/{process}/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in ("ns/mnt", "root"))
    try:
        place = pathsafe.open_path(root, path)
        try:
            with namespaces.visiting_mounts(there):
                return mountapi.clone_fd(place, flags)
        finally:
            os.close(place)
    finally:
        for fd in (there, root):
            os.close(fd)
