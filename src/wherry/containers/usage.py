"""What a container uses, in docker's words, from the texts of the kernel's files. PURE.

    v1   cpuacct.usage, cpuacct.usage_percpu, cpuacct.stat, cpu.stat; memory.*; pids.*; blkio.throttle.*_recursive
    v2   cpu.stat; memory.current, .max, .stat; pids.*; io.stat       (Documentation/admin-guide/cgroup-v2)
    both /proc/PID/net/dev of the first process, proc(5)

A text is "" where its file is not there. Times are nanoseconds, sizes bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wherry.models.times import NEVER, rfc3339

Json = Any
Texts = Mapping[str, str]

V1_FILES = {
    "cpuacct": ("cpuacct.usage", "cpuacct.usage_percpu", "cpuacct.stat"),
    "cpu": ("cpu.stat",),
    "memory": (
        "memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.limit_in_bytes", "memory.failcnt", "memory.stat",
    ),
    "pids": ("pids.current", "pids.max"),
    "blkio": ("blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_serviced_recursive"),
}  # fmt: skip
V2_FILES = (
    "cpu.stat", "memory.current", "memory.max", "memory.stat", "pids.current", "pids.max", "io.stat",
)  # fmt: skip
USER_HZ_NS = 10_000_000  # cpuacct.stat counts in USER_HZ, which is 100 on every machine
_BLOCK = (
    "io_service_bytes_recursive", "io_serviced_recursive", "io_queue_recursive", "io_service_time_recursive",
    "io_wait_time_recursive", "io_merged_recursive", "io_time_recursive", "sectors_recursive",
)  # fmt: skip
_NO_CPU: Json = {
    "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
    "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
}
_AT_REST: Json = {
    "read": NEVER, "pids_stats": {}, "blkio_stats": dict.fromkeys(_BLOCK), "num_procs": 0, "storage_stats": {},
    "cpu_stats": _NO_CPU, "memory_stats": {},
}  # fmt: skip


def reading(texts: Texts, *, version: int, at: int, cpus: int, uptime: int, machine_memory: int) -> Json:
    """Return one sample. at: Unix ns. uptime: ns since boot, which all CPUs together spend `cpus` times."""
    parts = _version_1(texts) if version == 1 else _version_2(texts)
    parts["cpu_stats"] |= {"system_cpu_usage": uptime * cpus, "online_cpus": cpus}
    memory = parts["memory_stats"]
    memory["limit"] = min(memory["limit"], machine_memory) if memory.get("limit") else machine_memory
    answer: Json = {"read": rfc3339(at), "pids_stats": _pids(texts), "num_procs": 0, "storage_stats": {}, **parts}
    interfaces = networks(texts.get("net/dev", ""))
    if interfaces:
        answer["networks"] = interfaces
    return answer


def answer(sample: Json | None, before: Json | None, *, name: str, container_id: str) -> Json:
    """Return the body of GET /containers/ID/stats. sample: None for a container that does not run."""
    earlier = before or _AT_REST
    return {
        "name": f"/{name}",
        "id": container_id,
        **(sample or _AT_REST),
        "preread": earlier["read"],
        "precpu_stats": earlier["cpu_stats"],
    }


def _pairs(text: str) -> dict[str, int]:
    """Parse "KEY NUMBER" lines; others are left out."""
    found = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if value.strip().isdigit():
            found[key] = int(value)
    return found


def _number(text: str) -> int:
    """Return the number of a file of one; 0 for "max" and for a file that is not there."""
    text = text.strip()
    return int(text) if text.isdigit() else 0


def _pids(texts: Texts) -> Json:
    found = {}
    if texts.get("pids.current"):
        found["current"] = _number(texts["pids.current"])
    if limit := _number(texts.get("pids.max", "")):
        found["limit"] = limit
    return found


def _version_1(texts: Texts) -> Json:
    modes = _pairs(texts.get("cpuacct.stat", ""))
    shares = [int(word) for word in texts.get("cpuacct.usage_percpu", "").split()]
    throttled = _pairs(texts.get("cpu.stat", ""))
    usage = {
        "total_usage": _number(texts.get("cpuacct.usage", "")),
        "percpu_usage": shares,
        "usage_in_kernelmode": modes.get("system", 0) * USER_HZ_NS,
        "usage_in_usermode": modes.get("user", 0) * USER_HZ_NS,
    }
    memory = {
        "usage": _number(texts.get("memory.usage_in_bytes", "")),
        "max_usage": _number(texts.get("memory.max_usage_in_bytes", "")),
        "stats": _pairs(texts.get("memory.stat", "")),
        "limit": _number(texts.get("memory.limit_in_bytes", "")),
    }
    if failures := _number(texts.get("memory.failcnt", "")):
        memory["failcnt"] = failures
    return {
        "cpu_stats": {
            "cpu_usage": usage,
            "throttling_data": {
                "periods": throttled.get("nr_periods", 0),
                "throttled_periods": throttled.get("nr_throttled", 0),
                "throttled_time": throttled.get("throttled_time", 0),
            },
        },
        "memory_stats": memory,
        "blkio_stats": {
            **{name: [] for name in _BLOCK},
            "io_service_bytes_recursive": _block(texts.get("blkio.throttle.io_service_bytes_recursive", "")),
            "io_serviced_recursive": _block(texts.get("blkio.throttle.io_serviced_recursive", "")),
        },
    }


def _block(text: str) -> list[Json]:
    """Parse lines such as "8:0 Read 4096"; the last, "Total 4096", is of no device."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3:
            found.append(_entry(words[0], words[1], int(words[2])))
    return found


