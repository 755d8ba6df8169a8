"""The exec sessions of one container."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from socket import socket
from typing import Any

from wherry.runtime.cgroups import Cgroup
from wherry.runtime.client import Client
from wherry.runtime.entrance import Entrance
from wherry.runtime.execspare import ExecSpares
from wherry.runtime.poller import Poller
from wherry.runtime.process import LOST, Process
from wherry.runtime.session import Session
from wherry.runtime.starters import Starters, Stdio
from wherry.runtime.wire import NOBODY, ExecLaunch, SetupFailure

AFTER_START = 0.05  # seconds from an exec's start until something is made ready for the next one
AFTER_END = 0.002  # and from its end, if that is earlier: the answer goes out first
EXEC_DRAIN = 2.0  # others may hold an exec's output after its end; dockerd waits for them as long

Tell = Callable[[dict[str, Any]], bool]


@dataclass(slots=True)
class _Exec:
    """One exec, what its start is answered to, and the OCI process object."""

    process: Process
    seq: int
    wanted: dict[str, Any]
    cgroup: Cgroup
    over: bool = False  # its output is drained too


class Execs:
    """Starts execs and tells of their ends; an end that could not be told is kept for the next connection.

    entrance: how a child becomes the process. starters, spares: the quicker ways, see `starter` and `execspare`.
    tell(message): sends to wherryd, False when nobody listens. others(): the children of ours that are no execs.
    """

    def __init__(self, poller: Poller, entrance: Entrance, tell: Tell, others: Callable[[], set[int]]) -> None:
        self._poller = poller
        self._entrance = entrance
        self.starters = Starters(poller, entrance.stay, entrance.first, self._unknown, self._busy)
        self.spares = ExecSpares(poller, entrance.start_of)
        self._tell = tell
        self._others = others
        self._execs: dict[str, _Exec] = {}
        self._over = False
        self.lingering: list[Client] = []

    def start(self, seq: int, launch: ExecLaunch, cgroup: Cgroup, stream: int | None) -> None:
        """Fork the exec; its reply goes out once it runs or has failed. Takes over `stream`."""
        if launch.exec_id in self._execs:
            raise FileExistsError(f"exec {launch.exec_id} is there already")
        terminal = bool(launch.process.get("terminal"))
        attach = launch.attach if stream is not None else None
        stdin = attach is not None and attach.stdin
        session = Session(self._poller, terminal=terminal, log=None, stdin=stdin, once=True, patient=True)
        stdio = None if terminal else session.make_pipes(output=bool(attach and (attach.stdout or attach.stderr)))
        if attach is not None and stream is not None:
            session.attach(stream, attach)
        process = Process(self._poller, session)
        process.on_running = lambda process: self._running(launch.exec_id)
        process.on_failed = lambda process: self._failed(launch.exec_id)
        process.on_exit = lambda process: self._exited(launch.exec_id)
        process.find_child = self.find_child
        self._execs[launch.exec_id] = _Exec(process, seq, launch.process, cgroup)
        late = partial(self._start_late, launch.exec_id, stdio)
        if stdio is not None and self.starters.start(process, launch.process, stdio, late):
            return
        try:
            self._start_slowly(launch.exec_id, stdio)
        except OSError:
            del self._execs[launch.exec_id]
            session.abandon()
            raise
        finally:
            for fd in set(stdio or ()):
                os.close(fd)

    def _start_slowly(self, exec_id: str, stdio: Stdio | None) -> None:
        item, spawns = self._execs[exec_id], self._entrance.spawns

        def child(sync: socket) -> None:
            self._entrance.execute(item.wanted, stdio, sync)

        if not spawns or not self.spares.start(item.process, item.wanted, stdio):
            item.process.fork(item.cgroup, child, spawns=spawns)
        self._plan(item, AFTER_START)

    def _start_late(self, exec_id: str, stdio: Stdio | None) -> None:
        """A starter could not start it."""
        process = self._execs[exec_id].process
        try:
            if not self._over:
                self._start_slowly(exec_id, stdio)
                return
            process.failure = LOST
        except OSError as error:
            process.failure = SetupFailure.from_oserror("process", "start the process", error)
        process.on_failed(process)

    def _plan(self, item: _Exec, seconds: float) -> None:
        """Have something ready for the next one like this."""
        if not self.starters.plan(item.wanted, item.cgroup, seconds):
            self.spares.plan(seconds)

    def close(self) -> None:
        """Start no more: the container is over."""
        self._over = True
        self.spares.close()
        self.starters.close()

    def disown(self) -> None:
        """Whoever asked for the execs that are on their way is gone; see `Checks.disown`."""
        for item in self._execs.values():
            item.seq = NOBODY

    def find_child(self, told: int) -> int:
        """Return a child of ours that is no exec yet: the one told of, if that is no lie, else any."""
        unknown = self._unknown()
        return told if told in unknown else next(iter(unknown), 0)

    def _busy(self) -> bool:
        return any(item.process.spawner for item in self._execs.values())

    def _unknown(self) -> list[int]:
        known = {item.process.pid for item in self._execs.values()} | {self.spares.pid, *self._others()}
        known |= self.starters.pids()
        known |= {item.process.spawner for item in self._execs.values()}
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as children:
            return [pid for pid in map(int, children.read().split()) if pid not in known]

    def _running(self, exec_id: str) -> None:
        item = self._execs[exec_id]
        self._tell({"type": "reply", "seq": item.seq, "ok": {"pid": item.process.pid, "at": item.process.started_at}})

    def _failed(self, exec_id: str) -> None:
        item = self._execs.pop(exec_id)
        item.process.session.abandon()
        if item.process.failure is not None:
            self._tell({"type": "reply", "seq": item.seq, "error": item.process.failure.to_wire()})

    def _exited(self, exec_id: str) -> None:
        session = self._execs[exec_id].process.session
        session.drain()
        if session.output_open:
            session.on_output_end = lambda: self._conclude(exec_id)
            self._poller.after(EXEC_DRAIN, lambda: self._conclude(exec_id))
        else:
            self._conclude(exec_id)

    def _conclude(self, exec_id: str) -> None:
        item = self._execs.get(exec_id)
        if item is None or item.over or item.process.exit is None:
            return
        item.over = True
        self._plan(item, AFTER_END)
        # The end is told before the client sees the end of its stream: the next thing it asks for is the exit code.
        if self._tell({"type": "exec-exited", "exec": exec_id, **item.process.exit.to_wire()}):
            del self._execs[exec_id]
        self.lingering = [client for client in self.lingering if client.open]
        self.lingering += item.process.session.finish()

    def conclude_all(self) -> None:
        """The container is over: reap and drain every exec, wait for no one else."""
        for exec_id, item in tuple(self._execs.items()):
            if item.process.reap() and exec_id in self._execs:
                item.process.session.drain()
                self._conclude(exec_id)

    def process(self, exec_id: str) -> Process:
        """Return the exec's process; raises ProcessLookupError."""
        item = self._execs.get(exec_id)
        if item is None:
            raise ProcessLookupError(f"no such exec: {exec_id}")
        return item.process

    def state(self) -> dict[str, Any]:
        """Return the execs for a "state" message."""
        return {
            exec_id: {
                "pid": item.process.pid,
                "at": item.process.started_at,
                "exit": item.process.exit.to_wire() if item.over and item.process.exit else None,
            }
            for exec_id, item in self._execs.items()
            if item.process.started_at
        }

    def forget_told(self) -> None:
        """Drop the ended execs: the last "state" message told of them."""
        self._execs = {exec_id: item for exec_id, item in self._execs.items() if not item.over}
