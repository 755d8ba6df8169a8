"""docker exec: one more process in a running container."""

from __future__ import annotations

import asyncio
import os
import secrets
import struct
from dataclasses import dataclass, field
from typing import Any

from wherry.containers.catalog import Catalog, Container
from wherry.containers.state import check_not_restarting
from wherry.errors import Conflict, EngineError, InvalidArgument, NotFound
from wherry.models.container import ExecConfig, ExecStart
from wherry.models.queries import ClientStream, Upgrade
from wherry.oci.validate import check_console_size
from wherry.runtime.passwd import Accounts
from wherry.runtime.setup import SetupError
from wherry.runtime.wire import AttachOptions, ExecLaunch
from wherry.services.lifecycle import Lifecycle
from wherry.services.streams import DETACH_KEYS, check_detach_keys
from wherry.supervision.background import spawn
from wherry.supervision.task import ExecTask, LaunchFailed

Json = Any
NOT_RUN = 126
REMEMBERED = 512
"""Ended execs that can still be inspected, over all containers."""


@dataclass(slots=True, eq=False)
class Exec:
    """One exec instance. failed: the exit code of one that did not start, as a shell would say it."""

    id: str
    container: Container
    config: ExecConfig
    started: bool = False
    task: ExecTask | None = None
    failed: int | None = None

    @property
    def code(self) -> int | None:
        """The exit code; None until it has ended. Read from the task itself: nothing can lag behind it."""
        if self.task is not None and self.task.exited.done():
            return self.task.exited.result().code
        return self.failed

    @property
    def running(self) -> bool:
        """True between start and end."""
        return self.task is not None and not self.task.exited.done()


