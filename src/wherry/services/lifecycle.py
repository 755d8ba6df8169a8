"""The life of a container: start, the end that comes by itself, stop, kill, restart, pause, removal.

A container's lock is held by whoever starts or removes it. The end of a task is handled in one piece on the event
loop, without the lock: nobody can see a container between "its process is gone" and "its record says so".
"""

from __future__ import annotations

import asyncio
import errno
import logging
import shutil
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec import structs

from wherry.containers import restart, signals
from wherry.containers.catalog import Catalog, Container
from wherry.containers.state import check_not_restarting
from wherry.errors import Conflict, EngineError, InvalidArgument, NotFound, NotModified, SystemFailure
from wherry.events import Bus
from wherry.failpoints import reach
from wherry.images.images import Images
from wherry.logs.targets import FAILED
from wherry.network.controller import Networks
from wherry.runtime.cgroups import Cgroup
from wherry.runtime.phases import Phases
from wherry.runtime.wire import Exit
from wherry.services.creation import attributes
from wherry.services.health import HealthChecks
from wherry.services.launching import Launching
from wherry.services.networks import publish
from wherry.services.pace import at_their_pace
from wherry.services.provision import Provision, volume_names
from wherry.services.restarts import Restarts
from wherry.services.settings import Settings
from wherry.snapshots.api import Snapshotter
from wherry.supervision.background import spawn
from wherry.supervision.task import LaunchFailed, Task

log = logging.getLogger(__name__)

OF_THE_VALUE = (errno.EINVAL, errno.ERANGE, errno.EBUSY)
"""What the kernel says to a limit that cannot be, or that the processes are beyond already: cgroups(7)."""