def _entry(device: str, operation: str, value: int) -> Json:
    major, _, minor = device.partition(":")
    return {"major": int(major), "minor": int(minor), "op": operation, "value": value}


def _version_2(texts: Texts) -> Json:
    cpu = _pairs(texts.get("cpu.stat", ""))
    read, served = [], []
    for line in texts.get("io.stat", "").splitlines():
        device, *fields = line.split()
        counted = {key: int(value) for key, _, value in (field.partition("=") for field in fields) if value.isdigit()}
        read += [_entry(device, op, counted.get(key, 0)) for op, key in (("read", "rbytes"), ("write", "wbytes"))]
        served += [_entry(device, op, counted.get(key, 0)) for op, key in (("read", "rios"), ("write", "wios"))]
    return {
        "cpu_stats": {
            "cpu_usage": {
                "total_usage": cpu.get("usage_usec", 0) * 1000,
                "usage_in_kernelmode": cpu.get("system_usec", 0) * 1000,
                "usage_in_usermode": cpu.get("user_usec", 0) * 1000,
            },
            "throttling_data": {
                "periods": cpu.get("nr_periods", 0),
                "throttled_periods": cpu.get("nr_throttled", 0),
                "throttled_time": cpu.get("throttled_usec", 0) * 1000,
            },
        },
        "memory_stats": {
            "usage": _number(texts.get("memory.current", "")),
            "stats": _pairs(texts.get("memory.stat", "")),
            "limit": _number(texts.get("memory.max", "")),
        },
        "blkio_stats": {
            **dict.fromkeys(_BLOCK),
            "io_service_bytes_recursive": read,
            "io_serviced_recursive": served,
        },
    }


def networks(text: str) -> dict[str, Json]:
    """Parse /proc/PID/net/dev: a line per interface, eight columns received, eight sent; the loopback is left out."""
    found = {}
    for line in text.splitlines():
        name, colon, rest = line.partition(":")
        columns = rest.split()
        if not colon or name.strip() == "lo" or len(columns) < 12:
            continue
        numbers = [int(column) for column in columns]
        found[name.strip()] = {
            f"{way}_{what}": numbers[start + offset]
            for way, start in (("rx", 0), ("tx", 8))
            for offset, what in enumerate(("bytes", "packets", "errors", "dropped"))
        }
    return found
