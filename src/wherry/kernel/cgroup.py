"""Control groups as the kernel shows them: hierarchies, directories and files.

A version 1 hierarchy is a mount of type "cgroup" with its controllers among the super block's options, several when
they are mounted together ("cpu,cpuacct"); "name=systemd" is one without controllers. A version 2 hierarchy is a mount
of type "cgroup2"; its controllers stand in cgroup.controllers. A machine is "hybrid" when both are mounted and the
controllers are bound to version 1 (Documentation/admin-guide/cgroup-v1/cgroups.rst, cgroup-v2.rst; cgroups(7)).

The paths here are the host's own below the mount points; nothing of a container decides them but a checked name.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

CONTROLLERS = frozenset(
    {"blkio", "cpu", "cpuacct", "cpuset", "debug", "devices", "freezer", "hugetlb", "memory", "misc"}
    | {"net_cls", "net_prio", "perf_event", "pids", "rdma"}
)
"""Version 1 controllers, to tell them from mount options such as "rw" and "xattr"."""


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted hierarchy.

    mount: where. controllers: of version 1, as mounted ("name=systemd" among them); of version 2, as the root offers.
    """

    mount: str
    controllers: tuple[str, ...]
    unified: bool = False


def _unescape(text: str) -> str:
    """Undo the octal escapes of proc_pid_mountinfo(5)."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


def _controllers(options: str) -> tuple[str, ...]:
    return tuple(name for name in options.split(",") if name in CONTROLLERS or name.startswith("name="))


def parse_mountinfo(text: str) -> tuple[Hierarchy, ...]:
    """Return the hierarchies of a mountinfo file, each once, in order; of version 2 without controllers."""
    found: dict[tuple[str, ...], Hierarchy] = {}
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        if not separator or not after.startswith("cgroup"):
            continue
        kind, _, options = after.split(" ", 2)
        mount = _unescape(before.split(" ")[4])
        if kind == "cgroup2":
            found.setdefault(("",), Hierarchy(mount, (), unified=True))
        elif kind == "cgroup" and (controllers := _controllers(options.rpartition(" ")[2])):
            found.setdefault(controllers, Hierarchy(mount, controllers))
    return tuple(found.values())


def hierarchies() -> tuple[Hierarchy, ...]:
    """Return the hierarchies mounted in this mount namespace.

    Raises OSError when /proc/self/mountinfo or a cgroup.controllers file cannot be read. Costs a read of the mount
    table: call once and keep.
    """
    mounted = parse_mountinfo(read("/proc/self/mountinfo"))
    return tuple(
        Hierarchy(each.mount, tuple(read(f"{each.mount}/cgroup.controllers").split()), unified=True)
        if each.unified
        else each
        for each in mounted
    )


def read(path: str) -> str:
    """Return the text of a file; raises OSError with the path."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(descriptor, 65536):
            parts.append(part)
    except OSError as error:
        raise OSError(error.errno, f"read: {os.strerror(error.errno or 0)}", path) from error
    finally:
        os.close(descriptor)
    return b"".join(parts).decode()


def write(path: str, *texts: str) -> None:
    """Write each text with a write(2) of its own: the kernel takes one value or rule at a time.

    Raises OSError with the path: ENOENT (no such group, or the controller lacks the file), EINVAL (value refused),
    EBUSY (memory in use, or child groups forbid it), ESRCH (the process is gone), ENOSPC (cpuset without cpus).
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        for text in texts:
            os.write(descriptor, text.encode())
    except OSError as error:
        raise OSError(error.errno, f"write {text!r}: {os.strerror(error.errno or 0)}", path) from error
    finally:
        os.close(descriptor)


def exists(path: str) -> bool:
    """Return whether a file of a controller is there."""
    return os.access(path, os.F_OK)


def children(path: str) -> list[str]:
    """Return the paths of the groups directly below; none when the group is gone."""
    try:
        with os.scandir(path) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        # ENODEV: removed between open and read
        if error.errno in (errno.ENOENT, errno.ENODEV):
            return []
        raise


def processes(path: str) -> list[int]:
    """Return the processes in a group and in all below it; none when the group is gone.

    A process of another pid namespace, that this one cannot name, is listed by the kernel as 0 and left out.
    """
    try:
        found = [int(word) for word in read(f"{path}/cgroup.procs").split()]
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):
            return []
        raise
    for child in children(path):
        found += processes(child)
    return [pid for pid in found if pid > 0]
