"""Network namespaces of single threads: network_namespaces(7).

unshare(2) and setns(2) with CLONE_NEWNET change the calling thread alone. Only threads that do nothing else may use
these functions: one that failed to go back would do the rest of its work in a container's network.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from wherry.kernel import namespaces
from wherry.kernel.aside import aside

CLONE_NEWNET = 0x40000000
T = TypeVar("T")


def current() -> int:
    """Return a descriptor of the calling thread's network namespace. It keeps the namespace alive. Raises OSError."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def unshare() -> None:
    """Give the calling thread a new network namespace, which has a loopback link that is down.

    Raises OSError: EPERM without CAP_SYS_ADMIN, ENOSPC over /proc/sys/user/max_net_namespaces.
    """
    namespaces.unshare(CLONE_NEWNET)


def enter(fd: int) -> None:
    """Move the calling thread into the namespace of a descriptor. Raises OSError (EINVAL: not a network namespace)."""
    namespaces.setns(fd, CLONE_NEWNET)


def inside(fd: int, work: Callable[[], T]) -> T:
    """Return what `work` returns in a thread of its own that has entered the namespace of a descriptor.

    The thread ends with it, so that none is left in a container's network. Raises what `work` raises, or OSError.
    """

    def run() -> T:
        enter(fd)
        return work()

    return aside(run)
