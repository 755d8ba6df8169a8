"""Stopping before the disk is full, so that the engine's database and the containers can still write."""

from __future__ import annotations

import errno
import os

from wherry.kernel import quota

RESERVE = 128 << 20
INTERVAL = 64 << 20
FILE_COST = 16 << 10
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Reserve:
    """Counts what is written below a directory and looks at the free space now and then."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._unchecked = INTERVAL  # look before the first byte

    def spend(self, size: int) -> None:
        """Account for one file or piece of `size` bytes.

        Raises OSError: ENOSPC when less than RESERVE bytes, or one in a hundred inodes, would be left.
        """
        self._unchecked += size + FILE_COST
        if self._unchecked < INTERVAL:
            return
        self._unchecked = 0
        state = os.fstatvfs(self._fd)
        if _is_short(state):
            state = _beside_projects(self._fd)
        if _is_short(state):
            raise OSError(errno.ENOSPC, f"less than {(RESERVE + INTERVAL) >> 20} MiB are free")
        if state.f_files and state.f_favail * 100 < state.f_files:
            raise OSError(errno.ENOSPC, "fewer than one in a hundred inodes are free")


def _is_short(state: os.statvfs_result) -> bool:
    return state.f_bavail * state.f_frsize < RESERVE + INTERVAL


def _beside_projects(fd: int) -> os.statvfs_result:
    """Return the state of the whole file system of a directory.

    In a project statvfs(3) tells of the project's limit, which is not ours to leave free.
    """
    try:
        here = os.open(".", _FOLDER, dir_fd=fd)
    except NotADirectoryError:
        return os.fstatvfs(fd)
    try:
        number = _project(here)
        while number:
            above = os.open("..", _FOLDER, dir_fd=here)
            top = os.path.sameopenfile(above, here)
            os.close(here)
            here = above
            if top or _project(here) != number:
                break
        return os.fstatvfs(here)
    finally:
        os.close(here)


def _project(fd: int) -> int:
    try:
        return quota.project(fd)
    except OSError:  # a file system without
        return 0
