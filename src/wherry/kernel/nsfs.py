"""Relations between namespaces: ioctl_nsfs(2), linux/nsfs.h (4.9; NS_GET_OWNER_UID 4.11)."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

NS_GET_USERNS = 0xB701
NS_GET_OWNER_UID = 0xB704


def identity(fd: int) -> int:
    """Return the inode number of a namespace file, which names the namespace while somebody holds it."""
    return os.fstat(fd).st_ino


def owner(fd: int) -> int | None:
    """Return the user namespace whose capabilities count in this one, by inode number.

    None when it lies outside of the caller's own user namespace (EPERM), or the kernel is too old (ENOTTY).
    """
    try:
        other = fcntl.ioctl(fd, NS_GET_USERNS)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOTTY):
            return None
        raise
    try:
        return os.fstat(other).st_ino
    finally:
        os.close(other)


def owner_uid(fd: int) -> int:
    """Return the user that made a user namespace. Raises OSError EINVAL for a namespace of another kind."""
    answer = fcntl.ioctl(fd, NS_GET_OWNER_UID, bytes(4))
    number: int = struct.unpack("=I", answer)[0]
    return number
