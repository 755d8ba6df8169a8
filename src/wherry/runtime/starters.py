"""The starters of one container, as its supervisor keeps them; see `starter`.

A starter serves all who shall be what it is: the same user, environment, capabilities and so on. Health checks ask for
one; after an exec one is made while there is nothing else to do, for those that may come, and goes when nobody used it
for a while. Whatever cannot go this way goes in another: it costs speed alone.

What a starter found out about its user from the container's files is no longer true when those change: then it goes.
So it does when the container's first process has gone into other namespaces: execs go where that is.
What cannot be known outside of the container's pid namespace, or would count the starter itself (RLIMIT_NPROC), it
refuses, by ending before it is ready.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from wherry.kernel import cgroup as files
from wherry.runtime import channel, starter
from wherry.runtime.accountfiles import Accounts, accounts_of, are_older, give_to, spaces_of, uid_of
from wherry.runtime.cgroups import Cgroup
from wherry.runtime.poller import ENDED, READ, Poller
from wherry.runtime.process import Process
from wherry.runtime.session import Session

KEEP = 60.0
"""Seconds that a starter stays after its last use."""
MOST = 2
"""Starters at a time."""
ROOM = 64
"""In a container that may have fewer processes, a starter would take one of them away: there is none."""
_PATIENCE = 16
"""Answers that are read at a time: whoever gives more without end must not hold up all else."""
AGAIN = 0.05
"""Seconds until it is looked again for orphans, while an exec is on its way."""

Json = dict[str, Any]
Stdio = tuple[int, int, int]
Stay = Callable[[Json, socket.socket, socket.socket], None]
Waiter = Callable[[], object]


@dataclass(slots=True, eq=False)
class _Starter:
    """described: the OCI process object without what may differ. accounts: the files that its user was found in; before
    it is ready, as the container's first process sees them.

    used: by the monotonic clock. born: Unix ns. waiters: to be called when it is ready, or will not be.
    """

    described: Json
    process: Process
    requests: socket.socket
    accounts: Accounts = ()
    uid: int = 0
    used: float = 0.0
    born: int = 0
    ready: bool = False
    waiters: list[Waiter] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Start:
    """One program on its way. otherwise(): is called when it has to go another way, with stdio still open.

    failed: who says that it cannot be executed. guard: of the child, once it is known and has not executed at once.
    """

    process: Process
    starter: _Starter
    sync: socket.socket
    stdio: Stdio
    otherwise: Waiter | None
    pid: int = 0
    failed: set[int] = field(default_factory=set)
    guard: int = -1


class Starters:
    """Makes, uses and ends them. stay(process, sync, requests): make the calling process one; never returns.

    first(): the pid of the container's first process.
    strangers(): the children of the supervisor that nobody knows. busy(): whether one may be an exec on its way.
    """

    def __init__(
        self,
        poller: Poller,
        stay: Stay,
        first: Callable[[], int],
        strangers: Callable[[], list[int]],
        busy: Callable[[], bool],
    ) -> None:
        self._poller = poller
        self._stay = stay
        self._first = first
        self._strangers = strangers
        self._busy = busy
        self._all: list[_Starter] = []
        self._starts: list[_Start] = []
        self._orphans: set[int] = set()
        self._processes: set[Process] = set()
        self._started: set[Process] = set()
        self._planned: Json | None = None
        self._refused: Json | None = None
        self.enabled = False

    def pids(self) -> set[int]:
        """Return the children of ours that are theirs."""
        self._started = {process for process in self._started if process.exit is None}
        return self._orphans | {process.pid for process in self._processes | self._started}

    def close(self) -> None:
        """Make no more, end them all, and wait for nobody: the container is over."""
        self.enabled = False
        for each in tuple(self._all):
            self._drop(each)
        for start in tuple(self._starts):
            self._read(start)
        for start in tuple(self._starts):
            self._end(start)

    # Making one

    def get(self, process: Json, cgroup: Cgroup, then: Waiter) -> None:
        """Call `then()` once there is a starter for such a process, or is none: `start` tells."""
        described = _described(process)
        known = next((each for each in self._all if each.described == described), None)
        if known is None and described is not None and self.enabled and _has_room(cgroup):
            known = self._make(described, process, cgroup)
        if known is None or known.ready:
            then()
        else:
            known.waiters.append(then)

    def plan(self, process: Json, cgroup: Cgroup, seconds: float) -> bool:
        """Make one for the next such process, in so many seconds; returns whether it is or will be there."""
        described = _described(process)
        if not self.enabled or described in (None, self._refused) or not _has_room(cgroup):
            return False
        if any(each.described == described for each in self._all) or self._planned == described:
            return True
        self._planned = described
        self._poller.after(seconds, lambda: self._make_planned(process, cgroup))
        return True

    def _make_planned(self, process: Json, cgroup: Cgroup) -> None:
        described = _described(process)
        if described is not None and self._planned == described:
            self._planned = None
            if self.enabled and all(each.described != described for each in self._all):
                self._make(described, process, cgroup)

    def _make(self, described: Json, wanted: Json, cgroup: Cgroup) -> _Starter | None:
        while len(self._all) >= MOST:
            self._drop(min(self._all, key=lambda each: each.used))
        before, born = accounts_of(self._first()), time.time_ns()
        ours, theirs = channel.pair()
        session = Session.without_streams(self._poller)
        process = Process(self._poller, session)
        process.on_running = self._ready
        process.on_failed = process.on_exit = self._gone
        try:
            process.fork(cgroup, lambda sync: self._stay(wanted, sync, theirs))
        except OSError:  # out of processes, memory or descriptors
            ours.close()
            return None
        finally:
            theirs.close()
        ours.setblocking(False)
        made = _Starter(described, process, ours, before, used=time.monotonic(), born=born)
        self._all.append(made)
        self._processes.add(process)
        self._poller.after(KEEP, lambda: self._age(made))
        return made

    def _ready(self, process: Process) -> None:
        for made in self._all:
            if made.process is process:
                uid = uid_of(process.pid)
                same = made.accounts == accounts_of(process.pid) and are_older(made.accounts, made.born)
                if uid is not None and same:
                    made.uid, made.ready = uid, True
                    self._wake(made)
                else:  # the next one will have found its user in what the files are now
                    self._drop(made)
                return

    def _wake(self, made: _Starter) -> None:
        waiters, made.waiters = made.waiters, []
        for then in waiters:
            then()

    def _age(self, made: _Starter) -> None:
        if made in self._all:
            left = made.used + KEEP - time.monotonic()
            if left > 0:
                self._poller.after(left, lambda: self._age(made))
            else:
                self._drop(made)

    # Its end

    def _gone(self, process: Process) -> None:
        """It could not be made, or has ended: dropped, or killed by the kernel for want of memory."""
        self._processes.discard(process)
        for made in tuple(self._all):
            if made.process is process:
                killed = process.exit is not None and process.exit.signal == signal.SIGKILL
                self._refused = self._refused if made.ready or killed else made.described
                self._drop(made)
        self._end_orphans()

    def _drop(self, made: _Starter) -> None:
        self._all.remove(made)
        made.requests.close()
        if made.process.pidfd >= 0:
            made.process.signal(signal.SIGKILL)
        self._wake(made)

    def _end_orphans(self) -> None:
        """Kill and reap what it forked and could not tell of.

        Unreaped it would keep the container's pid namespace, and with it the container, from ending.
        """
        if self._busy() or self._starts:
            self._poller.after(AGAIN, self._end_orphans)
            return
        for pid in self._strangers():
            self._bury(pid)

    def _bury(self, pid: int) -> None:
        """End a child of ours, and be there for it whenever it does: it may be traced, or frozen."""
        pidfd = os.pidfd_open(pid)
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        self._orphans.add(pid)
        self._poller.watch(pidfd, ENDED, partial(self._reap, pid, pidfd))

    def _reap(self, pid: int, pidfd: int, events: int) -> None:
        if os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG) is not None:
            self._poller.forget(pidfd)
            os.close(pidfd)
            self._orphans.discard(pid)

    # Using one

    def start(self, process: Process, wanted: Json, stdio: Stdio, otherwise: Waiter) -> bool:
        """Have a starter start the program that `process` follows; False when there is none for it.

        Takes over `stdio` when True. otherwise(): is called, before they are closed, when it has to go another way.
        """
        described = _described(wanted)
        made = next((each for each in self._all if each.ready and each.described == described), None)
        packed = starter.pack(wanted["args"], wanted.get("cwd") or "/") if made else None
        if made is None or packed is None:
            return False
        if made.accounts != accounts_of(made.process.pid) or spaces_of(made.process.pid) != spaces_of(self._first()):
            self._drop(made)
            return False
        ours, theirs = channel.pair()
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        try:
            give_to(made.uid, stdio)
            starter.request(made.requests, packed, stdio, theirs.fileno())
        except OSError:  # it was killed a moment ago, or is stopped
            ours.close()
            self._drop(made)
            return False
        finally:
            theirs.close()
        made.used = time.monotonic()
        start = _Start(process, made, ours, stdio, otherwise)
        self._starts.append(start)
        self._poller.watch(ours.fileno(), READ, lambda events: self._read(start))
        return True

    def abandon(self, process: Process) -> None:
        """End the starter that was to start this process and does not: it, or its child, is stopped."""
        for start in [each for each in self._starts if each.process is process]:
            start.otherwise = None
            if start.starter in self._all:
                self._drop(start.starter)
            self._end(start)

    def _read(self, start: _Start) -> None:
        try:
            for _ in range(_PATIENCE):
                answer = starter.told(start.sync)
                if answer is None:
                    self._end(start)
                    return
                self._hear(start, *answer)
        except BlockingIOError:
            self._watch(start)

    def _hear(self, start: _Start, sender: int, number: int) -> None:
        if number < 0:
            start.failed.add(sender)
        elif number > 0 and sender == start.starter.process.pid:
            start.pid = number

    def _watch(self, start: _Start) -> None:
        """Do not wait for the socket's end once the child has ended: somebody may have a copy of the other end."""
        if start.guard < 0 < start.pid:
            try:
                start.guard = os.pidfd_open(start.pid)
            except OSError:  # no descriptors are left
                return
            self._poller.watch(start.guard, ENDED, lambda events: self._end(start))

    def _end(self, start: _Start) -> None:
        """The program runs, or was not to be executed. Only a child of ours that nobody knows can be it."""
        self._starts.remove(start)
        for fd in (start.sync.fileno(), start.guard):
            self._poller.forget(fd)
        start.sync.close()
        pid = start.pid if start.pid in self._strangers() else 0
        try:
            if pid and pid not in start.failed and start.otherwise:
                self._started.add(start.process)
                start.process.begin(pid)
            else:
                if pid:
                    self._bury(pid)
                if start.otherwise:
                    start.otherwise()
        finally:
            for fd in {*start.stdio, start.guard} - {-1}:
                os.close(fd)


def _described(process: Json) -> Json | None:
    """Return what all processes of one starter have in common; None for what none can start."""
    limits = {limit["type"] for limit in process.get("rlimits") or ()}
    if starter.program() is None or process.get("terminal") or "RLIMIT_NPROC" in limits:
        return None
    return {key: value for key, value in process.items() if key not in ("args", "cwd")}


def _has_room(cgroup: Cgroup) -> bool:
    directory = cgroup.directory("pids")
    if directory is None:
        return True
    most = files.read(directory + "/pids.max").strip()
    return most == "max" or int(most) >= ROOM
