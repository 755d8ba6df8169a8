"""docker top: the processes of a control group, through ps where it is installed, else from /proc."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wherry.errors import InvalidArgument, NotImplementedHere
from wherry.runtime.cgroups import Cgroup

TRUSTED_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"
TICKS = os.sysconf("SC_CLK_TCK")


def pids(cgroup_path: str, first: int) -> list[int]:
    """Return the processes in the control group; raises OSError when it is gone.

    first: the container's first process. Where it has a pid namespace of its own, those in the engine's namespace are
    the engine's: the starter of a health check, or an exec on its way in.
    """
    found = Cgroup.open(cgroup_path).pids()
    own = _pid_namespace("self")
    if _pid_namespace(first) == own:
        return found
    return [pid for pid in found if _pid_namespace(pid) not in (own, 0)]


def _pid_namespace(pid: int | str) -> int:
    """Return the inode number of a process's pid namespace, 0 when the process is gone."""
    try:
        return os.stat(f"/proc/{pid}/ns/pid").st_ino
    except (FileNotFoundError, ProcessLookupError):
        return 0


def table(wanted: Iterable[int], ps_args: str) -> dict[str, Any]:
    """Return {"Titles": [...], "Processes": [[...]]}; raises InvalidArgument for options without a PID column."""
    keep = set(wanted)
    program = shutil.which("ps", path=TRUSTED_PATH)
    if program is None:
        if ps_args not in ("", "-ef"):
            raise NotImplementedHere('ps is not installed on this machine; only the default columns ("-ef") are there')
        return _from_proc(keep)
    try:
        words = shlex.split(ps_args or "-ef")
        if "\0" in ps_args:
            raise ValueError("no argument of a program holds a NUL")
    except ValueError as error:
        raise InvalidArgument(f"bad ps arguments {ps_args!r}: {error}") from error
    ran = subprocess.run([program, *words], capture_output=True, text=True, errors="replace", env={}, timeout=30)
    if ran.returncode:  # it has no other failure than options that it does not know
        raise InvalidArgument(f"ps: {ran.stderr.strip()}")
    return _select(ran.stdout, keep)


def _select(output: str, keep: set[int]) -> dict[str, Any]:
    lines = output.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise InvalidArgument("Couldn't find PID field in ps output")
    column = titles.index("PID")
    rows = []
    for line in lines[1:]:
        cells = line.split(None, len(titles) - 1)
        if len(cells) > column and cells[column].isdigit() and int(cells[column]) in keep:
            rows.append(cells)
    return {"Titles": titles, "Processes": rows}


def _from_proc(keep: Iterable[int]) -> dict[str, Any]:
    """Build the columns of ps -ef from proc(5)."""
    rows = [row for pid in sorted(keep) if (row := _row(pid)) is not None]
    return {"Titles": ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"], "Processes": rows}


def _row(pid: int) -> list[str] | None:
    folder = Path("/proc", str(pid))
    try:
        stat = (folder / "stat").read_text(errors="replace")
        command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        owner = folder.stat().st_uid
    except (FileNotFoundError, ProcessLookupError):
        return None  # it ended between the listing and now
    name, _, rest = stat.partition("(")[2].rpartition(")")
    fields = rest.split()
    terminal = int(fields[4])
    used = (int(fields[11]) + int(fields[12])) // TICKS
    began = time.localtime(time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + int(fields[19]) / TICKS)
    spent = time.strftime("%H:%M:%S", time.gmtime(used))
    shown = f"pts/{terminal & 0xFF}" if terminal else "?"
    row = [str(owner), str(pid), fields[1], "0", time.strftime("%H:%M", began), shown, spent, command or f"[{name}]"]
    return row
