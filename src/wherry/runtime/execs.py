"""The exec sessions of one container."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from wherry.runtime.cgroups import Cgroup
from wherry.runtime.client import Client
from wherry.runtime.execspare import ExecSpares, StartOf
from wherry.runtime.init import run_exec
from wherry.runtime.poller import Poller
from wherry.runtime.process import Process
from wherry.runtime.session import Session
from wherry.runtime.wire import ExecLaunch, SetupFailure

EXEC_DRAIN = 2.0  # others may hold an exec's output after its end; dockerd waits for them as long

Tell = Callable[[dict[str, Any]], bool]


@dataclass(slots=True)
class _Exec:
    """One exec and what its start is answered to."""

    process: Process
    seq: int
    stdio: tuple[int, int, int] | None = None  # the child's side, open until there is a child that has it
    over: bool = False  # its output is drained too

    def close_stdio(self) -> None:
        """Leave the child's side to the child."""
        for fd in set(self.stdio or ()):
            os.close(fd)
        self.stdio = None


class Execs:
    """Starts execs and tells of their ends; an end that could not be told is kept for the next connection.

    start_of(process, stdio, sync): what the child is told. tell(message): sends to wherryd, False when nobody listens.
    """

    def __init__(self, poller: Poller, start_of: StartOf, spares: ExecSpares, tell: Tell) -> None:
        self._poller = poller
        self._start_of = start_of
        self._spares = spares
        self._tell = tell
        self._execs: dict[str, _Exec] = {}
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
        process.on_refused = lambda process: self._refused(launch, cgroup)
        self._execs[launch.exec_id] = _Exec(process, seq, stdio)
        if stdio is None or not self._spares.start(process, launch.process, stdio):
            self._fork(launch, cgroup)

    def _fork(self, launch: ExecLaunch, cgroup: Cgroup) -> None:
        item = self._execs[launch.exec_id]
        try:
            item.process.fork(cgroup, lambda sync: run_exec(self._start_of(launch.process, item.stdio, sync)))
        except OSError:
            self._execs.pop(launch.exec_id).process.session.abandon()
            raise
        finally:
            item.close_stdio()

    def _refused(self, launch: ExecLaunch, cgroup: Cgroup) -> None:
        seq = self._execs[launch.exec_id].seq
        try:
            self._fork(launch, cgroup)
        except OSError as error:
            failure = SetupFailure.from_oserror("exec", "fork the exec", error)
            self._tell({"type": "reply", "seq": seq, "error": failure.to_wire()})

    def _running(self, exec_id: str) -> None:
        item = self._execs[exec_id]
        item.close_stdio()
        self._tell({"type": "reply", "seq": item.seq, "ok": {"pid": item.process.pid, "at": item.process.started_at}})

    def _failed(self, exec_id: str) -> None:
        item = self._execs.pop(exec_id)
        item.close_stdio()
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
        self._spares.ended()
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
