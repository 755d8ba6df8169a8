"""Runs the health checks of containers, each by the container's own supervisor.

The supervisor keeps the command ready to be executed (runtime/checks.py). Where it cannot, for the host's pid
namespace, another runtime or a strict seccomp profile, and to find the words for a command that cannot be executed, a
check is an exec like any other.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from wherry.containers import health
from wherry.containers.catalog import Container
from wherry.containers.health import Health, Plan, Result
from wherry.errors import EngineError
from wherry.models.container import ExecConfig
from wherry.runtime.wire import AttachOptions, ExecLaunch, Exit
from wherry.services.launching import Launching
from wherry.supervision.background import spawn
from wherry.supervision.frames import Frames
from wherry.supervision.task import LaunchFailed, Task

LATE = 5.0
"""Seconds to wait for the end of a check that was killed."""

Publish = Callable[..., None]


@dataclass(slots=True)
class _Run:
    """One run of a container. told: whether its supervisor knows the command."""

    container: Container
    task: Task
    plan: Plan
    told: bool = False


class HealthChecks:
    """One loop for each running container that has a check."""

    def __init__(self, launching: Launching, publish: Publish, unhealthy: Callable[[Container], None]) -> None:
        """unhealthy: is told of each container that becomes so."""
        self._launching = launching
        self._publish = publish
        self._unhealthy = unhealthy

    def begin(self, container: Container, task: Task) -> None:
        """Start checking a container that has just started, or was found running."""
        plan = health.plan(container.record.config)
        before = container.health
        container.health = None if plan is None else Health(results=before.results) if before else Health()
        if plan is not None:
            container.checking = spawn(self._check(container, task, plan), f"health of {container.name}")

    def suspend(self, container: Container) -> None:
        """Call a container that cannot answer unhealthy, as dockerd does, without an event."""
        if container.health is not None:
            container.health.status = "unhealthy"

    def end(self, container: Container) -> None:
        """Stop checking; what was found out stays to be seen."""
        self.suspend(container)
        checking, container.checking = container.checking, None
        if checking is not None:
            checking.cancel()

    async def _check(self, container: Container, task: Task, plan: Plan) -> None:
        state, run = container.health, _Run(container, task, plan)
        while state is not None and not task.exited.done():
            await asyncio.sleep(state.pause(plan, time.time_ns() - task.started_at))
            if container.record.state.status != "running":
                continue  # paused: no process of it could answer
            result = await self._probe(run)
            if task.exited.done():
                return
            if container.record.state.status != "running":
                continue  # paused meanwhile, and late for no fault of its own
            if state.take(result, plan, started_at=task.started_at):
                self._publish(container, f"health_status: {state.status}")
                if state.status == "unhealthy":
                    self._unhealthy(container)

    async def _probe(self, run: _Run) -> Result:
        begin, exec_id = time.time_ns(), secrets.token_hex(32)
        words = " ".join(run.plan.command)
        self._publish(run.container, f"exec_create: {words}", execID=exec_id)
        self._publish(run.container, f"exec_start: {words}", execID=exec_id)
        try:
            return await self._check_ready(run, exec_id) or await self._execute(run, exec_id, begin)
        except (EngineError, LaunchFailed) as error:
            message = error.failure.message if isinstance(error, LaunchFailed) else error.message
            return Result(begin, time.time_ns(), -1, message)

    def _tell_end(self, run: _Run, exec_id: str, code: int) -> None:
        self._publish(run.container, "exec_die", execID=exec_id, exitCode=str(code))

    def _process(self, run: _Run) -> dict[str, Any]:
        record = run.container.record
        config = ExecConfig(cmd=list(run.plan.command), privileged=record.host_config.privileged)
        return self._launching.exec_process(record, config)

    async def _check_ready(self, run: _Run, exec_id: str) -> Result | None:
        """Have the supervisor execute what it keeps ready; None when it cannot."""
        process = None if run.told else self._process(run)
        end = await run.task.check(process, timeout=run.plan.timeout, limit=health.OUTPUT + 1)
        run.told = True
        if end is None:
            return None
        if end.code >= 0:
            self._tell_end(run, exec_id, end.code)
        text = _text(end.output)
        if end.late:
            return Result(end.begin, end.end, -1, _late(run.plan, text))
        return Result(end.begin, end.end, end.code, text)

    async def _execute(self, run: _Run, exec_id: str, begin: int) -> Result:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        output = bytearray()
        try:
            launch = ExecLaunch(exec_id=exec_id, process=self._process(run), attach=AttachOptions())
            execution = await run.task.exec(launch, theirs.fileno())
            theirs.close()
            try:
                async with asyncio.timeout(run.plan.timeout):
                    await _read(ours, output)
                    code = (await asyncio.shield(execution.exited)).code
            except TimeoutError:
                await self._kill(run, exec_id, execution.exited)
                return Result(begin, time.time_ns(), -1, _late(run.plan, _text(output)))
        finally:
            theirs.close()
            ours.close()
        self._tell_end(run, exec_id, code)
        return Result(begin, time.time_ns(), code, _text(output))

    async def _kill(self, run: _Run, exec_id: str, exited: asyncio.Future[Exit]) -> None:
        with suppress(EngineError, LaunchFailed, OSError, TimeoutError):  # it has ended meanwhile, or is stuck
            await run.task.signal(signal.SIGKILL, exec_id)
            self._tell_end(run, exec_id, (await asyncio.wait_for(asyncio.shield(exited), LATE)).code)


async def _read(sock: socket.socket, output: bytearray) -> None:
    """Read a multiplexed stream to its end; keep the first bytes of what both streams say."""
    loop, frames = asyncio.get_running_loop(), Frames()
    while data := await loop.sock_recv(sock, 65536):
        for piece in frames.feed(data):
            output += piece[: health.OUTPUT + 1 - len(output)]


def _late(plan: Plan, output: str) -> str:
    text = f"Health check exceeded timeout ({_duration(plan.timeout)})"
    return f"{text}: {output}" if output else text


def _text(output: bytes | bytearray) -> str:
    text = bytes(output[: health.OUTPUT]).decode(errors="replace")
    return text + "..." if len(output) > health.OUTPUT else text


def _duration(seconds: float) -> str:
    """Return a duration as Go prints it, for those that are whole milliseconds."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    parts = [f"{hours}h" if hours else "", f"{minutes}m" if hours or minutes else "", f"{rest:g}s"]
    return "".join(parts)
