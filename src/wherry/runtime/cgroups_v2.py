"""OCI linux.resources, written for version 1, as writes to the files of version 2. Pure.

Each entry is (file, text), in the order of writing. Documentation/admin-guide/cgroup-v2.rst names files and formats.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Mapping
from typing import Any

Write = tuple[str, str]
Resources = Mapping[str, Any]

THROTTLES = (
    ("throttleReadBpsDevice", "rbps"),
    ("throttleWriteBpsDevice", "wbps"),
    ("throttleReadIOPSDevice", "riops"),
    ("throttleWriteIOPSDevice", "wiops"),
)
DEFAULT_PERIOD = 100_000


def writes(resources: Resources, *, bfq: bool = False) -> list[Write]:
    """Return all writes but the device program's; bfq: block weights belong to that scheduler's own file.

    Raises OSError EINVAL for what version 2 cannot do.
    """
    return [
        *_memory(resources.get("memory") or {}),
        *_cpu(resources.get("cpu") or {}),
        *_pids(resources.get("pids") or {}),
        *_block(resources.get("blockIO") or {}, bfq=bfq),
        *((f"hugetlb.{each['pageSize']}.max", str(each["limit"])) for each in resources.get("hugepageLimits") or ()),
        *_unified(resources.get("unified") or {}),
    ]


def _memory(memory: Resources) -> list[Write]:
    limit, swap = memory.get("limit"), memory.get("swap")
    found: list[Write] = []
    if swap:
        found.append(("memory.swap.max", _swap(limit, swap)))
    elif limit == -1:
        found.append(("memory.swap.max", "max"))
    if limit:
        found.append(("memory.max", _limit(limit)))
    if memory.get("reservation"):
        found.append(("memory.low", _limit(memory["reservation"])))
    return found


def _limit(value: int) -> str:
    return "max" if value < 0 else str(value)


def _swap(limit: int | None, swap: int) -> str:
    """Version 1 limits memory and swap together, version 2 swap alone."""
    if swap < 0:
        return "max"
    if not limit or limit < 0:
        raise OSError(errno.EINVAL, "a swap limit needs a memory limit", "memory.swap.max")
    if swap < limit:
        raise OSError(errno.EINVAL, "memory and swap together are below the memory limit", "memory.swap.max")
    return str(swap - limit)


def weight_from_shares(shares: int) -> int:
    """Return cpu.weight (1 to 10000) for cpu.shares (2 to 262144), with the defaults 1024 and 100 equal.

    A straight line through the ends gives 1024 shares a weight of 39, so that such a container loses against the
    services beside it; this curve in the logarithms goes through both ends and the default.
    """
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    power = math.log2(shares)
    return math.ceil(10 ** ((power * power + 125 * power) / 612 - 7 / 34))


def _cpu(cpu: Resources) -> list[Write]:
    if cpu.get("realtimePeriod") or cpu.get("realtimeRuntime"):
        raise OSError(errno.EINVAL, "real-time cpu limits need cgroup version 1", "cpu.rt_runtime_us")
    found: list[Write] = []
    if cpu.get("shares"):
        found.append(("cpu.weight", str(weight_from_shares(cpu["shares"]))))
    if cpu.get("idle"):
        found.append(("cpu.idle", str(cpu["idle"])))
    quota, period = cpu.get("quota") or 0, cpu.get("period") or 0
    if quota or period:
        text = str(quota) if quota > 0 else "max"
        found.append(("cpu.max", f"{text} {period or DEFAULT_PERIOD}"))
    if cpu.get("burst"):
        found.append(("cpu.max.burst", str(cpu["burst"])))
    found += [(f"cpuset.{name}", cpu[name]) for name in ("cpus", "mems") if cpu.get(name)]
    return found


def _pids(pids: Resources) -> list[Write]:
    limit = pids.get("limit")
    return [("pids.max", _limit(limit))] if limit else []


def _block(block: Resources, *, bfq: bool) -> list[Write]:
    found: list[Write] = []
    file, convert = ("io.bfq.weight", int) if bfq else ("io.weight", _io_weight)
    if block.get("weight"):
        found.append((file, f"default {convert(block['weight'])}"))
    found += [
        (file, f"{device['major']}:{device['minor']} {convert(device['weight'])}")
        for device in block.get("weightDevice") or ()
        if device.get("weight")
    ]
    for name, key in THROTTLES:
        for device in block.get(name) or ():
            rate = device["rate"] or "max"
            found.append(("io.max", f"{device['major']}:{device['minor']} {key}={rate}"))
    return found


def _io_weight(weight: int) -> int:
    """blkio.weight is 10 to 1000, io.weight 1 to 10000."""
    return 1 + (weight - 10) * 9999 // 990


def _unified(unified: Mapping[str, str]) -> list[Write]:
    for name in unified:
        # "cgroup.procs" or "../x" would reach beyond limits
        if "/" in name or "." not in name or name.startswith(("cgroup.", ".")):
            raise OSError(errno.EINVAL, f"unified: {name!r} is not the file of a controller", name)
    return list(unified.items())


def controllers(found: list[Write]) -> set[str]:
    """Return the controllers whose files the writes need."""
    return {file.partition(".")[0] for file, _ in found}
