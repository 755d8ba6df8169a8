"""The child that makes itself what an exec's program shall be, and then forks it into the container.

It stays outside of the container's pid namespace while it has rights that the program may not have: inside, a process
with CAP_SYS_PTRACE could take it over, dumpable or not, with the host's mounts and descriptors still at hand. Its own
child is born inside with nothing but what the program gets.

    supervisor                       child                                         program
       | -- process, descriptors ----> |  joins control group and namespaces,
       |                               |  gives up what the program may not have
       |                               | -- fork ---------------------------------> |  born in the pid namespace:
       | <-- {"spawned": PID} -------- |                                            |  setsid, terminal, execve
       | <-- EOF --------------------- X  it ends, and the program becomes          |
       |                                  a child of ours: PR_SET_CHILD_SUBREAPER   |

The fork of a supervisor, and the pages that the child then writes to for the first time, are most of the time of an
exec. So in a container where something was executed not long ago that no `starter` can start, as with a terminal, such
a child waits for the next exec, its code gone through once. With control groups of version 2 none waits: a process has
to be born in its group, where it would be seen and counted.

In two cases the supervisor's child becomes the program itself, born inside: with a seccomp profile that forbids a
fork, see `can_spawn`, and in the host's pid namespace, where every orphan would become ours.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from socket import socket
from typing import Any

from wherry.kernel import fds
from wherry.kernel import process as kernel
from wherry.runtime import channel, rehearsal
from wherry.runtime.cgroups import detect
from wherry.runtime.init import run_exec
from wherry.runtime.poller import Poller
from wherry.runtime.process import Process, be_child
from wherry.runtime.setup import ExecStart

KEEP = 60.0  # seconds that a spare waits

StartOf = Callable[[dict[str, Any], "tuple[int, int, int] | None", socket], ExecStart]


class ExecSpares:
    """At most one spare, made after an exec and dropped when it was not used for `KEEP` seconds.

    start_of(process, stdio, sync): what the child is told. poller: of the supervisor, which has one thread. Whatever
    fails in making a spare costs speed alone.
    """

    def __init__(self, poller: Poller, start_of: StartOf) -> None:
        self._poller = poller
        self._start_of = start_of
        self._enabled = False
        self.pid = 0
        self._sync: socket | None = None
        self._due = 0.0  # when the next is made, by the monotonic clock; 0: not planned

    def enable(self) -> None:
        """Make spares from the next exec on."""
        self._enabled = detect().version == 1

    def start(self, process: Process, launch: dict[str, Any], stdio: tuple[int, int, int] | None) -> bool:
        """Have the spare start the exec that `process` follows; False when there is none."""
        sync, self._sync = self._sync, None
        if sync is None:
            return False
        self._poller.forget(sync.fileno())
        try:
            channel.send(sync, launch, stdio or ())
        except OSError:  # killed while it waited
            self._bury(sync)
            return False
        process.expect(self.pid, sync)
        self.pid = 0
        return True

    def close(self) -> None:
        """Make no more: the container is over."""
        self._enabled = False
        self._drop(self.pid)

    def plan(self, seconds: float) -> None:
        """Make the next spare in so many seconds, if not earlier."""
        due = time.monotonic() + seconds
        if self._enabled and self._sync is None and not 0 < self._due <= due:
            self._due = due
            self._poller.after(seconds, lambda: self._make(due))

    def _make(self, due: float) -> None:
        if self._due != due or not self._enabled:
            return
        self._due = 0.0
        try:
            self._fork()
            rehearsal.supervise()  # after the fork all pages are shared: those that the next exec writes to, copied now
        except OSError:  # out of processes, memory or descriptors: there is nothing to spare
            return

    def _fork(self) -> None:
        ours, theirs = channel.pair()
        try:
            pid = os.fork()
            if pid == 0:
                be_child(self._wait, theirs, ours)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self.pid, self._sync = pid, ours
        self._poller.watch(ours.fileno(), 0, lambda events: self._drop(pid))
        self._poller.after(KEEP, lambda: self._drop(pid))

    def _drop(self, pid: int) -> None:
        if self._sync is not None and self.pid == pid:
            self._poller.forget(self._sync.fileno())
            sync, self._sync = self._sync, None
            self._bury(sync)

    def _bury(self, sync: socket) -> None:
        sync.close()
        os.kill(self.pid, signal.SIGKILL)  # it may be stopped, and holds nothing
        os.waitpid(self.pid, 0)
        self.pid = 0

    def _wait(self, sync: socket) -> None:
        kernel.set_parent_death_signal(int(signal.SIGKILL))
        kernel.set_name("wherry-spare")
        start = self._start_of({}, None, sync)
        fds.close_except({0, 1, 2, sync.fileno(), start.init_pidfd})
        rehearsal.execute()
        start.oom_score = kernel.oom_score()
        try:
            start.process, given = channel.receive(sync)
        except EOFError:
            return
        start.stdio = (given[0], given[1], given[2]) if given else None
        start.spawn = True
        run_exec(start)