KILL_PATIENCE = 10.0
"""Seconds to wait for the end after SIGKILL before giving the user an error, as dockerd does."""


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """Moves containers between their states."""

    settings: Settings
    catalog: Catalog
    snapshotter: Snapshotter
    images: Images
    networks: Networks
    launching: Launching
    bus: Bus
    restarts: Restarts = field(default_factory=Restarts)
    health: HealthChecks = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "health", HealthChecks(self.launching, self.publish, self._unhealthy))

    def publish(self, container: Container, action: str, **more: str) -> None:
        """Publish an event of a container."""
        self.bus.publish("container", action, container.id, {**attributes(container.record), **more})

    def _tell_networks(self, container: Container, action: str) -> None:
        for endpoint in self.networks.endpoints(container.id):
            publish(self.bus, container.id, endpoint, action, self.networks.resolve(endpoint.network_id).driver)

    def _save_state(self, container: Container, **changes: Any) -> None:
        state = structs.replace(container.record.state, **changes)
        self.catalog.save(container, structs.replace(container.record, state=state))

    # ---- start and the end

    async def start(self, container: Container) -> None:
        """Start a container; raises NotModified when it runs already."""
        async with container.lock:
            state = container.record.state
            if state.status == "paused":
                raise Conflict("cannot start a paused container, try unpause instead")
            if state.active:
                raise NotModified("container already started")
            if state.status in ("removing", "dead"):
                raise Conflict("container is marked for removal and cannot be started")
            self.catalog.check_is_there(container)
            self.restarts.cancel(container)
            if state.restart_count:
                self._save_state(container, restart_count=0)
            await self._start_locked(container)

    async def _start_locked(self, container: Container) -> None:
        phases: Phases = [("resolve", time.monotonic_ns())]
        if container.task is not None:
            await container.task.gone  # the last run's supervisor still tidies its cgroup
        phases.append(("prepare", time.monotonic_ns()))
        try:
            task = await self.launching.launch(container, phases)
        except (EngineError, LaunchFailed) as error:
            await self._start_failed(container, error)
            raise _as_engine_error(error) from error
        ids = self.settings.ids_of(container.record.host_config)
        self.adopt(container, task, ids="" if ids is None else ids.words)
        self.provision.publish_mounts(container.record, "mount")
        self._tell_networks(container, "connect")
        self.publish(container, "start")
        try:
            self.launching.links.follow(container)
        except EngineError as error:  # it runs all the same
            log.warning("links are not up to date", extra={"container": container.id, "error": error.message})

    def adopt(self, container: Container, task: Task, **changes: Any) -> None:
        """Take over a running task: record it, and wait for its end in the background. changes: of the state."""
        container.task = task
        task.on_detach = lambda exec_id: self._detached(container, exec_id)
        changes |= {"pid": task.pid, "start_time": task.start_time, "started_at": task.started_at, "error": ""}
        changes["phases"] = task.phases or container.record.state.phases
        moved = structs.replace(
            container.record.state,
            status="paused" if container.record.state.status == "paused" else "running",
            exit_code=0,
            oom_killed=False,
            stopped_by_user=False,
            **changes,
        )
        self.catalog.save(container, structs.replace(container.record, state=moved))
        self.health.begin(container, task)
        container.watcher = spawn(self._await_end(container, task), f"end of {container.name}")

    def _detached(self, container: Container, exec_id: str) -> None:
        if exec_id:
            self.publish(container, "exec_detach", execID=exec_id)
        else:
            self.publish(container, "detach")

    async def _start_failed(self, container: Container, error: EngineError | LaunchFailed) -> None:
        text = _as_engine_error(error).message
        status = container.record.state.status
        self._save_state(
            container,
            status="exited" if status == "restarting" else status,
            exit_code=_exit_code(text),
            error=text,
        )
        if status == "restarting":
            _tell(container.stopped, container.record.state.exit_code)
        if container.record.host_config.auto_remove:
            await self._remove_locked(container, volumes=True)

    async def _await_end(self, container: Container, task: Task) -> None:
        outcome = await task.exited
        self._ended(container, outcome)
        if container.record.host_config.auto_remove:
            async with container.lock:
                if not container.record.state.alive:
                    await self._remove_locked(container, volumes=True)
        await task.gone
        if container.task is task:
            container.task = None
        if container.record.state.status == "restarting":
            self.restarts.plan(container, self._start_again, lasted=(outcome.at - task.started_at) / 1e9)

    async def _start_again(self, container: Container) -> None:
        """Start as the restart policy wants; a failure is the end of it."""
        async with container.lock:
            if container.id not in self.catalog or container.record.state.status != "restarting":
                return
            try:
                await self._start_locked(container)
            except EngineError as error:
                log.warning("restart failed", extra={"container": container.id, "error": error.message})

    def resume(self) -> None:
        """Start what the restart policies want at the start of the engine, after `ended_meanwhile`."""
        for container in self.catalog:
            state = container.record.state
            if state.status == "exited" and restart.at_boot(container.record.host_config.restart_policy, state):
                self.catalog.save(container, container.record.moved("restarting"))
            if container.record.state.status == "restarting":
                self.restarts.plan(container, self._start_again, lasted=restart.STEADY)

    def _ended(self, container: Container, outcome: Exit) -> None:
        """Record the end, tell everybody, and give back what the container held. Never waits."""
        record = container.record
        self.health.end(container)
        self._tell_networks(container, "disconnect")
        self.networks.close_sandbox(container.id)
        again = self.restarts.open and restart.after_end(
            record.host_config.restart_policy, record.state, outcome.code, unwell=container.unwell
        )
        container.unwell = False
        ended = record.moved(
            "restarting" if again else "exited",
            pid=0,
            start_time=0,
            exit_code=outcome.code,
            oom_killed=outcome.oom,
            finished_at=outcome.at,
            restart_count=record.state.restart_count + again,
        )
        self.catalog.save(container, ended)
        lasted = max(0, outcome.at - record.state.started_at) // 1_000_000_000
        if outcome.oom:
            self.publish(container, "oom")
        self.provision.publish_mounts(record, "unmount")
        self.provision.plugin_mounts.part_soon(record)
        self.publish(container, "die", exitCode=str(outcome.code), execDuration=str(lasted))
        _tell(container.stopped, outcome.code)

    def ended_meanwhile(self, container: Container, outcome: Exit | None) -> None:
        """Record the end of a container that ended, or vanished with the machine, while no engine ran."""
        self._ended(container, outcome or Exit(code=255, signal=0, at=time.time_ns()))
        delete_folder(self.settings.run_dir(container.id))
        if container.record.host_config.auto_remove:
            spawn(self.remove(container, force=False, volumes=True), f"removal of {container.name}")

    # ---- signals

    async def kill(self, container: Container, text: str) -> None:
        """Send a signal; after SIGKILL wait until the container has ended."""
        name = container.name
        try:
            number = signals.parse(text or "KILL")
        except InvalidArgument as error:
            unknown = text.isdecimal() and int(text[:4]) > 0
            why = f"the linux daemon does not support signal {text}" if unknown else error.message
            raise InvalidArgument(f"cannot kill container: {name}: {why}") from error
        if container.record.state.status == "restarting" and await self._give_up_restart(container):
            self.publish(container, "kill", signal=str(number))
            return
        if not container.record.state.alive or container.task is None:
            raise Conflict(f"cannot kill container: {name}: container {container.id} is not running")
        ended = container.end()
        ending = (signal.SIGKILL, signal.SIGTERM, signals.parse(container.record.config.stop_signal or "TERM"))
        await self._signal(container, number, ending=number in ending)
        if number == signal.SIGKILL:
            await self._await_kill(container, ended)

    async def _signal(self, container: Container, number: int, *, ending: bool) -> None:
        task = container.task
        if task is None:
            return
        if ending and self.restarts.open:  # an engine that stops is not somebody who stops it
            self._save_state(container, stopped_by_user=True)
        await task.signal(number)
        if container.record.state.status == "paused" and ending:
            # a frozen process takes no signal: it is delivered at the thaw
            self.thaw(container)
        self.publish(container, "kill", signal=str(number))

    async def _await_kill(self, container: Container, ended: asyncio.Future[int]) -> None:
        try:
            await asyncio.wait_for(ended, KILL_PATIENCE)
        except TimeoutError:
            raise SystemFailure(
                f"container {container.id} was sent SIGKILL {KILL_PATIENCE:.0f} s ago and has not ended; "
                "a process of it is stuck in the kernel (state D in ps)"
            ) from None

    async def stop(self, container: Container, *, signal_name: str, timeout: int | None) -> None:
        """Ask a container to end, and end it after the timeout; raises NotModified when it does not run."""
        if container.record.state.status == "restarting" and await self._give_up_restart(container):
            self.publish(container, "stop")
            return
        if not container.record.state.alive or container.task is None:
            raise NotModified("container already stopped")
        config = container.record.config
        number = signals.parse(signal_name or config.stop_signal or "TERM")
        if timeout is None:
            timeout = config.stop_timeout if config.stop_timeout is not None else self.settings.stop_timeout
        ended = container.end()
        await self._signal(container, number, ending=True)
        try:
            await asyncio.wait_for(asyncio.shield(ended), None if timeout < 0 else timeout)
        except TimeoutError:
            await self._signal(container, signal.SIGKILL, ending=True)
        await self._await_kill(container, ended)
        self.publish(container, "stop")

    def _unhealthy(self, container: Container) -> None:
        """End a container for its restart policy's sake."""
        if container.record.host_config.restart_policy.name == "on-unhealthy" and self.restarts.open:
            container.unwell = True
            spawn(self._end(container), f"end of unhealthy {container.name}")

    async def _end(self, container: Container) -> None:
        """Ask it to end, and see to it that it does; as `stop`, but nobody has stopped it."""
        config = container.record.config
        timeout = config.stop_timeout if config.stop_timeout is not None else self.settings.stop_timeout
        ended = container.end()
        await self._signal(container, signals.parse(config.stop_signal or "TERM"), ending=False)
        try:
            await asyncio.wait_for(asyncio.shield(ended), None if timeout < 0 else timeout)
        except TimeoutError:
            await self._signal(container, signal.SIGKILL, ending=False)

    async def _give_up_restart(self, container: Container) -> bool:
        """Have a container that waits for its next start stay as it is; False when it was started just now."""
        self.restarts.cancel(container)
        async with container.lock:
            if container.record.state.status != "restarting":
                return False
            self.catalog.save(container, container.record.moved("exited", stopped_by_user=self.restarts.open))
            _tell(container.stopped, container.record.state.exit_code)
            return True

    async def restart(self, container: Container, *, signal_name: str, timeout: int | None) -> None:
        """Stop, when it runs, and start."""
        try:
            await self.stop(container, signal_name=signal_name, timeout=timeout)
        except NotModified:
            pass
        try:
            await self.start(container)
        except EngineError as error:
            raise type(error)(f"Cannot restart container {container.name}: {error.message}") from error
        self.publish(container, "restart")

    # ---- freezer

    def pause(self, container: Container) -> None:
        """Freeze all processes of a running container."""
        if container.record.state.status == "paused":
            raise Conflict(f"Container {container.id} is already paused")
        check_not_restarting(f"Container {container.id}", container.record.state.status)
        if not container.record.state.alive:
            raise Conflict(f"container {container.id} is not running")
        self._cgroup(container, "freeze")
        self.catalog.save(container, container.record.moved("paused"))
        self.health.suspend(container)
        self.publish(container, "pause")

    def thaw(self, container: Container) -> None:
        """Let the processes of a paused container go on."""
        self._cgroup(container, "thaw")
        self.catalog.save(container, container.record.moved("running"))
        self.publish(container, "unpause")

    def unpause(self, container: Container) -> None:
        """As `thaw`; raises Conflict when the container is not paused."""
        if container.record.state.status != "paused":
            raise Conflict(f"Container {container.id} is not paused")
        self.thaw(container)

    def cgroup_path(self, container: Container) -> str:
        """Return the OCI cgroupsPath of a container: while it runs that of its start, whatever is configured now."""
        if container.task is not None:
            return container.task.cgroup_path
        return self.settings.cgroups_path(container.record.host_config, container.id)

    def _cgroup(self, container: Container, verb: str) -> None:
        try:
            cgroup = Cgroup.open(self.cgroup_path(container))
            (cgroup.freeze if verb == "freeze" else cgroup.thaw)()
        except FileNotFoundError as error:  # its end is about to be told
            raise Conflict(f"container {container.id} is not running") from error
        except OSError as error:
            raise SystemFailure(f"cannot {verb} container {container.id}: {error}") from error

    # ---- removal

    @property
    def provision(self) -> Provision:
        """Who gives the containers their volumes."""
        return self.launching.provision

    async def remove(self, container: Container, *, force: bool, volumes: bool = False) -> None:
        """Remove a container and all that is its own, its unnamed volumes on demand; a running one only with force."""
        while container.id in self.catalog:
            await self._make_removable(container, force=force)
            async with container.lock:
                if not container.record.state.active or container.task is None:  # it was not started while we waited
                    await self._remove_locked(container, volumes=volumes)
                    return

    async def _make_removable(self, container: Container, *, force: bool) -> None:
        """End a container that is to be removed by force; raises Conflict for one that runs, without force."""
        state = container.record.state
        if state.active and not force:
            advice = "stop the container before removing or force remove"
            word = "paused and must be unpaused first" if state.status == "paused" else f"{state.status}: {advice}"
            raise Conflict(f'cannot remove container "{container.name}": container is {word}')
        if state.status == "restarting":
            await self._give_up_restart(container)
            state = container.record.state
        if state.alive and container.task is not None:
            ended = container.end()
            await self._signal(container, signal.SIGKILL, ending=True)
            await self._await_kill(container, ended)

    async def _remove_locked(self, container: Container, *, volumes: bool) -> None:
        """Forget the container, then delete its files: a crash in between leaves files, which `sweep` finds."""
        if container.id not in self.catalog:
            return
        await self.provision.plugin_mounts.parted(container.id)
        if volumes and any(each.anonymous for each in container.record.mounts):
            await self._forget_with_volumes(container)
        else:
            self.catalog.remove(container)
        reach("remove.record")
        self.publish(container, "destroy")
        code = container.record.state.exit_code
        _tell([*container.stopped, *([container.removed] if container.removed else [])], code)
        self.launching.attachments.drop(container)
        if container.task is not None:
            await container.task.gone
        await asyncio.to_thread(self._delete_files, container)

    async def _forget_with_volumes(self, container: Container) -> None:
        async with self.provision.holding(volume_names(container.record)):
            names = await at_their_pace(self.provision.removable, self.provision.orphans(container.record))
            with self.provision.volumes.forgetting(names):
                self.catalog.remove(container)
            reach("remove.volumes")
            await asyncio.to_thread(self.provision.discard, names)
            for name in names:
                self.provision.publish(name, "destroy")

    def _delete_files(self, container: Container) -> None:
        reach("remove.files")
        for folder in (self.settings.container_root(container.id), self.settings.run_dir(container.id)):
            delete_folder(folder)
        try:
            self.snapshotter.remove(container.id)
        except NotFound:  # lost; a container that nobody can start must still be removed
            log.warning("no writable layer to remove", extra={"container": container.id})
        if not self.images.exists(container.record.image_id):  # removed by force while we used its layers
            self.images.collect()


