"""Boxes: containers for tests of the runtime: a busybox root, a spec like the engine's, and a parent that starts them.

The parent is a process of its own: `enter_parent` changes where the children of its caller are born.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import subprocess
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wherry.runtime import channel
from wherry.runtime.cgroups import Cgroup
from wherry.runtime.init import ContainerStart, ExecStart, enter_parent, run_container, run_exec
from wherry.runtime.mounts import Mount

CAPABILITIES = [
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
    "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
]  # fmt: skip
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MASKED = [
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
    "/sys/firmware",
]  # fmt: skip
READONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
_NO = ["nosuid", "noexec", "nodev"]
MOUNTS = [
    ("/proc", "proc", "proc", _NO),
    ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ("/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
    ("/sys", "sysfs", "sysfs", [*_NO, "ro"]),
    ("/sys/fs/cgroup", "cgroup", "cgroup", ["ro", *_NO]),
    ("/dev/mqueue", "mqueue", "mqueue", _NO),
    ("/dev/shm", "tmpfs", "shm", [*_NO, "mode=1777", "size=67108864"]),
]


def mount(destination: str, kind: str, source: str, options: list[str]) -> dict[str, Any]:
    """Return one entry of a spec's mounts."""
    return {"destination": destination, "type": kind, "source": source, "options": options}


def default_spec(place: str, *arguments: str) -> dict[str, Any]:
    """Return the spec of a default container that runs `arguments`."""
    sets = {name: list(CAPABILITIES) for name in ("bounding", "effective", "permitted")}
    return {
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": 0, "gid": 0, "username": ""}, "args": list(arguments), "env": [PATH, "HOSTNAME=box"],
            "cwd": "/", "capabilities": sets, "oomScoreAdj": 0,
        },
        "root": {"path": place},
        "hostname": "box",
        "mounts": [mount(*each) for each in MOUNTS],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("mount", "network", "uts", "pid", "ipc", "time")],
            "maskedPaths": list(MASKED), "readonlyPaths": list(READONLY), "resources": {},
            "sysctl": {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"},
        },
    }  # fmt: skip


def busybox(directory: Path) -> Path:
    """Fill a directory with the machine's static busybox and return it."""
    (directory / "bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", directory / "bin/busybox")
    for name in subprocess.run(["/bin/busybox", "--list"], check=True, capture_output=True, text=True).stdout.split():
        if name != "busybox":
            (directory / "bin" / name).symlink_to("busybox")
    (directory / "tmp").mkdir(mode=0o1777)
    return directory


@dataclass
class Outcome:
    """What a process of a container printed and how it ended; failure: the message when it did not start."""

    output: str = ""
    code: int | None = None
    failure: dict[str, Any] = field(default_factory=dict)

    @property
    def message(self) -> str:
        """The sentence for the user."""
        return str(self.failure.get("message", ""))


class Box:
    """One container to be: change `spec` and the files below `upper`, then run it.

    prepare and inspect run in its parent, before and after; what inspect returns is appended to the output.
    """

    def __init__(self, base: Path, directory: Path) -> None:
        self.directory = directory
        self.upper = directory / "upper"
        for name in ("upper", "work", "place"):
            (directory / name).mkdir(parents=True)
        options = (f"lowerdir={base}", f"upperdir={self.upper}", f"workdir={directory / 'work'}")
        self.rootfs: tuple[Mount, ...] = (Mount("overlay", "overlay", "", options),)
        self.spec = default_spec(str(directory / "place"), "true")
        self.cgroup = f"/wherry-box-{uuid.uuid4().hex[:12]}"  # no parent, which nobody would know when to remove
        self.resources: dict[str, Any] = {}
        self.seccomp: bytes | None = None
        self.extra: dict[str, Any] = {}
        self.prepare: Callable[[], None] = lambda: None
        self.inspect: Callable[[], str] = lambda: ""

    @property
    def process(self) -> dict[str, Any]:
        """The spec's process."""
        return self.spec["process"]  # type: ignore[no-any-return]

    def bind(self, source: str | Path, target: str, *options: str) -> None:
        """Add a bind mount."""
        self.spec["mounts"].append(mount(target, "bind", str(source), list(options) or ["rbind", "rprivate"]))

    def run(self, *arguments: str) -> Outcome:
        """Start the container and return how it ended."""
        self.process["args"] = list(arguments)
        return self.start([])[0]

    def sh(self, script: str) -> Outcome:
        """Run a shell script in it."""
        return self.run("sh", "-c", script)

    def exec(self, *arguments: str, **process: Any) -> Outcome:
        """Start the container with a program that waits, and run one exec in it."""
        self.process["args"] = ["sleep", "60"]
        first, *others = self.start([self.exec_process(*arguments, **process)])
        return others[0] if others else first

    def exec_process(self, *arguments: str, **process: Any) -> dict[str, Any]:
        """Return the process object of an exec."""
        wanted = {key: self.process[key] for key in ("user", "env", "cwd", "capabilities")} | process
        return {**wanted, "args": list(arguments)}

    def start(self, execs: list[dict[str, Any]]) -> list[Outcome]:
        """Start the container, run the execs in turn, end it; return all outcomes, the container's first."""
        spec = copy.deepcopy(self.spec)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            _be_parent(self, spec, execs, writer)
        os.close(writer)
        with open(reader, "rb") as file:
            answer = json.loads(file.read() or b"null")
        os.waitpid(pid, 0)
        if isinstance(answer, str) or answer is None:
            raise AssertionError(f"the parent of the container failed: {answer}")
        return [Outcome(**each) for each in answer]


