"""Stopping before the disk is full, so that the engine's database and the containers can still write."""

from __future__ import annotations

import errno
import os

RESERVE = 128 << 20
INTERVAL = 64 << 20
FILE_COST = 16 << 10


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
        if state.f_bavail * state.f_frsize < RESERVE + INTERVAL:
            raise OSError(errno.ENOSPC, f"less than {(RESERVE + INTERVAL) >> 20} MiB are free")
        if state.f_files and state.f_favail * 100 < state.f_files:
            raise OSError(errno.ENOSPC, "fewer than one in a hundred inodes are free")
