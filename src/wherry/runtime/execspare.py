"""A child that waits for the next exec of a container, where something has been executed not long ago.

The fork of a supervisor and the pages that the child then writes to for the first time are most of the time of an
exec. So this child is forked and has its code gone through ahead of time. It waits outside of the container, where no
`ps` inside shows it, enters when it is told what to execute, makes itself what the program shall be, and spawns it:
posix_spawn(3) is a vfork(2), which copies nothing.

    supervisor                       spare                                         program
       | -- process, descriptors ----> |  joins control group and namespaces,
       |                               |  gives up what the program may not have
       |                               | -- posix_spawn --------------------------> |  born in the pid namespace
       | <-- {"spawned": PID} -------- |                                            |
       | <-- EOF --------------------- X  it ends, and the program becomes          |
       |                                  a child of ours: PR_SET_CHILD_SUBREAPER   |

    {"failed": ...}   in place of "spawned", as from any other child
    EOF alone         it could not spawn; the exec is forked then, which shows the real reason

Not for a container that shares its processes with others, whose orphans we would adopt; nor with control groups of
version 2, of which a process has to be born in its group; nor for a terminal, which belongs to the session that the
program starts; nor with a seccomp profile that forbids what a spawn needs, see `can_spawn`.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable
from socket import socket
from typing import Any

from wherry.kernel import const, fds, namespaces
from wherry.kernel import process as kernel
from wherry.runtime import channel, rehearsal
from wherry.runtime.init import run_exec
from wherry.runtime.poller import Poller
from wherry.runtime.process import Process, be_child
from wherry.runtime.setup import ExecStart

KEEP = 60.0  # seconds that a spare waits: health checks are 30 apart
AFTER_START = 0.05  # seconds from an exec's start until the next spare is made
AFTER_END = 0.002  # and from its end, if that is earlier: the answer goes out first
_FLAGS = {"pid": const.CLONE_NEWPID, "time": const.CLONE_NEWTIME}
_SIGKILL = 9

StartOf = Callable[[dict[str, Any], "tuple[int, int, int] | None", socket], ExecStart]


class ExecSpares:
    """At most one spare, made after an exec and dropped when it was not used for `KEEP` seconds.

    start_of(process, stdio, sync): what the child is told. poller: of the supervisor, which has one thread.
    """

    def __init__(self, poller: Poller, start_of: StartOf) -> None:
        self._poller = poller
        self._start_of = start_of
        self._kinds: list[str] = []
        self._init_pidfd = -1
        self._pid = 0
        self._sync: socket | None = None
        self._due = 0.0  # when the next is made, by the monotonic clock; 0: not planned

    def enable(self, init_pidfd: int, kinds: Iterable[str]) -> None:
        """Make spares from the next exec on; init_pidfd: the first process. kinds: of the container's namespaces."""
        self._init_pidfd = init_pidfd
        self._kinds = [kind for kind in kinds if kind in _FLAGS]
        kernel.set_child_subreaper(True)

    def start(self, process: Process, launch: dict[str, Any], stdio: tuple[int, int, int]) -> bool:
        """Have the spare become the exec that `process` follows; False when there is none."""
        sync, self._sync = self._sync, None
        self._plan(AFTER_START)
        if sync is None:
            return False
        self._poller.forget(sync.fileno())
        try:
            channel.send(sync, launch, stdio)
        except BrokenPipeError:  # killed while it waited
            sync.close()
            os.waitpid(self._pid, 0)
            return False
        process.expect(self._pid, sync)
        return True

    def close(self) -> None:
        """Make no more: the container is over. The spare ends by itself, and whoever adopts it reaps it."""
        self._init_pidfd = -1
        if self._sync is not None:
            self._poller.forget(self._sync.fileno())
            self._sync.close()
            self._sync = None

    def ended(self) -> None:
        """An exec has ended: a good time to make the next spare."""
        self._plan(AFTER_END)

    def _plan(self, seconds: float) -> None:
        due = time.monotonic() + seconds
        if self._init_pidfd >= 0 and self._sync is None and not 0 < self._due <= due:
            self._due = due
            self._poller.after(seconds, lambda: self._make(due))

    def _make(self, due: float) -> None:
        if self._due != due or self._init_pidfd < 0:
            return
        self._due = 0.0
        try:
            self._fork()
        except OSError as error:
            if error.errno not in (errno.ESRCH, errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE):
                raise
            return  # the container has just ended, or there is nothing to spare
        rehearsal.supervise()  # after the fork all pages are shared: those that the next exec writes to, copied now
        pid = self._pid
        self._poller.after(KEEP, lambda: self._drop(pid))

    def _fork(self) -> None:
        """Fork it into the namespaces that we are in; every other child of ours is born into the container's."""
        ours, theirs = channel.pair()
        try:
            self._children_into_own()
            try:
                self._pid = os.fork()
                if self._pid == 0:
                    be_child(self._wait, theirs, ours)
            finally:
                namespaces.setns(self._init_pidfd, sum(_FLAGS[kind] for kind in self._kinds))
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._sync = ours
        self._poller.watch(ours.fileno(), 0, lambda events: self._drop(self._pid))

    def _children_into_own(self) -> None:
        for kind in self._kinds:
            own = os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                namespaces.setns(own, _FLAGS[kind])
            finally:
                os.close(own)

    def _drop(self, pid: int) -> None:
        if self._sync is not None and self._pid == pid:
            self._poller.forget(self._sync.fileno())
            self._sync.close()
            self._sync = None
            os.waitpid(self._pid, 0)

    def _wait(self, sync: socket) -> None:
        kernel.set_parent_death_signal(_SIGKILL)
        kernel.set_name("wherry-spare")
        fds.close_except({0, 1, 2, sync.fileno(), self._init_pidfd})
        rehearsal.execute()
        oom_score = kernel.oom_score()
        try:
            launch, given = channel.receive(sync)
        except EOFError:
            return
        start = self._start_of(launch, (given[0], given[1], given[2]), sync)
        start.spawn, start.oom_score = True, oom_score
        run_exec(start)
