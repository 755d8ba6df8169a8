"""The files of control groups that limit something: what each means, what says how much is used, what is the default.

Documentation/admin-guide/cgroup-v1/*.rst, cgroup-v2.rst. A limit that is not there (an older kernel, a controller that
is not mounted) is left out.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from wherry.kernel import cgroup
from wherry.models.xray import Event, Limit

NO_LIMIT = -1
ABSENT = (2, 19, 95)  # ENOENT, ENODEV (the group is gone), EOPNOTSUPP
_PAGE_COUNTER_MAX = ((1 << 63) - 1) // 4096 * 4096
"""What version 1 shows for "no limit": LONG_MAX in whole pages (mm/page_counter.c), here with the smallest pages."""


@dataclass(frozen=True, slots=True)
class Knob:
    """A limit's file. used: the file that says how much is used, "" when none does. default: its text when unset."""

    controller: str
    file: str
    name: str
    unit: str
    used: str = ""
    default: str = ""


V1 = (
    Knob("memory", "memory.limit_in_bytes", "memory", "bytes", "memory.usage_in_bytes"),
    Knob("memory", "memory.memsw.limit_in_bytes", "memory and swap together", "bytes", "memory.memsw.usage_in_bytes"),
    Knob("memory", "memory.soft_limit_in_bytes", "memory kept when it is scarce", "bytes"),
    Knob("memory", "memory.kmem.tcp.limit_in_bytes", "network buffers", "bytes", "memory.kmem.tcp.usage_in_bytes"),
    Knob("memory", "memory.swappiness", "eagerness to swap", "weight", default="60"),
    Knob("cpu", "cpu.cfs_quota_us", "processor time", "percent"),
    Knob("cpu", "cpu.shares", "processor weight", "shares", default="1024"),
    Knob("cpuset", "cpuset.cpus", "processors to run on", "cpus"),
    Knob("cpuset", "cpuset.mems", "memory nodes", "nodes"),
    Knob("pids", "pids.max", "processes and threads", "processes", "pids.current"),
    Knob("blkio", "blkio.weight", "disk weight", "weight", default="500"),
    Knob("blkio", "blkio.bfq.weight", "disk weight", "weight", default="100"),
    Knob("blkio", "blkio.throttle.read_bps_device", "bytes read a second", ""),
    Knob("blkio", "blkio.throttle.write_bps_device", "bytes written a second", ""),
    Knob("blkio", "blkio.throttle.read_iops_device", "reads a second", ""),
    Knob("blkio", "blkio.throttle.write_iops_device", "writes a second", ""),
    Knob("net_cls", "net_cls.classid", "traffic class", "weight", default="0"),
)
V2 = (
    Knob("memory", "memory.max", "memory", "bytes", "memory.current"),
    Knob("memory", "memory.high", "memory before it is slowed", "bytes", "memory.current"),
    Knob("memory", "memory.swap.max", "swap", "bytes", "memory.swap.current"),
    Knob("memory", "memory.low", "memory kept when it is scarce", "bytes", default="0"),
    Knob("cpu", "cpu.max", "processor time", "percent"),
    Knob("cpu", "cpu.weight", "processor weight", "weight", default="100"),
    Knob("cpuset", "cpuset.cpus", "processors to run on", "cpus", default=""),
    Knob("cpuset", "cpuset.mems", "memory nodes", "nodes", default=""),
    Knob("pids", "pids.max", "processes and threads", "processes", "pids.current"),
    Knob("io", "io.weight", "disk weight", "weight", default="default 100"),
    Knob("io", "io.max", "disk throughput", ""),
)
EVENTS = (
    ("memory", "memory.failcnt", "", "memory limit reached"),
    ("memory", "memory.oom_control", "oom_kill", "killed for want of memory"),
    ("cpu", "cpu.stat", "nr_throttled", "periods without processor time left"),
    ("pids", "pids.events", "max", "forks refused"),
    ("memory", "memory.events", "oom_kill", "killed for want of memory"),
    ("memory", "memory.events", "max", "memory limit reached"),
)
"""Controller, file, key within it ("" for a bare number), words; files of both versions."""


def text(path: str) -> str | None:
    """Return a file's text without the last newline; None when it is not there."""
    try:
        return cgroup.read(path).rstrip("\n")
    except OSError as error:
        if error.errno in ABSENT:
            return None
        raise


def limits(knobs: tuple[Knob, ...], controller: str, directory: str) -> list[Limit]:
    """Return the limits of a controller in its directory."""
    found = [_limit(knob, directory) for knob in knobs if knob.controller == controller]
    if controller == "hugetlb":
        found += [_limit(knob, directory) for knob in _huge_pages(directory)]
    return [each for each in found if each is not None]


def _huge_pages(directory: str) -> list[Knob]:
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        if error.errno in ABSENT:
            return []
        raise
    found = []
    for name in names:
        size, _, rest = name.removeprefix("hugetlb.").partition(".")
        used = {"limit_in_bytes": "usage_in_bytes", "max": "current"}.get(rest)
        if name.startswith("hugetlb.") and used:
            found.append(Knob("hugetlb", name, f"pages of {size}", "bytes", f"hugetlb.{size}.{used}"))
    return found


def _limit(knob: Knob, directory: str) -> Limit | None:
    path = f"{directory}/{knob.file}"
    content = text(path)
    if content is None:
        return None
    first = content.partition("\n")[0]
    value = _value(knob, directory, first)
    used = text(f"{directory}/{knob.used}") if knob.used else None
    return Limit(
        controller=knob.controller,
        name=knob.name,
        unit=knob.unit,
        value=value,
        set=_is_set(knob, directory, first, value),
        used=int(used) if used is not None and used.isdigit() else NO_LIMIT,
        file=path,
        text=_shown(knob, directory, content),
    )


def _shown(knob: Knob, directory: str, content: str) -> str:
    if knob.file == "cpu.cfs_quota_us":
        return f"{content} of {text(f'{directory}/cpu.cfs_period_us')}"
    return content if knob.unit == "" else content.partition("\n")[0]


def _value(knob: Knob, directory: str, first: str) -> int:
    if knob.file == "cpu.cfs_quota_us":
        period = text(f"{directory}/cpu.cfs_period_us") or "100000"
        return NO_LIMIT if int(first) < 0 else int(first) * 100 // int(period)
    if knob.file == "cpu.max":
        quota, _, period = first.partition(" ")
        return NO_LIMIT if quota == "max" else int(quota) * 100 // int(period)
    if not first.isdigit() or knob.unit in ("cpus", "nodes", ""):
        return NO_LIMIT
    value = int(first)
    return NO_LIMIT if knob.unit == "bytes" and value >= _PAGE_COUNTER_MAX // 2 else value


def _is_set(knob: Knob, directory: str, first: str, value: int) -> bool:
    if knob.controller == "cpuset":
        above = text(f"{os.path.dirname(directory)}/{knob.file}")
        return bool(first) and first != above
    if knob.unit in ("bytes", "percent", "processes") and not knob.default:
        return value != NO_LIMIT
    return first != knob.default


def events(directories: dict[str, str]) -> list[Event]:
    """Return how often limits were felt. directories: by controller."""
    found: dict[str, int] = {}
    for controller, file, key, words in EVENTS:
        content = text(f"{directories[controller]}/{file}") if controller in directories else None
        if content is None:
            continue
        if not key:
            found[words] = int(content)
        for line in content.splitlines():
            name, _, number = line.partition(" ")
            if key and name == key and number.isdigit():
                found[words] = int(number)
    return [Event(name=name, count=count) for name, count in found.items()]
