"""OCI linux.resources as writes to the files of version 1 controllers. Pure.

Order within a controller is the order of writing. Each entry is (controller, file, text).
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

Write = tuple[str, str, str]
Resources = Mapping[str, Any]

UNLIMITED = (1 << 63) - 1
THROTTLES = (
    ("throttleReadBpsDevice", "blkio.throttle.read_bps_device"),
    ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device"),
    ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device"),
    ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device"),
)


def writes(resources: Resources, *, swap_limit: int = UNLIMITED, bfq: bool = False) -> list[Write]:
    """Return all writes but those of devices and cpuset.

    swap_limit: memory.memsw.limit_in_bytes as it is now, which decides the order of the two memory limits. bfq: block
    weights belong to that scheduler's own files. Raises OSError EINVAL for what version 1 cannot do.
    """
    if resources.get("unified"):
        raise OSError(errno.EINVAL, "unified resources need cgroup version 2", "unified")
    return [
        *_memory(resources.get("memory") or {}, swap_limit),
        *_cpu(resources.get("cpu") or {}),
        *_pids(resources.get("pids") or {}),
        *_block(resources.get("blockIO") or {}, "blkio.bfq" if bfq else "blkio"),
        *(
            ("hugetlb", f"hugetlb.{each['pageSize']}.limit_in_bytes", str(each["limit"]))
            for each in resources.get("hugepageLimits") or ()
        ),
        *_network(resources.get("network") or {}),
    ]


def _memory(memory: Resources, swap_limit: int) -> list[Write]:
    limit, swap = memory.get("limit"), memory.get("swap")
    if limit == -1 and not swap:
        swap = -1  # the sum may not be below the limit
    limits = [
        ("memory", name, str(value))
        for name, value in (("memory.limit_in_bytes", limit), ("memory.memsw.limit_in_bytes", swap))
        if value
    ]
    # at no moment may the limit of memory and swap be below that of memory alone: raise the sum first, lower it last
    if len(limits) == 2 and (swap == -1 or (swap or 0) > swap_limit):
        limits.reverse()
    found: list[Write] = limits
    if memory.get("reservation"):
        found.append(("memory", "memory.soft_limit_in_bytes", str(memory["reservation"])))
    if memory.get("kernelTCP"):
        found.append(("memory", "memory.kmem.tcp.limit_in_bytes", str(memory["kernelTCP"])))
    if memory.get("disableOOMKiller"):
        found.append(("memory", "memory.oom_control", "1"))
    swappiness = memory.get("swappiness")
    if swappiness is not None and swappiness != -1:
        found.append(("memory", "memory.swappiness", str(swappiness)))
    return found


def _cpu(cpu: Resources) -> list[Write]:
    names = (
        ("realtimePeriod", "cpu.rt_period_us"),
        ("realtimeRuntime", "cpu.rt_runtime_us"),
        ("shares", "cpu.shares"),
        ("period", "cpu.cfs_period_us"),
        ("quota", "cpu.cfs_quota_us"),
        ("burst", "cpu.cfs_burst_us"),  # after the quota, which it may not exceed
        ("idle", "cpu.idle"),
    )
    return [("cpu", file, str(cpu[name])) for name, file in names if cpu.get(name)]


def _pids(pids: Resources) -> list[Write]:
    limit = pids.get("limit")
    if limit is None or limit == 0:
        return []
    return [("pids", "pids.max", str(limit) if limit > 0 else "max")]


def _block(block: Resources, prefix: str) -> list[Write]:
    found: list[Write] = []
    if block.get("weight"):
        found.append(("blkio", f"{prefix}.weight", str(block["weight"])))
    found += [
        ("blkio", f"{prefix}.weight_device", f"{_device(device)} {device['weight']}")
        for device in block.get("weightDevice") or ()
        if device.get("weight")
    ]
    for name, file in THROTTLES:
        found += [("blkio", file, f"{_device(device)} {device['rate']}") for device in block.get(name) or ()]
    return found


def _device(device: Resources) -> str:
    return f"{device['major']}:{device['minor']}"


def _network(network: Resources) -> list[Write]:
    found: list[Write] = []
    if network.get("classID"):
        found.append(("net_cls", "net_cls.classid", str(network["classID"])))
    found += [
        ("net_prio", "net_prio.ifpriomap", f"{each['name']} {each['priority']}")
        for each in network.get("priorities") or ()
    ]
    return found
