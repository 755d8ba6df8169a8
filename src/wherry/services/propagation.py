"""Whether the host lets a bind mount share: dockerd's checks, made at each start, as the host's mounts are then.

A mount can only send what is mounted in it to a container, or take from there, when it is in a peer group itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from wherry.containers.record import MountRecord
from wherry.errors import SystemFailure
from wherry.kernel import const, procfs
from wherry.kernel.procfs import Mounted

_NEEDS = {
    "shared": (("shared:",), "a shared mount"),
    "slave": (("shared:", "master:"), "a shared or slave mount"),
}


def check(mounts: Iterable[MountRecord]) -> None:
    """Raise SystemFailure, in dockerd's words, for a bind whose source cannot propagate as asked. Sources are there."""
    for each in mounts:
        needed = _NEEDS.get(each.propagation.removeprefix("r")) if each.type == "bind" else None
        if needed is None:
            continue
        marks, what = needed
        mounted = _mount_of(each.source)
        if mounted is not None and not any(word.startswith(marks) for word in mounted.propagation):
            raise SystemFailure(f"path {each.source} is mounted on {mounted.target} but it is not {what}")


def _mount_of(path: str) -> Mounted | None:
    """Return the mount that a path is on, proc_pid_fdinfo(5); None when it is not in sight."""
    try:
        fd = os.open(path, const.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise SystemFailure(f"open {path}: {error.strerror}") from error
    try:
        with open(f"/proc/thread-self/fdinfo/{fd}", encoding="ascii") as file:
            found = re.search(r"^mnt_id:\s*(\d+)", file.read(), re.MULTILINE)
    finally:
        os.close(fd)
    with open("/proc/thread-self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        mounts = map(procfs.parse_mount, table.read().splitlines())
        return next((each for each in mounts if found and each.id == int(found[1])), None)
