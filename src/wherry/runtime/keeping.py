"""A container's mount namespace, kept until its end has been told.

The last process that leaves a mount namespace unmounts all of it before its parent can reap it: grace periods of RCU,
and whatever the upper directory of an overlay has not on the disk yet (sync_filesystem in generic_shutdown_super). That
is 1 ms on an idle machine and 100 ms beside a busy disk, in which everybody waits for an exit code that is known.

So the first process leaves a descriptor of its namespace in a socket, which nobody reads: being there is enough.
Closing the supervisor's end unmounts, and has unmounted when it returns.
"""

from __future__ import annotations

import os
import socket


class Keeper:
    """The socket. inlet: the child's end, to be closed by whoever does not need it."""

    def __init__(self) -> None:
        self._kept, self.inlet = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    def close(self) -> None:
        """Let go of the namespace."""
        self.inlet.close()
        self._kept.close()


def keep(inlet: socket.socket, procfs: int) -> None:
    """Leave the calling process's mount namespace in the socket, and close this end. procfs: a procfs of ours."""
    namespace = os.open("self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC, dir_fd=procfs)
    try:
        socket.send_fds(inlet, [b"m"], [namespace])
    finally:
        os.close(namespace)
        inlet.close()
