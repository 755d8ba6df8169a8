"""One child of the supervisor, from fork to exit: a container's first process or an exec."""

from __future__ import annotations

import errno
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any

from wherry.runtime import channel
from wherry.runtime.cgroups import Cgroup
from wherry.runtime.poller import ENDED, READ, Poller
from wherry.runtime.session import Session
from wherry.runtime.wire import Exit, SetupFailure

_AGAIN = 0.05
"""Seconds until it is looked again for the end of what forked a program that has ended."""

ChildMain = Callable[[socket.socket], None]
LOST = SetupFailure("process", "start the process", 0, "", "the process that was to start it was killed")


class Process:
    """Forks, follows the set-up over the sync socket, reaps.

    on_running(process): execve has happened. on_failed(process): it has not, see `failure`, and the child is reaped.
    has_cgroup: False when it failed to make its control group.
    on_exit(process): it ran and is reaped, see `exit`.
    find_child(told): the pid of a child of ours that is the one told of, or that nobody has told of, 0 for none; see
    `expect`.
    """

    def __init__(self, poller: Poller, session: Session) -> None:
        self._poller = poller
        self.session = session
        self.pid = 0
        self.pidfd = -1
        self.started_at = 0
        self.failure: SetupFailure | None = None
        self.has_cgroup = True
        self.exit: Exit | None = None
        self._sync: socket.socket | None = None
        self._spawner = 0
        self._told = 0
        self._guard = -1
        self.on_running: Callable[[Process], None] = lambda process: None
        self.on_failed: Callable[[Process], None] = lambda process: None
        self.on_exit: Callable[[Process], None] = lambda process: None
        self.find_child: Callable[[int], int] = lambda told: 0

    def fork(self, cgroup: Cgroup, child_main: ChildMain, *, spawns: bool = False) -> None:
        """Run `child_main(sync)` in a new process of the group; it must not return. spawns: see `expect`."""
        ours, theirs = channel.pair()
        pid = cgroup.fork()
        if pid == 0:
            be_child(child_main, theirs, ours)
        theirs.close()
        if spawns:
            self.expect(pid, ours)
        else:
            self.adopt(pid, ours)

    def adopt(self, pid: int, ours: socket.socket) -> None:
        """Follow a child that was forked already, over our end of its sync socket."""
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self._follow(ours)
        self._poller.watch(self.pidfd, ENDED, lambda events: self.reap())

    def expect(self, spawner: int, ours: socket.socket) -> None:
        """Follow a process that a child of ours will fork and leave to us; see `execspare`.

        The child may be killed between the two: what it has forked is looked for among our children then. So it is
        when we are told of a process that is no child of ours: by the program's side, somebody who traces it could.
        """
        self._spawner = spawner
        self._follow(ours)

    def _follow(self, ours: socket.socket) -> None:
        ours.setblocking(False)
        self._sync = ours
        self._poller.watch(ours.fileno(), READ, lambda events: self._read_sync())

    def _read_sync(self) -> None:
        while self._sync is not None:
            try:
                message, fds = channel.receive(self._sync)
            except BlockingIOError:
                return
            except EOFError:
                self._end_sync()
                return
            self._take(message, fds)

    def _take(self, message: dict[str, Any], fds: list[int]) -> None:
        if "failed" in message:
            self.failure = SetupFailure.from_wire(message["failed"])
            self.has_cgroup = message.get("cgroup", True)
        elif message.get("spawned"):
            self._expect_end(message["spawned"])
        elif message.get("console"):
            self.session.set_console(fds.pop())
        for fd in fds:
            os.close(fd)

    def _expect_end(self, told: int) -> None:
        """Do not wait for the end of the sync socket once the program has ended: somebody may have a copy of it."""
        if self._spawner and not self._told:
            self._told = told
            try:
                self._guard = os.pidfd_open(told)
            except OSError:  # it has ended, or there are no descriptors left
                return
            self._poller.watch(self._guard, ENDED, lambda events: self._program_ended())

    def _program_ended(self) -> None:
        if self._sync is None:
            return
        if os.waitid(os.P_PID, self._spawner, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            self._poller.after(_AGAIN, self._program_ended)  # it may be frozen, and must not be waited for
        else:
            self._end_sync()

    def _end_sync(self) -> None:
        if self._guard >= 0:
            self._poller.forget(self._guard)
            os.close(self._guard)
            self._guard = -1
        if self._sync is not None:
            self._poller.forget(self._sync.fileno())
            self._sync.close()
            self._sync = None
            if self._spawner:
                self._end_spawner()
            elif self.failure is None:
                self._run()

    def _run(self) -> None:
        self.started_at = time.time_ns()
        self.on_running(self)

    def _end_spawner(self) -> None:
        os.waitpid(self._spawner, 0)  # it is at its end; what it forked is our child from then on
        self._spawner = 0
        self.pid = self.find_child(self._told)
        if not self.pid:
            self.failure = self.failure or LOST
            self.on_failed(self)
            return
        self.begin(self.pid)

    def begin(self, pid: int) -> None:
        """Follow a child of ours that runs its program already, or has failed to."""
        self.pid = pid
        try:
            self.pidfd = os.pidfd_open(pid)
        except OSError as error:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self.failure = self.failure or SetupFailure.from_oserror("process", "follow the process", error)
            self.on_failed(self)
            return
        self._poller.watch(self.pidfd, ENDED, lambda events: self.reap())
        if self.failure is None:
            self._run()

    def reap(self) -> bool:
        """Collect the process if it has ended; returns whether it has."""
        if self._spawner:
            self._read_sync()
        if self.pidfd < 0 or self._spawner:
            return not self._spawner
        status = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG)
        if status is None:
            return False
        self._poller.forget(self.pidfd)
        os.close(self.pidfd)
        self.pidfd = -1
        self._read_sync()
        self._end_sync()
        if self.failure is not None:
            self.on_failed(self)
            return True
        killed = status.si_code != os.CLD_EXITED
        number = status.si_status if killed else 0
        self.exit = Exit(128 + number if killed else status.si_status, number, time.time_ns())
        self.on_exit(self)
        return True

    @property
    def spawner(self) -> int:
        """The pid of the child that forks it, 0 for none."""
        return self._spawner

    def signal(self, number: int) -> None:
        """Send a signal; raises OSError ESRCH when the process is gone."""
        if self.pidfd < 0:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), "pidfd_send_signal")
        signal.pidfd_send_signal(self.pidfd, number)


def be_child(child_main: ChildMain, sync: socket.socket, other: socket.socket) -> None:
    """Become the child; whatever goes wrong in it must never come back into the supervisor's code."""
    try:
        other.close()
        child_main(sync)
    except BaseException as error:
        failure = SetupFailure("process", "set up the process", getattr(error, "errno", 0) or 0, "", repr(error))
        channel.send(sync, {"failed": failure.to_wire()})
    finally:
        os._exit(1)
