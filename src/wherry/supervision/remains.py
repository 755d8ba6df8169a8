"""Ends what a dead supervisor has left of its container."""

from __future__ import annotations

import os
import select
import signal
import time
from pathlib import Path

from wherry.kernel.pidfd import has_ended, pidfd_open
from wherry.runtime import exits
from wherry.runtime.cgroups import Cgroup
from wherry.runtime.wire import Exit

PATIENCE = 5.0  # a process that is in the kernel with a dead disk does not die at once
KILLED = 128 + signal.SIGKILL


def open_process(pid: int, start_time: int) -> int | None:
    """Return a pidfd of exactly this process, or None when it is gone. The caller closes it."""
    try:
        pidfd = pidfd_open(pid)
    except ProcessLookupError:
        return None
    try:
        if exits.start_time(pid) == start_time:  # after the open: the number may have been given away before
            return pidfd
    except (FileNotFoundError, ProcessLookupError):
        pass
    os.close(pidfd)
    return None


def open_namespace(pid: int, start_time: int, kind: str) -> int | None:
    """Return a descriptor of a namespace (a name in /proc/PID/ns) of exactly this process; None when it is gone."""
    pidfd = open_process(pid, start_time)
    if pidfd is None:
        return None
    try:
        fd = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        return None
    else:
        if not has_ended(pidfd):  # it lives, so the number was its own all the time
            return fd
        os.close(fd)
        return None
    finally:
        os.close(pidfd)


def kill(pidfd: int, patience: float = PATIENCE) -> None:
    """Kill the process and wait until it is gone."""
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        return
    select.select([pidfd], [], [], patience)


def kill_supervisor(pid: int) -> None:
    """Kill a supervisor that does not answer."""
    try:
        pidfd = pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        kill(pidfd)
    finally:
        os.close(pidfd)


def end_container(run_dir: Path, cgroup_path: str) -> Exit | None:
    """Kill the container's processes, remove its cgroup and record its end; None when it never had a process.

    Blocks for up to some seconds. A recorded exit stays as it is.
    """
    task = exits.read_record(f"{run_dir}/{exits.TASK}")
    if task is not None:
        pidfd = open_process(int(task["pid"]), int(task["start_time"]))
        if pidfd is not None:
            try:
                kill(pidfd)
            finally:
                os.close(pidfd)
    _end_cgroup(cgroup_path)
    (run_dir / exits.SOCKET).unlink(missing_ok=True)
    known = exits.read_exit(str(run_dir))
    if known is not None or task is None:
        return known
    outcome = Exit(KILLED, signal.SIGKILL, time.time_ns())
    directory = os.open(run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        exits.write_record(directory, exits.EXIT, outcome.to_wire())
    finally:
        os.close(directory)
    return outcome


def _end_cgroup(path: str) -> None:
    cgroup = Cgroup.open(path)
    deadline = time.monotonic() + PATIENCE
    while True:
        cgroup.kill()
        if not cgroup.pids() or time.monotonic() > deadline:
            break
        time.sleep(0.005)
    cgroup.remove()
