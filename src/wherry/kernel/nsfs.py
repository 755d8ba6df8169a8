"""Relations between namespaces: ioctl_nsfs(2), linux/nsfs.h (4.9; NS_GET_OWNER_UID 4.11)."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

NS_GET_USERNS = 0xB701
NS_GET_PARENT = 0xB702
NS_GET_OWNER_UID = 0xB704


def identity(fd: int) -> int:
    """Return the inode number of a namespace file, which names the namespace while somebody holds it."""
    return os.fstat(fd).st_ino


def owner(fd: int) -> int | None:
    """Return the user namespace whose capabilities count in this one, by inode number.

    None when it lies outside of the caller's own user namespace (EPERM), or the kernel is too old (ENOTTY).
    """
    return _related(fd, NS_GET_USERNS)


def parent(fd: int) -> int | None:
    """Return the parent of a pid or user namespace by inode number; None when it is not to be seen from here."""
    return _related(fd, NS_GET_PARENT)


def owner_uid(fd: int) -> int:
    """Return the user that made a user namespace. Raises OSError EINVAL for a namespace of another kind."""
    answer = fcntl.ioctl(fd, NS_GET_OWNER_UID, bytes(4))
    number: int = struct.unpack("=I", answer)[0]
    return number


def _related(fd: int, request: int) -> int | None:
    try:
        other = fcntl.ioctl(fd, request)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOTTY, errno.EINVAL):
            return None
        raise
    try:
        return os.fstat(other).st_ino
    finally:
        os.close(other)
