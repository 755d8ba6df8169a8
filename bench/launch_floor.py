"""Time of one container through zygote and supervisor, without HTTP, network and storage: launch to gone.

    python bench/launch_floor.py [COUNT] [--no-seccomp]          as root, with a static busybox on the machine

Docker's default mounts, masks, capabilities and seccomp filter; the root is an overlay; the network namespace is ready
made, as from the engine's stock. Each row is a moment after
the call of `launch`, taken from the records that supervisor and runtime write anyway.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from wherry.kernel import netns
from wherry.oci.seccomp import default_profile, profile_for
from wherry.runtime import exits
from wherry.runtime.example import EXAMPLE
from wherry.runtime.mounts import Mount
from wherry.runtime.wire import Launch, LogTarget
from wherry.supervision.supervision import Supervision

PAUSE = 0.05  # a client's own time between two runs; spare supervisors grow in it
CAPS = (
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL "
    "AUDIT_WRITE"
)


def make_rootfs(folder: Path) -> Path:
    """Put a busybox system into the folder."""
    for name in ("bin", "proc", "dev", "sys", "etc", "tmp"):
        (folder / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "/bin/busybox", folder / "bin/busybox")
    for applet in ("sh", "true", "sleep", "cat"):
        (folder / "bin" / applet).symlink_to("busybox")
    return folder


def spec_of(container_id: str, args: list[str], seccomp: Any) -> dict[str, Any]:
    """Return the spec of a default container."""
    caps = [f"CAP_{name}" for name in CAPS.split()]
    process = {**EXAMPLE["process"], "terminal": False, "args": args, "noNewPrivileges": False, "rlimits": []}
    process["capabilities"] = {"bounding": caps, "effective": caps, "permitted": caps}
    linux = {**EXAMPLE["linux"], "cgroupsPath": f"/wherry-bench/{container_id}"}
    linux["namespaces"] = [*linux["namespaces"], {"type": "time"}]
    if seccomp:
        linux["seccomp"] = seccomp
    root = {"path": "/", "readonly": False}
    return {**EXAMPLE, "process": process, "root": root, "linux": linux, "hostname": container_id[:12]}


def default_filter() -> Any:
    """Return linux.seccomp of a default container."""
    system = os.uname()
    caps = frozenset(f"CAP_{name}" for name in CAPS.split())
    return profile_for(default_profile(), caps, system.machine, system.release)


def rootfs_of(folder: Path, lower: Path, container_id: str) -> tuple[Mount, ...]:
    """Return the overlay of a container."""
    upper, work = folder / "snapshots" / container_id / "upper", folder / "snapshots" / container_id / "work"
    upper.mkdir(parents=True)
    work.mkdir()
    return (Mount("overlay", "overlay", "", (f"lowerdir={lower}", f"upperdir={upper}", f"workdir={work}")),)


def make_netns() -> int:
    """Return a descriptor of a new network namespace, made by a thread that then ends."""

    def make() -> int:
        netns.unshare()
        return netns.current()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(make).result()


class Bench:
    """Launches containers one after the other and keeps the moments."""

    def __init__(self, folder: Path, supervision: Supervision, seccomp: Any) -> None:
        self.folder = folder
        self.lower = make_rootfs(folder / "root")
        self.supervision = supervision
        self.seccomp = seccomp
        self.netns = make_netns()
        self.moments: dict[str, list[float]] = {}

    def launch_of(self, args: list[str]) -> Launch:
        """Return a launch of a default container."""
        container_id = uuid.uuid4().hex * 2
        run_dir = self.folder / "containers" / container_id
        run_dir.mkdir(parents=True)
        return Launch(
            id=container_id,
            run_dir=str(run_dir),
            spec=spec_of(container_id, args, self.seccomp),
            rootfs=rootfs_of(self.folder, self.lower, container_id),
            log=LogTarget("json-file", str(run_dir / "log")),
        )

    async def once(self) -> None:
        """Run /bin/true and record the moments in milliseconds."""
        launch = self.launch_of(["/bin/true"])
        start = time.time_ns()
        task = await self.supervision.launch(launch, netns_fd=self.netns, attach_fds=[])
        running = time.time_ns()
        outcome = await task.exited
        exited = time.time_ns()
        await task.gone
        gone = time.time_ns()
        forked = json.loads(Path(launch.run_dir, exits.TASK).read_text())["at"]
        for name, moment in (
            ("supervisor has forked", forked),
            ("program runs (in supervisor)", task.started_at),
            ("launch returned: running", running),
            ("first process reaped", outcome.at),
            ("exit recorded and told", exited),
            ("cgroup removed: gone", gone),
        ):
            self.moments.setdefault(name, []).append((moment - start) / 1e6)

    def show(self) -> None:
        """Print the table."""
        print(f"{'moment after launch, ms':32} {'median':>8} {'p99':>8} {'step':>8}")
        before = 0.0
        for name, values in self.moments.items():
            median = statistics.median(values)
            p99 = sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]
            print(f"{name:32} {median:8.2f} {p99:8.2f} {median - before:8.2f}")
            before = median


async def main() -> None:
    """Measure and print."""
    count = next((int(word) for word in sys.argv[1:] if word.isdigit()), 200)
    folder = Path(tempfile.mkdtemp(prefix="wherry-bench-", dir="/run"))
    supervision = Supervision(folder)
    await supervision.start()
    try:
        bench = Bench(folder, supervision, None if "--no-seccomp" in sys.argv else default_filter())
        for _ in range(10):
            await bench.once()
        bench.moments.clear()
        for _ in range(count):
            await asyncio.sleep(PAUSE)
            await bench.once()
        bench.show()
        await fork_floor()
    finally:
        await supervision.stop()
        shutil.rmtree(folder)
        for directory, names, _ in os.walk("/sys/fs/cgroup"):
            if "wherry-bench" in names:
                os.rmdir(f"{directory}/wherry-bench")


async def fork_floor() -> None:
    """Print what the kernel asks for two forks of a small interpreter alone."""
    code = (
        "import os, time\n"
        "values = []\n"
        "for _ in range(200):\n"
        "    start = time.perf_counter()\n"
        "    pid = os.fork()\n"
        "    if pid == 0: os._exit(0)\n"
        "    os.waitpid(pid, 0)\n"
        "    values.append(time.perf_counter() - start)\n"
        "print(f'{sorted(values)[100] * 1000:.2f}')"
    )
    text = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True).stdout
    print(f"for comparison: fork, exit and wait of a bare interpreter: {text.strip()} ms")


if __name__ == "__main__":
    asyncio.run(main())
