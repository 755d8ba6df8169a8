"""Descriptors of this process: closing whole ranges, and choosing what is 0, 1 and 2."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Sequence

from wherry.kernel import const
from wherry.kernel.libc import bind_syscall, c_uint, check

MAXIMUM = 0xFFFFFFFF
_close_range = bind_syscall(c_uint, c_uint, c_uint)


def close_range(first: int, last: int = MAXIMUM, flags: int = 0) -> None:
    """Close all descriptors from first to last, or mark them close-on-exec (CLOSE_RANGE_CLOEXEC, 5.11).

    One system call whatever the number of descriptors; 5.9. Raises OSError EINVAL when last < first.
    """
    check(_close_range(const.SYS_close_range, first, last, flags), "close_range")


def close_except(keep: Iterable[int]) -> None:
    """Close every descriptor that is not in `keep`."""
    first = 0
    for fd in sorted(set(keep)):
        if fd > first:
            close_range(first, fd - 1)
        first = fd + 1
    close_range(first)


def install_stdio(fds: Sequence[int]) -> None:
    """Make `fds` the standard input, output and error, kept by execve(2). Sources under 3 may be in any order."""
    above = [
        fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) if fd < 3 and fd != place else fd for place, fd in enumerate(fds)
    ]
    for place, fd in enumerate(above):
        if fd == place:
            os.set_inheritable(fd, True)
        else:
            os.dup2(fd, place)