@dataclass(slots=True)
class Execs:
    """ExecBackend."""

    catalog: Catalog
    lifecycle: Lifecycle
    _all: dict[str, Exec] = field(default_factory=dict)

    async def create(self, ref: str, config: ExecConfig) -> Json:
        """POST /containers/ID/exec."""
        container = self.catalog.resolve(ref)
        if not config.cmd:
            raise InvalidArgument("No exec command specified")
        self._check(container)
        check_detach_keys(config.detach_keys)
        check_console_size(config.console_size)
        for entry in config.env or ():
            if not entry.partition("=")[0]:
                raise InvalidArgument(f"invalid environment variable: {entry}")
        # one that may mount could let us wait for its /etc; there the launch tells, from a process of its own
        if config.user and container.task is not None and not container.record.may_mount:
            await asyncio.to_thread(_check_user, container.task.pid, config.user)
        instance = Exec(secrets.token_hex(32), container, config)
        self._forget_old()
        self._all[instance.id] = instance
        words = " ".join(config.cmd)
        self.lifecycle.publish(container, f"exec_create: {words}", execID=instance.id)
        return {"Id": instance.id}

    def _check(self, container: Container) -> None:
        if container.record.state.status == "paused":
            raise Conflict(f"Container {container.name} is paused, unpause the container before exec")
        check_not_restarting(f"Container {container.id}", container.record.state.status)
        if not container.record.state.alive or container.task is None:
            raise Conflict(f"container {container.id} is not running")

    def _forget_old(self) -> None:
        """Drop the oldest ended instances, and those whose container is gone."""
        if len(self._all) <= REMEMBERED:
            return
        ended = [each for each in self._all.values() if each.code is not None]
        for instance in ended[: max(0, len(ended) - REMEMBERED)]:
            del self._all[instance.id]

    def running_ids(self, container_id: str) -> list[str]:
        """Return the execs that run in a container, for docker inspect."""
        return [each.id for each in self._all.values() if each.running and each.container.id == container_id]

    def _resolve(self, exec_id: str) -> Exec:
        found = self._all.get(exec_id)
        if found is None:
            raise NotFound(f"No such exec instance: {exec_id}")
        return found

    async def start(self, exec_id: str, options: ExecStart, upgrade: Upgrade) -> None:
        """POST /exec/ID/start: answered before the process starts unless detached, as dockerd does."""
        instance = self._resolve(exec_id)
        self._check(instance.container)
        if instance.started:
            raise Conflict(
                f"exec command {exec_id} has already run"
                if instance.code is not None
                else (f"exec command {exec_id} is already running")
            )
        check_console_size(options.console_size)
        instance.started = True
        words = " ".join(instance.config.cmd or ())
        self.lifecycle.publish(instance.container, f"exec_start: {words}", execID=exec_id)
        if options.detach:
            await self._launch(instance, options, None)
            return
        stream = await upgrade(instance.config.tty)
        try:
            await self._launch(instance, options, stream)
        except EngineError as error:
            if instance.failed is None:
                instance.failed = NOT_RUN
            await asyncio.to_thread(_tell, stream.fd, error.message, instance.config.tty)
        finally:
            os.close(stream.fd)

    async def _launch(self, instance: Exec, options: ExecStart, stream: ClientStream | None) -> None:
        container, config = instance.container, instance.config
        task = container.task
        if task is None:
            raise Conflict(f"container {container.id} is not running")
        await self.lifecycle.launching.confine(container.record)
        process = self.lifecycle.launching.exec_process(
            container.record, config, console_size=options.console_size or config.console_size
        )
        attach = None
        if stream is not None:
            attach = AttachOptions(
                stdin=config.attach_stdin,
                stdout=config.attach_stdout,
                stderr=config.attach_stderr,
                detach_keys=config.detach_keys or DETACH_KEYS,
                early=stream.early,
            )
        try:
            launch = ExecLaunch(exec_id=instance.id, process=process, attach=attach)
            instance.task = await task.exec(launch, stream.fd if stream else None)
        except LaunchFailed as error:
            text = f"OCI runtime exec failed: exec failed: unable to start container process: {error.failure.message}"
            instance.failed = 126 if "permission denied" in text else 127
            raise InvalidArgument(text) from error
        spawn(self._await_end(instance, instance.task), f"end of exec {instance.id[:12]}")

    async def _await_end(self, instance: Exec, task: ExecTask) -> None:
        outcome = await task.exited
        if instance.container.id in self.catalog:
            self.lifecycle.publish(instance.container, "exec_die", execID=instance.id, exitCode=str(outcome.code))

    async def resize(self, exec_id: str, *, height: int, width: int) -> None:
        """POST /exec/ID/resize."""
        instance = self._resolve(exec_id)
        if not instance.running or instance.container.task is None:
            raise Conflict(f"exec {exec_id} is not running")
        await instance.container.task.resize(height, width, exec_id)

    async def inspect(self, exec_id: str) -> Json:
        """GET /exec/ID/json."""
        # an end that has arrived on the supervisor's socket before this request is read from it first
        await asyncio.sleep(0)
        instance = self._resolve(exec_id)
        config = instance.config
        words = config.cmd or [""]
        return {
            "ID": instance.id,
            "Running": instance.running,
            "ExitCode": instance.code,
            "ProcessConfig": {
                "tty": config.tty,
                "entrypoint": words[0],
                "arguments": words[1:],
                "privileged": config.privileged,
                **({"user": config.user} if config.user else {}),
            },
            "OpenStdin": config.attach_stdin,
            "OpenStderr": config.attach_stderr,
            "OpenStdout": config.attach_stdout,
            "CanRemove": False,
            "ContainerID": instance.container.id,
            "DetachKeys": "",
            "Pid": instance.task.pid if instance.task else 0,
        }


def _tell(descriptor: int, text: str, tty: bool) -> None:
    """Write why the command did not start where its output would have been, as dockerd does."""
    data = f"{text}\r\n".encode()
    try:
        os.write(descriptor, data if tty else struct.pack(">BxxxI", 1, len(data)) + data)
    except ConnectionError:  # it has left, and nobody else asked
        return


def _check_user(pid: int, user: str) -> None:
    """Look for the user when an exec is created, as dockerd does: an error then, not output later.

    Raises InvalidArgument in dockerd's words. Who the process is, is looked for once more when it starts.
    """
    try:
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # the container has just ended, which the launch tells
        return
    try:
        Accounts(root).identify(user)
    except SetupError as error:
        raise InvalidArgument(error.message) from error
    finally:
        os.close(root)
