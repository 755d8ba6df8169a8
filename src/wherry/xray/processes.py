"""The processes of a container, and those of the engine that look after it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from wherry.kernel import procfs
from wherry.models.xray import Process, Processes

MOST = 500
TICK_MS = 1000 // os.sysconf("SC_CLK_TCK")
KILO = 1024
OWN = ("supervisor", "spare", "starter")
"""The roles of the engine's own processes."""


def read(first: int, members: Sequence[int], execs: Mapping[int, str], *, has_init: bool) -> Processes:
    """Return the processes of the control group, the first ones in detail; those that end meanwhile are left out.

    members: pids of the group. Of 10,000 processes `MOST` are looked at, which takes some 50 ms.
    """
    chosen = sorted(set(members) - {first}, key=lambda pid: (pid not in execs, pid))[: MOST - 1]
    supervisor = _parent(first)
    depth = _depth(first)
    entries = [_describe(supervisor, "supervisor", depth)] if supervisor else []
    entries += [_describe(pid, "spare", depth) for pid in _spares(supervisor, {first, *members})]
    entries.append(_describe(first, "init" if has_init else "first", depth))
    for pid in chosen:
        exec_id = execs.get(pid, "")
        role = "exec" if exec_id else "starter" if _depth(pid) < depth else "member"
        entries.append(_describe(pid, role, depth, exec_id))
    found = tuple(each for each in entries if each is not None)
    return Processes(count=len(members), entries=found, left_out=max(0, len(set(members) - {first}) - len(chosen)))


def _parent(pid: int) -> int:
    try:
        with procfs.Process(pid) as process:
            return process.stat().parent
    except OSError as error:
        if error.errno in procfs.GONE:
            return 0
        raise


def _spares(supervisor: int, known: set[int]) -> list[int]:
    """Children of the supervisor that are none of the container's: what waits for the next exec."""
    if not supervisor:
        return []
    try:
        with procfs.Process(supervisor) as process:
            return [pid for pid in process.children() if pid not in known]
    except OSError as error:
        if error.errno in procfs.GONE:
            return []
        raise


def _depth(pid: int) -> int:
    """In how many pid namespaces the first process has a number: the last of them is the container's."""
    try:
        with procfs.Process(pid) as process:
            return len(process.status().get("NSpid", "").split())
    except OSError as error:
        if error.errno in procfs.GONE:
            return 0
        raise


def _describe(pid: int, role: str, depth: int, exec_id: str = "") -> Process | None:
    try:
        with procfs.Process(pid) as process:
            return _details(process, role, depth, exec_id)
    except OSError as error:
        if error.errno in procfs.GONE:
            return None  # it ended between the listing and now
        raise


def _memory(process: procfs.Process, status: Mapping[str, str], *, own: bool) -> int:
    """Resident memory; of the engine's processes their share (PSS), since most of it is one copy for all of them."""
    text = status.get("VmRSS", "0 kB")
    if own:
        lines = process.text("smaps_rollup").splitlines()
        text = next((line.partition(":")[2] for line in lines if line.startswith("Pss:")), text)
    return int(text.split()[0]) * KILO


def _details(process: procfs.Process, role: str, depth: int, exec_id: str) -> Process:
    status, stat = process.status(), process.stat()
    numbers = status.get("NSpid", "").split()
    return Process(
        pid=process.pid,
        inside=int(numbers[depth - 1]) if 0 < depth <= len(numbers) else 0,
        parent=stat.parent,
        role=role,
        name=stat.name,
        arguments=tuple(process.arguments()),
        state=stat.state,
        threads=stat.threads,
        uid=int(status["Uid"].split()[1]),
        memory=_memory(process, status, own=role in OWN),
        cpu_ms=(stat.user_ticks + stat.system_ticks) * TICK_MS,
        effective=status.get("CapEff", ""),
        seccomp=int(status.get("Seccomp", "0")),
        exec_id=exec_id,
    )
