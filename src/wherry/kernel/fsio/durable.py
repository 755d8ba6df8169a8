"""Making what was written survive a loss of power: syncfs(2), fsync(2) of directories."""

from __future__ import annotations

import os

from wherry.kernel.libc import bind, c_int, check

_syncfs = bind("syncfs", c_int)


def syncfs(fd: int) -> None:
    """Write everything of the file system that `fd` is on to its disk and wait for it.

    Raises OSError: EIO and ENOSPC of earlier delayed writes are reported since 5.8.
    """
    check(_syncfs(fd), "syncfs")


def fsync_directory(path: str | os.PathLike[str]) -> None:
    """Make the names in a directory durable: the fsync(2) of a file does not (man page, NOTES)."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
