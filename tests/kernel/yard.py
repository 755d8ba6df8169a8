"""Containers through a `Supervision` of their own, for tests: a busybox root, the smallest useful spec, clients."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import struct
import subprocess
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from wherry.runtime.mounts import Mount
from wherry.runtime.wire import AttachOptions, ExecLaunch, Launch, LogTarget
from wherry.runtime.zygote import SPARES
from wherry.supervision.supervision import Supervision

PATIENCE = 20.0
OUTPUT = AttachOptions()
INPUT = AttachOptions(stdin=True)

both = pytest.mark.parametrize("run", ["fork", "spare"], indirect=True)
"""Run the test without and with spare supervisors."""

ENV = ["PATH=/bin:/usr/bin:/sbin:/usr/sbin", "HOME=/"]


def children_of(pid: int) -> list[int]:
    """Return the pids of a process's children."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def make_rootfs(folder: Path) -> Path:
    """Put a busybox system into the folder."""
    for name in ("bin", "proc", "dev", "sys", "etc", "tmp", "root"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(shutil.which("busybox") or "/bin/busybox", folder / "bin/busybox")
    for applet in subprocess.run(["busybox", "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet != "busybox":
            (folder / "bin" / applet).symlink_to("busybox")
    return folder


def spec_of(
    *args: str, parent: str, container_id: str, terminal: bool = False, host_pid: bool = False, **linux: Any
) -> Any:
    """Return a spec with namespaces of its own for all but the network."""
    kinds = ["mount", "uts", "ipc", *([] if host_pid else ["pid"])]
    return {
        "ociVersion": "1.2.0",
        "process": {
            "terminal": terminal,
            "user": {"uid": 0, "gid": 0},
            "args": list(args),
            "env": ENV,
            "cwd": "/",
        },
        "root": {"path": "/"},
        "mounts": [
            Mount("proc", "proc", "/proc", ("nosuid", "noexec", "nodev")).to_oci(),
            Mount("tmpfs", "tmpfs", "/dev", ("nosuid", "mode=755")).to_oci(),
            Mount("devpts", "devpts", "/dev/pts", ("newinstance", "ptmxmode=0666", "mode=0620")).to_oci(),
        ],
        "linux": {
            "cgroupsPath": f"/{parent}/{container_id}",
            "namespaces": [{"type": kind} for kind in kinds],
            "resources": {"devices": [{"allow": True, "access": "rwm"}]},
            **linux,
        },
    }


class Yard:
    """A run root, a root file system and the supervision of a test's containers."""

    def __init__(self, folder: Path, rootfs: Path) -> None:
        self.folder = folder
        self.rootfs = rootfs
        self.supervision = Supervision(folder)
        self.tasks: list[Any] = []
        self.group = f"wherry-yard-{uuid.uuid4().hex}"

    def launch_of(self, *args: str, log: LogTarget | None = None, **options: Any) -> Launch:
        """Return a launch of `args`; options are those of `spec_of` and of `Launch`."""
        container_id = uuid.uuid4().hex
        run_dir = self.folder / "containers" / container_id
        run_dir.mkdir(parents=True, mode=0o700)
        choice = {key: options.pop(key) for key in ("terminal", "host_pid", "seccomp", "resources") if key in options}
        spec = spec_of(*args, parent=self.group, container_id=container_id, **choice)
        if "capabilities" in options:
            spec["process"]["capabilities"] = options.pop("capabilities")
        return Launch(
            id=container_id,
            run_dir=str(run_dir),
            spec=spec,
            rootfs=(Mount("bind", str(self.rootfs), "", ("rbind", "rprivate")),),
            log=log or LogTarget(driver="json-file", path=str(run_dir / "json.log")),
            **options,
        )

    async def start(self, *args: str, clients: tuple[AttachOptions, ...] = (), **options: Any) -> Any:
        """Launch and return the task, or (task, *client sockets)."""
        launch = self.launch_of(*args, attaches=clients, **options)
        pairs = [socket.socketpair() for _ in clients]
        try:
            fds = [theirs.fileno() for _, theirs in pairs]
            task: Any = await self.supervision.launch(launch, netns_fd=None, attach_fds=fds)
        except BaseException:
            for ours, _ in pairs:
                ours.close()
            raise
        finally:
            for _, theirs in pairs:
                theirs.close()
        self.tasks.append(task)
        task.launch = launch
        for ours, _ in pairs:
            ours.setblocking(False)
        return (task, *(ours for ours, _ in pairs)) if clients else task

    async def grow_spares(self) -> list[int]:
        """Return the pids of the spare supervisors, when there are as many as the zygote keeps."""
        if not self.tasks:
            await within((await self.start("/bin/true")).gone)
        supervisors = {int(Path(f"/proc/{task.pid}/stat").read_text().split()[3]) for task in self.running()}
        for _ in range(200):
            await asyncio.sleep(0.01)
            spares = [pid for pid in children_of(self.supervision.zygote_pid) if pid not in supervisors]
            if len(spares) == SPARES and all(map(children_of, spares)):
                return spares
        raise AssertionError(f"spares: {spares}")

    def running(self) -> list[Any]:
        """Return the tasks whose first process runs."""
        return [task for task in self.tasks if not task.exited.done()]

    async def taken_over(self, task: Any) -> Any:
        """Restore the task as another daemon would; the old one is no longer waited for."""
        cgroup = task.launch.spec["linux"]["cgroupsPath"]
        found = await Supervision(self.folder).restore(task.id, Path(task.launch.run_dir), cgroup)
        self.tasks.remove(task)
        return found

    def cgroups(self, container_id: str) -> list[str]:
        """Return the directories of a container's control group."""
        return [f"{folder}/{container_id}" for folder, names, _ in os.walk("/sys/fs/cgroup") if container_id in names]


@asynccontextmanager
async def yard(folder: Path, rootfs: Path) -> AsyncIterator[Yard]:
    """A yard whose containers are gone afterwards, with all their traces."""
    made = Yard(folder, rootfs)
    await made.supervision.start()
    try:
        yield made
    finally:
        for task in made.tasks:
            if not task.gone.done():
                await task.signal(9)
        async with asyncio.timeout(PATIENCE):
            for task in made.tasks:
                await asyncio.shield(task.gone)
        await made.supervision.stop()
        assert [path for task in made.tasks for path in made.cgroups(task.id)] == []
        for path in made.cgroups(made.group):
            os.rmdir(path)


async def within(awaitable: Any, seconds: float = PATIENCE) -> Any:
    """Await with a deadline; a future is not cancelled by it."""
    async with asyncio.timeout(seconds):
        return await (asyncio.shield(awaitable) if isinstance(awaitable, asyncio.Future) else awaitable)


async def read_all(sock: socket.socket) -> bytes:
    """Read a client's stream to its end."""
    loop, data = asyncio.get_running_loop(), bytearray()
    while chunk := await within(loop.sock_recv(sock, 1 << 20)):
        data += chunk
    sock.close()
    return bytes(data)


def unframe(stream: bytes) -> dict[int, bytes]:
    """Return the output by stream number."""
    parts: dict[int, bytes] = {1: b"", 2: b""}
    position = 0
    while position < len(stream):
        number, length = struct.unpack_from(">BxxxL", stream, position)
        parts[number] += stream[position + 8 : position + 8 + length]
        position += 8 + length
    return parts


def log_of(task):
    lines = (Path(task.launch.log.path)).read_bytes().splitlines()
    return [(record["stream"], record["log"]) for record in map(json.loads, lines)]


def alive(pid):
    """Whether the process runs; an orphan of a dead supervisor may have become our own zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    if state == "Z":
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            pass
    return state != "Z"


def supervisor_of(task):
    """Return the pid of the task's supervisor."""
    return int(Path(f"/proc/{task.pid}/stat").read_text().rpartition(")")[2].split()[1])


async def exec_in(task, *args, exec_id="x", options=OUTPUT, **process):
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    described = {"args": list(args), "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0}, **process}
    try:
        executed = await task.exec(ExecLaunch(exec_id, described, options), theirs.fileno())
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return executed, ours
