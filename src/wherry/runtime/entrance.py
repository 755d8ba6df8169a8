"""How a child of the supervisor gets into the container: an exec, the spare for one, the starter of a health check."""

from __future__ import annotations

import os
from collections.abc import Callable
from socket import socket
from typing import Any, NoReturn

from wherry.runtime.cgroups import Cgroup
from wherry.runtime.filters import Filter
from wherry.runtime.foreign import Foreign
from wherry.runtime.init import run_exec
from wherry.runtime.process import Process
from wherry.runtime.setup import ExecStart
from wherry.runtime.wire import Launch

Stdio = tuple[int, int, int] | None


class Entrance:
    """What all who enter have in common. process: in all methods the OCI spec's ``process`` object.

    first: the container's first process. cgroup: gives the container's control group, which is there by then.
    spawns: whether a child forks the program, or becomes it; see `execspare`.
    """

    def __init__(
        self,
        launch: Launch,
        first: Process,
        seccomp: Filter | None,
        foreign: Foreign | None,
        cgroup: Callable[[], Cgroup | None],
    ) -> None:
        self._launch = launch
        self._first = first
        self._seccomp = seccomp.program if seccomp else None
        self._foreign = foreign
        self._cgroup = cgroup
        self.spawns = False

    def execute(self, process: dict[str, Any], stdio: Stdio, sync: socket) -> NoReturn:
        """Make the calling process that of an exec."""
        if self._foreign is not None:
            self._foreign.execute(sync, stdio, process, self._first.pid)
        start = self.start_of(process, stdio, sync)
        start.spawn = self.spawns
        run_exec(start)

    def stay(self, process: dict[str, Any], sync: socket, requests: socket) -> NoReturn:
        """Make the calling process the starter of a health check."""
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        start = self.start_of(process, (null, null, null), sync)
        start.spawn, start.requests = True, requests.fileno()
        run_exec(start)

    def first(self) -> int:
        """Return the pid of the container's first process."""
        return self._first.pid

    def start_of(self, process: dict[str, Any], stdio: Stdio, sync: socket) -> ExecStart:
        """Return what `run_exec` is told of a process."""
        cgroup = self._cgroup()
        assert cgroup is not None
        return ExecStart(
            process=process,
            spec=self._launch.spec,
            init_pid=self._first.pid,
            init_pidfd=self._first.pidfd,
            stdio=stdio,
            sync=sync,
            cgroup=cgroup,
            seccomp=self._seccomp,
            id=self._launch.id,
        )