def _tell(waiting: list[asyncio.Future[int]], code: int) -> None:
    """Set the result of all futures and empty the list."""
    for future in waiting:
        if not future.done():
            future.set_result(code)
    waiting.clear()


def delete_folder(folder: Path) -> None:
    """Delete a folder of ours; raises SystemFailure with the path that could not be deleted."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise SystemFailure(f"cannot delete {error.filename}: {error.strerror}") from error


def _as_engine_error(error: EngineError | LaunchFailed) -> EngineError:
    if isinstance(error, EngineError):
        return error
    failure = error.failure
    if failure.phase == "log":
        log_kind: Any = InvalidArgument if failure.errno == errno.ENOENT else SystemFailure
        of_log: EngineError = log_kind(f"failed to create task for container: {FAILED}{failure.message}")
        return of_log
    # dockerd sees to these before it asks the runtime for anything
    if failure.phase == "user" or failure.message.startswith("Cannot mkdir: "):
        return InvalidArgument(failure.message)
    if failure.phase == "volume":
        return SystemFailure(failure.message)
    refused = failure.phase in ("exec", "process") or (failure.phase == "cgroup" and failure.errno in OF_THE_VALUE)
    kind: Any = InvalidArgument if refused else SystemFailure
    result: EngineError = kind(
        "failed to create task for container: unable to start container process: " + failure.message
    )
    return result


def _exit_code(text: str) -> int:
    """Return the exit code that dockerd records for a start that failed: as a shell would."""
    if "executable file not found" in text or "no such file or directory" in text:
        return 127
    return 126 if "permission denied" in text or "is a directory" in text else 128
