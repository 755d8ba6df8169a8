"""Volumes that are file systems of their own, for containers that run already.

    engine, a thread                                  supervisor                    container
      own mount namespace: mount(2) or a copy  --->   holds its descriptor          (joining.add)
      a detached copy of the mount             ---------------------------------->  at its place

A supervisor cannot leave its mount namespace for another one while its container lives, so what it gets later is a
namespace in which nobody is and which goes with its descriptor: the file system is unmounted when nobody has it, also
when the engine is killed. Whoever needs it next copies it from there as from any other (runtime/volumes.py).
"""

from __future__ import annotations

import os
from functools import partial

from wherry.kernel import const, mountapi
from wherry.kernel.aside import aside
from wherry.kernel.namespaces import setns, unshare
from wherry.runtime.mounts import VolumeMount
from wherry.runtime.ops_volumes import open_part
from wherry.runtime.volumes import is_mounted, mount_volume


def made(volume: VolumeMount) -> int:
    """Return a descriptor of a new mount namespace that has a volume mounted at its place. Blocks; raises OSError."""

    def job() -> int:
        unshare(const.CLONE_FS | const.CLONE_NEWNS)
        mountapi.mount("", "/", "", const.MS_REC | const.MS_SLAVE)
        mount_volume(volume)
        return os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)

    return aside(job)


def copied(namespace: str, place: str, subpath: str) -> int:
    """Return a detached copy of what is mounted at a place of a mount namespace, or of a part. Raises OSError."""

    def job() -> int:
        _enter(namespace)
        if subpath:
            return open_part(place, subpath)
        return mountapi.open_tree(const.AT_FDCWD, place, const.OPEN_TREE_CLONE)

    return aside(job)


def opened(namespace: str, place: str) -> int:
    """Return a descriptor of the directory that is mounted at a place of a mount namespace. Raises OSError."""

    def job() -> int:
        _enter(namespace)
        return os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    return aside(job)


def namespace_with(process: int, place: str) -> str:
    """Return which mount namespace that a process lives in or holds has a volume mounted at its place, "" for none."""
    for each in (f"/proc/{process}/ns/mnt", *held(process)):
        try:
            if aside(partial(_has, each, place)):
                return each
        except (FileNotFoundError, ProcessLookupError):  # closed, or ended
            continue
    return ""


def held(process: int) -> list[str]:
    """Return the mount namespaces that a process has descriptors of."""
    folder = f"/proc/{process}/fd"
    found = []
    try:
        for number in os.listdir(folder):
            try:
                if os.readlink(f"{folder}/{number}").startswith("mnt:["):
                    found.append(f"{folder}/{number}")
            except FileNotFoundError:
                continue
    except (FileNotFoundError, ProcessLookupError):
        return []
    return found


def _has(namespace: str, place: str) -> bool:
    _enter(namespace)
    return is_mounted(place)


def _enter(namespace: str) -> None:
    there = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        unshare(const.CLONE_FS)
        setns(there, const.CLONE_NEWNS)
    finally:
        os.close(there)
