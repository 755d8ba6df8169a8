"""Launches containers through the zygote and finds them again after a restart of wherryd."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wherry.runtime import channel, exits
from wherry.runtime.wire import Exit, Launch, SetupFailure
from wherry.supervision import remains
from wherry.supervision.background import spawn
from wherry.supervision.connection import Connection
from wherry.supervision.task import LaunchFailed, LaunchVanished, Task
from wherry.supervision.zygote import Zygote

LAUNCH_PATIENCE = 120.0  # mounts of a slow network file system
GONE_PATIENCE = 5.0
RETRIES = 3
_KEYS = 32


class Supervision:
    """The daemon's side of the zygote and of all supervisors."""

    def __init__(self, run_root: Path, layers: int = -1) -> None:
        """layers: the mount namespace of the storage driver's layers, -1 for none."""
        self._zygote = Zygote(run_root, layers)
        self._keys: dict[int, tuple[dict[str, Any], str]] = {}

    @property
    def zygote_pid(self) -> int:
        """The zygote's process id."""
        return self._zygote.pid

    async def start(self) -> None:
        """Start the zygote; raises Unavailable."""
        await self._zygote.start()

    async def stop(self) -> None:
        """End the zygote; the containers run on."""
        await self._zygote.stop()

    async def launch(self, launch: Launch, *, netns_fd: int | None, attach_fds: Sequence[int]) -> Task:
        """Make and start a container; raises LaunchFailed, and nothing is left of it then.

        The descriptors are duplicated: the caller closes its own.
        """
        linux = dict(launch.spec["linux"])
        # another runtime compiles the profile itself
        profile = linux.pop("seccomp", None) if not launch.runtime else None
        key = self._key(profile) if profile else ""
        launch = replace(launch, spec={**launch.spec, "linux": linux}, seccomp=key, netns=netns_fd is not None)
        for _ in range(RETRIES):
            try:
                return await self._attempt(launch, profile, netns_fd, attach_fds)
            except LaunchVanished:  # the zygote or a spare was killed with the launch unread; others take it
                continue
        return await self._attempt(launch, profile, netns_fd, attach_fds)

    async def _attempt(
        self, launch: Launch, profile: dict[str, Any] | None, netns_fd: int | None, attach_fds: Sequence[int]
    ) -> Task:
        task = Task(launch.id, Path(launch.run_dir), launch.spec["linux"]["cgroupsPath"])
        ours, theirs = channel.pair()
        try:
            if profile:
                await self._zygote.teach(launch.seccomp, profile)
            await self._send(launch, theirs, netns_fd, attach_fds)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        task.take(Connection(ours, task.on_message, task.on_end))
        await self._await_outcome(task)
        return task

    async def _send(self, launch: Launch, control: socket.socket, netns: int | None, attaches: Sequence[int]) -> None:
        names = ["control", *(("netns",) if netns is not None else ()), *(f"attach{n}" for n in range(len(attaches)))]
        fds = [control.fileno(), *((netns,) if netns is not None else ()), *attaches]
        await self._zygote.send({"type": "launch", "fds": names, **launch.to_wire()}, fds)

    async def _await_outcome(self, task: Task) -> None:
        try:
            async with asyncio.timeout(LAUNCH_PATIENCE):
                await task.outcome()
        except LaunchFailed:
            async with asyncio.timeout(GONE_PATIENCE):
                await asyncio.shield(task.gone)
            raise
        except TimeoutError as error:
            spawn(task.end(), f"end of stuck container {task.id[:12]}")
            text = f"the container was not set up within {LAUNCH_PATIENCE:.0f} s"
            raise LaunchFailed(SetupFailure("process", "set up", 0, "", text)) from error
        except asyncio.CancelledError:
            spawn(self._discard(task), f"end of unwanted container {task.id[:12]}")
            raise

    async def _discard(self, task: Task) -> None:
        try:
            await task.outcome()
        except LaunchFailed:
            return
        await task.signal(signal.SIGKILL)

    def _key(self, profile: dict[str, Any]) -> str:
        """Name a profile by its content. The builder hands out the same object again, so the hash is kept with it."""
        known = self._keys.get(id(profile))
        if known is not None:
            return known[1]
        if len(self._keys) >= _KEYS:
            self._keys.clear()
        key = hashlib.sha256(json.dumps(profile).encode()).hexdigest()
        self._keys[id(profile)] = (profile, key)  # holding the object keeps its id from being given away
        return key

    async def restore(self, container_id: str, run_dir: Path, cgroup_path: str) -> Task | Exit | None:
        """Find out what became of a container: it runs (Task), it ended (Exit), or it never started (None)."""
        outcome = await asyncio.to_thread(exits.read_exit, str(run_dir))
        started = await asyncio.to_thread(exits.read_record, f"{run_dir}/{exits.TASK}")
        cgroup_path = str((started or {}).get("cgroup", cgroup_path))  # that of its start: drivers and parents change
        if outcome is None:
            task = Task(container_id, run_dir, cgroup_path)
            if await task.reconnect():
                return task
        return await asyncio.to_thread(remains.end_container, run_dir, cgroup_path)
