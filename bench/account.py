"""The kernel's account of CPU time: of a daemon alone, and of an engine with all its processes, gone ones too.

The latter for an engine that the benchmarks have started. It has a control group of its own, ENGINE, where its zygote
and supervisors stay too, and its containers are below PARENT, where the last steps before their programs are counted.
cgroup v1 accounts in cpuacct.usage (ns), v2 in cpu.stat (us); both count what has ended and been removed below.
Figures are milliseconds.
"""

from __future__ import annotations

import socket
import struct
import time
from pathlib import Path

PARENT = "wherry-bench"
ENGINE = "wherry-bench-engine"
ROOT = Path("/sys/fs/cgroup")
_CPUCLOCK_SCHED = 2
"""Linux, include/linux/posix-timers_types.h: what a process has run, in ns."""


def trees() -> list[Path]:
    """Return the hierarchies that have an account of CPU time: cpuacct's, or the only one."""
    found = [path.parent for path in ROOT.glob("*/cpuacct.usage")]
    return found[:1] or [ROOT]


def enter(pid: int) -> None:
    """Move an engine that has no children yet into its group."""
    for tree in trees():
        (tree / ENGINE).mkdir(exist_ok=True)
        (tree / ENGINE / "cgroup.procs").write_text(str(pid))


def leave() -> None:
    """Remove the groups of an engine that is gone, in all hierarchies; its spare processes need a moment to go."""
    groups = [path for name in (PARENT, ENGINE) for path in (ROOT / name, *ROOT.glob(f"*/{name}")) if path.exists()]
    deadline = time.monotonic() + 30
    for group in groups:
        while (group / "cgroup.procs").read_text() and time.monotonic() < deadline:
            time.sleep(0.02)
        group.rmdir()


def daemon(address: str) -> float:
    """Return the CPU time of the daemon behind a socket, of all its threads: its clock, clock_getcpuclockid(3)."""
    return time.clock_gettime_ns((~_server(address) << 3) | _CPUCLOCK_SCHED) / 1e6


def engine(address: str) -> float | None:
    """Return the CPU time of the engine behind a socket; None for one that has no group of its own."""
    if f"/{ENGINE}\n" not in Path(f"/proc/{_server(address)}/cgroup").read_text():
        return None
    return sum(_usage(tree / name) for tree in trees() for name in (ENGINE, PARENT) if (tree / name).exists())


def _usage(group: Path) -> float:
    account = group / "cpuacct.usage"
    if account.exists():
        return int(account.read_text()) / 1e6
    fields = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
    return int(fields["usage_usec"]) / 1e3


def _server(address: str) -> int:
    """Return the process that listens at a unix socket: SO_PEERCRED, unix(7)."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(address.removeprefix("unix://"))
        return int(struct.unpack("iII", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])
