"""Processes by descriptor (5.3): immune to the reuse of process ids."""

from __future__ import annotations

import os
import select
import signal


def pidfd_open(pid: int) -> int:
    """Return a close-on-exec descriptor of the process. Raises OSError: ESRCH when it is gone, EMFILE."""
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        raise OSError(error.errno, f"pidfd_open: {error.strerror}", str(pid)) from error


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
