"""Runs the health checks of containers: an exec each time, by the container's own supervisor."""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress

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
        container.health = None if plan is None else Health()
        if plan is not None:
            container.checking = spawn(self._check(container, task, plan), f"health of {container.name}")

    def end(self, container: Container) -> None:
        """Stop checking; what was found out stays to be seen."""
        checking, container.checking = container.checking, None
        if checking is not None:
            checking.cancel()

    async def _check(self, container: Container, task: Task, plan: Plan) -> None:
        state = container.health
        while state is not None and not task.exited.done():
            await asyncio.sleep(state.pause(plan, time.time_ns() - task.started_at))
            if container.record.state.status != "running":
                continue  # paused: no process of it could answer
            result = await self._probe(container, task, plan)
            if task.exited.done():
                return
            if state.take(result, plan, started_at=task.started_at):
                self._publish(container, f"health_status: {state.status}")
                if state.status == "unhealthy":
                    self._unhealthy(container)

    async def _probe(self, container: Container, task: Task, plan: Plan) -> Result:
        begin, exec_id = time.time_ns(), secrets.token_hex(32)
        config = ExecConfig(cmd=list(plan.command), privileged=container.record.host_config.privileged)
        process = self._launching.exec_process(container.record, config)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        output = bytearray()
        words = " ".join(plan.command)
        self._publish(container, f"exec_create: {words}", execID=exec_id)
        try:
            self._publish(container, f"exec_start: {words}", execID=exec_id)
            launch = ExecLaunch(exec_id=exec_id, process=process, attach=AttachOptions())
            execution = await task.exec(launch, theirs.fileno())
            theirs.close()
            try:
                async with asyncio.timeout(plan.timeout):
                    await _read(ours, output)
                    code = (await asyncio.shield(execution.exited)).code
            except TimeoutError:
                await self._kill(task, exec_id, execution.exited)
                text = f"Health check exceeded timeout ({_duration(plan.timeout)})"
                kept = _text(output)
                return Result(begin, time.time_ns(), -1, f"{text}: {kept}" if kept else text)
        except (EngineError, LaunchFailed) as error:
            message = error.failure.message if isinstance(error, LaunchFailed) else error.message
            return Result(begin, time.time_ns(), -1, message)
        finally:
            theirs.close()
            ours.close()
        self._publish(container, "exec_die", execID=exec_id, exitCode=str(code))
        return Result(begin, time.time_ns(), code, _text(output))

    async def _kill(self, task: Task, exec_id: str, exited: asyncio.Future[Exit]) -> None:
        with suppress(EngineError, LaunchFailed, OSError, TimeoutError):  # it has ended meanwhile, or is stuck
            await task.signal(signal.SIGKILL, exec_id)
            await asyncio.wait_for(asyncio.shield(exited), LATE)


async def _read(sock: socket.socket, output: bytearray) -> None:
    """Read a multiplexed stream to its end; keep the first bytes of what both streams say."""
    loop, frames = asyncio.get_running_loop(), Frames()
    while data := await loop.sock_recv(sock, 65536):
        for piece in frames.feed(data):
            output += piece[: health.OUTPUT + 1 - len(output)]


def _text(output: bytearray) -> str:
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
