"""unshare(2), setns(2) and ioctl_ns(2)."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from wherry.kernel.const import CLONE_NEWNS
from wherry.kernel.libc import bind, c_int, check

_unshare = bind("unshare", c_int)
_setns = bind("setns", c_int, c_int)
_NS_GET_USERNS = 0xB701  # linux/nsfs.h: _IO(0xb7, 1)


def unshare(flags: int) -> None:
    """Give the calling process new namespaces, all at once.

    CLONE_NEWPID and CLONE_NEWTIME take effect for children forked afterwards. Raises OSError: EPERM without
    CAP_SYS_ADMIN, EINVAL when the kernel lacks one of them, ENOSPC at a limit of /proc/sys/user.
    """
    check(_unshare(flags), "unshare")


def setns(fd: int, flags: int) -> None:
    """Join a namespace (fd of a namespace file), or several of a process (fd is a pidfd, 5.8: all or none).

    Joining a mount namespace also moves the root and the working directory to that namespace's root. Raises OSError:
    EINVAL (not of that type; threads), EPERM, ESRCH (the process of the pidfd is gone).
    """
    check(_setns(fd, flags), "setns")


@contextmanager
def visiting_mounts(there: int) -> Iterator[None]:
    """Be in the mount namespace of a descriptor for a while. Raises OSError: EINVAL if other threads share its root."""
    here = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(there, CLONE_NEWNS)
        try:
            yield
        finally:
            setns(here, CLONE_NEWNS)
    finally:
        os.close(here)


def owner(fd: int) -> int:
    """Return a descriptor, close-on-exec, of the user namespace that a namespace (fd of its file) belongs to.

    NS_GET_USERNS, Linux 4.9. Raises OSError: EPERM when that is none of ours or below ours.
    """
    return fcntl.ioctl(fd, _NS_GET_USERNS)
