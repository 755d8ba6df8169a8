"""A running container as wherryd sees it: the connection to its supervisor."""

from __future__ import annotations

import asyncio
import logging
import os
import signal as signals
from binascii import a2b_base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from wherry.errors import Conflict, NotFound, Unavailable
from wherry.runtime import exits
from wherry.runtime.wire import AttachOptions, ExecLaunch, Exit, SetupFailure
from wherry.supervision import remains
from wherry.supervision.background import spawn
from wherry.supervision.connection import Connection, connect, peer_pid

log = logging.getLogger(__name__)

REPLY_PATIENCE = 30.0  # an exec's set-up may have to wait for a slow disk
STATE_PATIENCE = 5.0
FDS = 200
"""Descriptors in one message; SCM_MAX_FD is 253."""


class LaunchFailed(Exception):
    """A container or exec did not start; `failure` says why."""

    def __init__(self, failure: SetupFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class LaunchVanished(LaunchFailed):
    """The launch was lost before it came to a process."""


@dataclass(frozen=True, slots=True)
class CheckEnd:
    """How a health check ended. begin, end: Unix ns. late: it was killed, and then its code says nothing."""

    begin: int
    end: int
    code: int
    late: bool
    output: bytes


class ExecTask:
    """One exec. exited: its end, once its output is complete."""

    def __init__(self, exec_id: str) -> None:
        self.id = exec_id
        self.pid = 0
        self.started_at = 0
        self.exited: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()


class Task:
    """One container's supervisor and first process.

    cgroup_path: the OCI cgroupsPath of its start. exited: the end of the first process; it is on disk by then.
    gone: no process and no cgroup is left.
    phases: when each phase of the start began, see `runtime.phases`.
    root_device: st_dev of the root file system that it was started with, 0 when nobody knows.
    on_detach(exec_id): a client has left by its detach keys; "" for one of the container itself.
    """

    def __init__(self, container_id: str, run_dir: Path, cgroup_path: str) -> None:
        loop = asyncio.get_running_loop()
        self.id = container_id
        self.pid = 0
        self.start_time = 0
        self.started_at = 0
        self.phases: tuple[tuple[str, int], ...] = ()
        self.root_device = 0
        self.exited: asyncio.Future[Exit] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()
        self.execs: dict[str, ExecTask] = {}
        self.on_detach: Callable[[str], None] = lambda exec_id: None
        self._run_dir = run_dir
        self.cgroup_path = cgroup_path
        self._outcome: asyncio.Future[SetupFailure | None] = loop.create_future()
        self._replies: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._seq = 0
        self._connection: Connection | None = None
        self._vanished = False
        self._replaced = False

    # Connection

    def take(self, connection: Connection) -> None:
        """Use this connection from now on."""
        self._connection = connection

    async def outcome(self) -> None:
        """Wait until the container runs, its state is known, or raise LaunchFailed."""
        failure = await asyncio.shield(self._outcome)
        if failure is not None:
            raise LaunchVanished(failure) if self._vanished else LaunchFailed(failure)

    def on_message(self, message: dict[str, Any]) -> None:
        """Take a message of the supervisor."""
        kind = message["type"]
        if kind == "reply":
            waiter = self._replies.pop(message["seq"], None)
            if waiter is not None and not waiter.done():
                waiter.set_result(message)
        elif kind in ("running", "state"):
            self._take_state(message)
        elif kind == "failed":
            _settle(self._outcome, SetupFailure.from_wire(message))
        elif kind == "exited":
            _settle(self.exited, Exit.from_wire(message))
        elif kind == "exec-exited":
            self._end_exec(message["exec"], Exit.from_wire(message))
        elif kind == "detached":
            self.on_detach(message["exec"])
        elif kind == "replaced":
            self._replaced = True
            log.error("another daemon took over a container", extra={"container": self.id})
        elif kind == "log-failed":
            log.error("container log lost output", extra={"container": self.id, "error": message["message"]})

    def _take_state(self, message: dict[str, Any]) -> None:
        self.pid, self.start_time, self.started_at = message["pid"], message["start_time"], message["at"]
        # a supervisor that an older engine started tells none
        self.phases = tuple((name, at) for name, at in message.get("phases", ()))
        self.root_device = message.get("root", 0)
        told = message.get("execs")
        if told is not None:
            self._take_execs(told)
        _settle(self._outcome, None)

    def _take_execs(self, told: dict[str, Any]) -> None:
        for exec_id, state in told.items():
            task = self.execs.setdefault(exec_id, ExecTask(exec_id))
            task.pid, task.started_at = state["pid"], state["at"]
            if state["exit"] is not None:
                self._end_exec(exec_id, Exit.from_wire(state["exit"]))
        for exec_id in self.execs.keys() - told.keys():  # its end was sent into the connection that broke
            self._end_exec(exec_id, Exit(remains.KILLED, signals.SIGKILL, 0))

    def _end_exec(self, exec_id: str, outcome: Exit) -> None:
        task = self.execs.pop(exec_id, None)
        if task is not None:
            _settle(task.exited, outcome)

    def on_end(self) -> None:
        """The connection has ended: all is over, or the supervisor died, or it only dropped us."""
        ended = self.exited.done()
        for waiter in self._replies.values():
            if not waiter.done():
                gone = Unavailable(f"the supervisor of container {self.id} is gone")
                waiter.set_exception(Conflict(f"container {self.id} is not running") if ended else gone)
        self._replies.clear()
        failed = self._outcome.done() and self._outcome.result() is not None
        if self.exited.done() or failed:
            self._close()
        elif not self._replaced:
            spawn(self._after_end(), f"end of container {self.id[:12]}")

    def _close(self) -> None:
        for exec_id in tuple(self.execs):
            self._end_exec(exec_id, Exit(remains.KILLED, signals.SIGKILL, 0))
        _settle(self.gone, None)

    async def _after_end(self) -> None:
        if self._outcome.done() and await self.reconnect():
            return
        outcome = await asyncio.to_thread(remains.end_container, self._run_dir, self.cgroup_path)
        fault = await asyncio.to_thread(_read_fault, self._run_dir)
        log.error("supervisor died", extra={"container": self.id, "fault": fault})
        self._vanished = outcome is None and not fault
        failure = SetupFailure("process", "supervise", 0, "", "the container's supervisor died")
        _settle(self._outcome, failure)
        _settle(self.exited, outcome or Exit(remains.KILLED, signals.SIGKILL, 0))
        self._close()

    async def end(self) -> None:
        """Kill what there is of the container, whatever its supervisor says."""
        await asyncio.to_thread(remains.end_container, self._run_dir, self.cgroup_path)

    async def reconnect(self) -> bool:
        """Connect to a supervisor that lives; False when it does not, or does not answer (it is ended then)."""
        while (sock := await connect(self._run_dir)) is not None:
            peer = peer_pid(sock)
            known: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            connection = Connection(sock, partial(self._first, known), partial(self._lost, known))
            try:
                async with asyncio.timeout(STATE_PATIENCE):
                    alive = await known
            except TimeoutError:
                connection.close()
                await asyncio.to_thread(remains.kill_supervisor, peer)
                return False
            if alive:
                self.take(connection)
                return True
        return False

    def _first(self, known: asyncio.Future[bool], message: dict[str, Any]) -> None:
        self.on_message(message)
        _settle(known, True)

    def _lost(self, known: asyncio.Future[bool]) -> None:
        """An end before the state: the supervisor is at its end, or another connection was quicker. Ask again."""
        if known.done():
            self.on_end()
        else:
            known.set_result(False)

    # Commands

    async def _request(
        self, kind: str, fields: dict[str, Any], fds: Sequence[int] = (), patience: float = REPLY_PATIENCE
    ) -> dict[str, Any]:
        connection = self._connection
        if connection is None or not connection.open:
            raise Conflict(f"container {self.id} is not running")
        self._seq += 1
        seq = self._seq
        waiter = self._replies[seq] = asyncio.get_running_loop().create_future()
        try:
            await connection.send({"type": kind, "seq": seq, **fields}, fds)
            async with asyncio.timeout(patience):
                reply = await waiter
        except ConnectionError as error:
            raise Conflict(f"container {self.id} is not running") from error
        except TimeoutError as error:
            raise Unavailable(f"the supervisor of container {self.id} does not answer") from error
        finally:
            self._replies.pop(seq, None)
        if "error" in reply:
            raise LaunchFailed(SetupFailure.from_wire(reply["error"]))
        ok: dict[str, Any] = reply["ok"]
        return ok

    async def attach(self, fd: int, options: AttachOptions) -> None:
        """Connect a client's stream; the caller closes its own `fd`."""
        await self._request("attach", options.to_wire(), [fd])

    async def hold(self, sockets: Mapping[str, int]) -> None:
        """Have the supervisor keep these descriptors open; the caller closes its own. Raises Conflict, Unavailable."""
        keys = list(sockets)
        for start in range(0, len(keys), FDS):
            part = keys[start : start + FDS]
            await self._request("hold", {"keys": part}, [sockets[key] for key in part])

    async def release(self, keys: Sequence[str]) -> None:
        """Have the supervisor close what it holds under these keys."""
        await self._request("release", {"keys": list(keys)})

    async def exec(self, launch: ExecLaunch, stream_fd: int | None) -> ExecTask:
        """Run one more process; raises LaunchFailed. The caller closes its own `stream_fd`."""
        task = self.execs[launch.exec_id] = ExecTask(launch.exec_id)
        try:
            ok = await self._request("exec", launch.to_wire(), [stream_fd] if stream_fd is not None else [])
        except BaseException:
            self.execs.pop(launch.exec_id, None)
            raise
        task.pid, task.started_at = ok["pid"], ok["at"]
        return task

    async def check(self, process: dict[str, Any] | None, *, timeout: float, limit: int) -> CheckEnd | None:
        """Run the container's health check; None when it has to be an `exec` this time.

        process: the OCI process object, None for that of the check before. timeout: seconds until it is killed. limit:
        bytes of output to keep, of stdout and stderr in the order they were written. Raises Conflict, Unavailable.
        """
        fields = {"process": process, "timeout": timeout, "limit": limit}
        try:
            ok = await self._request("check", fields, patience=timeout + REPLY_PATIENCE)
        except LaunchFailed:  # a supervisor of an older engine knows no checks
            return None
        if "unable" in ok:
            return None
        return CheckEnd(ok["begin"], ok["end"], ok["code"], ok["late"], a2b_base64(ok["output"]))

    async def resize(self, height: int, width: int, exec_id: str = "") -> None:
        """Set the size of the terminal of the container or of an exec."""
        await self._request_about(exec_id, "resize", {"height": height, "width": width})

    async def close_stdin(self, exec_id: str = "") -> None:
        """End the input of the container or of an exec."""
        await self._request_about(exec_id, "stdin-close", {})

    async def signal(self, number: int, exec_id: str = "") -> None:
        """Send a signal to the container's first process, or to an exec's; one that is gone needs none."""
        if exec_id:
            await self._request_about(exec_id, "signal", {"signal": number})
            return
        pidfd = remains.open_process(self.pid, self.start_time)
        if pidfd is None:
            return
        try:
            signals.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            return
        finally:
            os.close(pidfd)

    async def _request_about(self, exec_id: str, kind: str, fields: dict[str, Any]) -> None:
        try:
            await self._request(kind, {"exec": exec_id, **fields})
        except LaunchFailed as error:
            what = f"exec {exec_id}" if exec_id else f"container {self.id}"
            raise NotFound(f"{what}: {error.failure.message}") from error


def _settle(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _read_fault(run_dir: Path) -> str:
    try:
        return (run_dir / exits.FAULT).read_text(errors="replace")[-4000:]
    except FileNotFoundError:
        return ""
