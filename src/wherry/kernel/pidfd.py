"""Processes by descriptor (5.3): immune to the reuse of process ids."""

from __future__ import annotations

import errno
import os
import select
import signal

_NO_PROCESS = (errno.EINVAL, errno.ENOENT)


def pidfd_open(pid: int) -> int:
    """Return a close-on-exec descriptor of the process. Raises OSError: ESRCH when it is gone, EMFILE.

    A number that was given away since may be a thread's now: then the kernel says EINVAL, from 6.15 on ENOENT
    (pidfd_open(2)). For whoever looks for a process that means the same as ESRCH: it is gone.
    """
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        number = errno.ESRCH if pid > 0 and error.errno in _NO_PROCESS else error.errno
        raise OSError(number, f"pidfd_open: {os.strerror(number or 0)}", str(pid)) from error


def pidfd_send_signal(pidfd: int, number: int) -> None:
    """Send a signal. Raises OSError: ESRCH when the process has ended and is reaped, EPERM."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except OSError as error:
        raise OSError(error.errno, f"pidfd_send_signal: {error.strerror}", str(number)) from error


def has_ended(pidfd: int) -> bool:
    """Whether the process has ended, reaped or not."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))
