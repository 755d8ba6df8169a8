"""Directories of control groups: made with what the kernel wants of their parents, removed with what is below."""

from __future__ import annotations

import errno
import os
import time

from wherry.kernel import cgroup

REMOVE_SECONDS = 2.0
MODE = 0o755


def make(hierarchy: cgroup.Hierarchy, directory: str) -> None:
    """Make one group, and its parents as needed; an empty left-over of the same name is replaced.

    Raises OSError EBUSY when the name is taken by a group with processes or groups in it.
    """
    try:
        os.mkdir(directory, MODE)
    except FileExistsError:
        # its old limits must not live on
        os.rmdir(directory)
        os.mkdir(directory, MODE)
    except FileNotFoundError:
        make_parents(hierarchy, os.path.dirname(directory))
        os.mkdir(directory, MODE)


def make_parents(hierarchy: cgroup.Hierarchy, directory: str) -> None:
    """Make a group that is to have others below it, and its parents; those that are there stay as they are."""
    if len(directory) <= len(hierarchy.mount):
        return
    make_parents(hierarchy, os.path.dirname(directory))
    try:
        os.mkdir(directory, MODE)
    except FileExistsError:
        return
    if not hierarchy.unified and "cpuset" in hierarchy.controllers:
        cpuset(directory, None, None, fresh=True)
        # groups below are then born with cpus and memory nodes, which saves four system calls for each
        cgroup.write(f"{directory}/cgroup.clone_children", "1")


def cpuset(directory: str, cpus: str | None, mems: str | None, *, fresh: bool) -> None:
    """Set a version 1 cpuset; a fresh one inherits what is not given, since nothing can run in an empty one."""
    if fresh and not cgroup.read(f"{directory}/cpuset.cpus").strip():
        # otherwise it was born with both
        for name in ("cpuset.cpus", "cpuset.mems"):
            _inherit(directory, name)
    for name, wanted in (("cpuset.cpus", cpus), ("cpuset.mems", mems)):
        if wanted:
            cgroup.write(f"{directory}/{name}", wanted)


def _inherit(directory: str, name: str) -> str:
    path = f"{directory}/{name}"
    value = cgroup.read(path).strip()
    if not value:
        value = _inherit(os.path.dirname(directory), name)
        cgroup.write(path, value)
    return value


def enable(hierarchy: cgroup.Hierarchy, path: str, needed: set[str], *, others: bool = True) -> None:
    """Hand the controllers of a version 2 hierarchy down to the group at path.

    others: all that there are, so that everything is accounted; without, the groups above are somebody else's, and
    only what is needed is handed down. Raises OSError only for one that is needed.
    """
    group = hierarchy.mount
    for part in path.strip("/").split("/"):
        available = cgroup.read(f"{group}/cgroup.controllers").split()
        given = cgroup.read(f"{group}/cgroup.subtree_control").split()
        for controller in available:
            if controller in given or not (others or controller in needed):
                continue
            try:
                cgroup.write(f"{group}/cgroup.subtree_control", f"+{controller}")
            except OSError:
                # EBUSY: processes are in this group itself; ENOENT, EINVAL: bound elsewhere or real-time tasks
                if controller in needed:
                    raise
        group = f"{group}/{part}"


def remove(directory: str) -> None:
    """Remove a group and those below it; waits for processes that were killed. Not there is fine.

    Raises OSError EBUSY when processes stay.
    """
    if _removed(directory):
        return
    deadline = time.monotonic() + REMOVE_SECONDS
    pause = 0.0005
    while not _removed(directory):
        for child in cgroup.children(directory):
            remove(child)
        if time.monotonic() > deadline:
            raise OSError(errno.EBUSY, f"processes {cgroup.processes(directory)} stay in the group", directory)
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def undo(directory: str, error: OSError) -> None:
    """Remove a group that was made before `error`; what hinders that becomes a note of it."""
    try:
        remove(directory)
    except OSError as second:
        error.add_note(f"and it could not be removed again: {second}")


def _removed(directory: str) -> bool:
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
            return False
        raise
    return True