def _be_parent(box: Box, spec: dict[str, Any], execs: list[dict[str, Any]], writer: int) -> None:
    try:
        answer: Any = _parent(box, spec, execs)
    except BaseException:
        answer = traceback.format_exc()
    os.write(writer, json.dumps(answer).encode())
    os._exit(0)


def _parent(box: Box, spec: dict[str, Any], execs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    box.prepare()
    cgroup = Cgroup.create(box.cgroup, box.resources)
    try:
        enter_parent(spec)
        first = Child(bool(spec["process"].get("terminal")))
        first.fork(
            lambda stdio, sync: run_container(
                ContainerStart(
                    spec=spec, rootfs=box.rootfs, netns_fd=None, stdio=stdio, sync=sync, cgroup=cgroup,
                    seccomp=box.seccomp, **box.extra,
                )
            )
        )  # fmt: skip
        answers = []
        if execs and not first.failure:
            pidfd = os.pidfd_open(first.pid)
            answers += [_run_exec(box, spec, process, first.pid, pidfd, cgroup) for process in execs]
            os.kill(first.pid, signal.SIGKILL)
        answer = first.finish()
        return [{**answer, "output": answer["output"] + box.inspect()}, *answers]
    finally:
        cgroup.kill()
        cgroup.remove()


def _run_exec(box: Box, spec: Any, process: Any, pid: int, pidfd: int, cgroup: Cgroup) -> dict[str, Any]:
    child = Child(bool(process.get("terminal")))
    child.fork(
        lambda stdio, sync: run_exec(
            ExecStart(
                process=process, spec=spec, init_pid=pid, init_pidfd=pidfd, stdio=stdio, sync=sync, cgroup=cgroup,
                seccomp=box.seccomp,
            )
        )
    )  # fmt: skip
    return child.finish()


class Child:
    """One process on its way into a container, and what comes back from it."""

    def __init__(self, terminal: bool) -> None:
        self.terminal = terminal
        self.pid = 0
        self.failure: dict[str, Any] = {}
        self.source = -1

    def fork(self, main: Any) -> None:
        """Fork, follow the set-up to its end."""
        ours, theirs = channel.pair()
        null = os.open("/dev/null", os.O_RDONLY)
        reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            main(None if self.terminal else (null, writer, writer), theirs)
        theirs.close()
        os.close(writer)
        os.close(null)
        self.source = reader
        while True:
            try:
                message, fds = channel.receive(ours)
            except EOFError:
                break
            self.failure = message.get("failed") or self.failure
            if message.get("console"):
                os.close(self.source)
                self.source = fds.pop()
        ours.close()

    def finish(self) -> dict[str, Any]:
        """Read to the end and reap."""
        output = b""
        while True:
            try:
                data = os.read(self.source, 65536)
            except OSError:  # EIO: a terminal that nobody has open
                break
            if not data:
                break
            output += data
        os.close(self.source)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return {"output": output.decode(errors="replace"), "code": code, "failure": self.failure}
