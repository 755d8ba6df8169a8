"""unshare(2), setns(2) and ioctl_ns(2)."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from wherry.kernel.const import CLONE_NEWNS, CLONE_NEWUSER, NAMESPACES
from wherry.kernel.libc import bind, c_int, check
from wherry.kernel.process import set_dumpable, set_parent_death_signal

_unshare = bind("unshare", c_int)
_setns = bind("setns", c_int, c_int)
_NS_GET_USERNS = 0xB701  # linux/nsfs.h: _IO(0xb7, 1)
_NS_GET_PARENT = 0xB702


def flags_of(kinds: Iterable[str]) -> int:
    """Return the CLONE_NEW* of kinds of namespaces, as the OCI runtime spec names them."""
    flags = 0
    for kind in kinds:
        flags |= NAMESPACES[kind]
    return flags


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
def visiting_mounts(there: int, procfs: int | None = None) -> Iterator[None]:
    """Be in the mount namespace of a descriptor for a while. procfs: one that is not at /proc.

    Raises OSError: EINVAL if other threads share its root.
    """
    place = "/proc/thread-self/ns/mnt" if procfs is None else "thread-self/ns/mnt"
    here = os.open(place, os.O_RDONLY | os.O_CLOEXEC, dir_fd=procfs)
    try:
        setns(there, CLONE_NEWNS)
        try:
            yield
        finally:
            setns(here, CLONE_NEWNS)
    finally:
        os.close(here)


def enter_new(user: int, flags: int) -> None:
    """Give the calling process, of one thread, new namespaces that belong to a user namespace, without joining that.

    Who has capabilities there need not have any of the caller's, and the caller keeps its own. A namespace belongs to
    the user namespace of who makes it, so a child joins it, makes them and ends. Raises OSError as `unshare`, `setns`.
    """
    heard, told = os.pipe2(os.O_CLOEXEC)
    parent_pid = os.getpid()
    pid = os.fork()
    if pid == 0:
        _make_for(user, flags, told, parent_pid)
    try:
        os.close(told)
        answer = os.read(heard, 16)
        if answer != b"0":
            number = int(answer or errno.EAGAIN)
            raise OSError(number, f"unshare: {os.strerror(number)}")
        process = os.pidfd_open(pid)
        try:
            setns(process, flags)
        finally:
            os.close(process)
    finally:
        os.close(heard)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _make_for(user: int, flags: int, told: int, parent_pid: int) -> NoReturn:
    """Be the child: tell 0, or errno, and wait to be killed."""
    try:
        try:
            setns(user, CLONE_NEWUSER)
            set_dumpable(False)  # changing credentials may set it to /proc/sys/fs/suid_dumpable
            unshare(flags)
        except OSError as error:
            os.write(told, b"%d" % (error.errno or errno.EPERM))
        else:
            set_parent_death_signal(signal.SIGKILL)  # after what changes credentials, which takes it back: prctl(2)
            os.write(told, b"0")
            os.close(told)
            if os.getppid() == parent_pid:  # not gone before the signal was asked for
                signal.pause()
    finally:
        os._exit(1)


def owner(fd: int) -> int:
    """Return a descriptor, close-on-exec, of the user namespace that a namespace (fd of its file) belongs to.

    NS_GET_USERNS, Linux 4.9. Raises OSError: EPERM when that is none of ours or below ours.
    """
    return fcntl.ioctl(fd, _NS_GET_USERNS)


def parent(fd: int) -> int:
    """Return a descriptor, close-on-exec, of the user or pid namespace in which another one was made.

    NS_GET_PARENT, Linux 4.9. Raises OSError: EPERM when that is none of ours or below ours.
    """
    return fcntl.ioctl(fd, _NS_GET_PARENT)
