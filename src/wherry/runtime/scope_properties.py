"""Limits as properties of a systemd unit. Pure.

systemd writes the limits of a unit whenever it looks at it again, after `systemctl daemon-reload` for one, and what
it has not been told it writes as "none". Delegate=yes hands over what is below the unit's group, not the files of the
group itself. So each limit that systemd knows is set twice: as a property, that it stays, and in the kernel's file,
that it is exact. What systemd does not know (hugetlb, swappiness, io.max, the device program of version 2) it leaves
alone, and is written to the files only. systemd.resource-control(5) and org.freedesktop.systemd1(5) name the
properties and their types; times are microseconds, sizes bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from wherry.runtime import cgroups_v1, cgroups_v2
from wherry.runtime.cgroups_devices import WILDCARD, Permissions, permissions
from wherry.runtime.dbus import Variant

Property = tuple[str, Variant]
Resources = Mapping[str, Any]

INFINITY = (1 << 64) - 1
SECOND = 1_000_000
PERCENT = 10_000
"""systemd keeps the quota of a transient unit in whole per cents of a second: rounded up here, cut off there."""


def limits(resources: Resources, *, version: int, bfq: bool, groups: str) -> list[Property]:
    """Return the properties that say what the writes to the files of this version say.

    bfq: block weights are that scheduler's. groups: /proc/devices, which names the devices of a major number. Raises
    OSError EINVAL for what the version cannot do.
    """
    if version == 2:
        return _unified(dict(cgroups_v2.writes(resources, bfq=bfq)))
    found = {f"{file}": text for _, file, text in cgroups_v1.writes(resources, bfq=bfq)}
    return [*_legacy(found), *_devices(resources, groups)]


def _number(text: str) -> int:
    return INFINITY if text in ("max", "-1") else int(text)


def _sized(name: str) -> Callable[[str], list[Property]]:
    return lambda text: [(name, Variant("t", _number(text)))]


def _bits(name: str) -> Callable[[str], list[Property]]:
    return lambda text: [(name, Variant("ay", bitmap(text)))]


def _quota(text: str) -> list[Property]:
    quota, _, period = text.partition(" ")
    length = int(period or cgroups_v2.DEFAULT_PERIOD)
    share = INFINITY if quota in ("max", "-1") else -(-int(quota) * SECOND // length // PERCENT) * PERCENT
    return [("CPUQuotaPerSecUSec", Variant("t", share)), ("CPUQuotaPeriodUSec", Variant("t", length))]


def _idle(text: str) -> list[Property]:
    return [("CPUWeight", Variant("t", 0))] if text == "1" else []


def _weight(text: str) -> list[Property]:
    word, _, weight = text.partition(" ")
    return [("IOWeight", Variant("t", int(weight)))] if word == "default" else []


def _bfq_weight(text: str) -> list[Property]:
    """systemd makes the scheduler's 1 to 1000 of its own 1 to 10000: up to the default, 100, they are the same."""
    word, _, weight = text.partition(" ")
    if word != "default":
        return []
    own = int(weight)
    return [("IOWeight", Variant("t", own if own <= 100 else 100 + (own - 100) * 11))]


_UNIFIED: Mapping[str, Callable[[str], list[Property]]] = {
    "memory.max": _sized("MemoryMax"),
    "memory.swap.max": _sized("MemorySwapMax"),
    "memory.low": _sized("MemoryLow"),
    "memory.high": _sized("MemoryHigh"),
    "memory.min": _sized("MemoryMin"),
    "cpu.weight": _sized("CPUWeight"),
    "cpu.max": _quota,
    "cpu.idle": _idle,
    "cpuset.cpus": _bits("AllowedCPUs"),
    "cpuset.mems": _bits("AllowedMemoryNodes"),
    "pids.max": _sized("TasksMax"),
    "io.weight": _weight,
    "io.bfq.weight": _bfq_weight,
}
_LEGACY: Mapping[str, str] = {
    "memory.limit_in_bytes": "MemoryLimit",
    "cpu.shares": "CPUShares",
    "pids.max": "TasksMax",
    "blkio.weight": "BlockIOWeight",
    "blkio.bfq.weight": "BlockIOWeight",
}


def _unified(files: Mapping[str, str]) -> list[Property]:
    return [each for file, text in files.items() if file in _UNIFIED for each in _UNIFIED[file](text.strip())]


def _legacy(files: Mapping[str, str]) -> list[Property]:
    found = [(_LEGACY[file], Variant("t", _number(text))) for file, text in files.items() if file in _LEGACY]
    quota, period = files.get("cpu.cfs_quota_us"), files.get("cpu.cfs_period_us")
    if quota or period:
        found += _quota(f"{quota or -1} {period or cgroups_v2.DEFAULT_PERIOD}")
    return found


def bitmap(ranges: str) -> bytes:
    """Return the bits of a list such as "0-3,8", lowest first, eight to a byte, as systemd wants sets of CPUs."""
    bits = 0
    for part in ranges.split(","):
        first, _, last = part.strip().partition("-")
        for number in range(int(first), int(last or first) + 1):
            bits |= 1 << number
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")


# Devices, version 1: without a policy of its own systemd opens all devices to the group


def _devices(resources: Resources, groups: str) -> list[Property]:
    if "devices" not in resources:
        return []
    allowed = permissions(resources["devices"] or ())
    if allowed.allow_all:
        return [("DevicePolicy", Variant("s", "auto")), ("DeviceAllow", Variant("a(ss)", []))]
    return [
        ("DevicePolicy", Variant("s", "strict")),
        ("DeviceAllow", Variant("a(ss)", [])),  # what was allowed before; the next list is added to it
        ("DeviceAllow", Variant("a(ss)", list(_allowed(allowed, groups)))),
    ]


def _allowed(allowed: Permissions, groups: str) -> Iterable[tuple[str, str]]:
    """systemd names a device by path, all of a major number by their name in /proc/devices, and all by "char-*"."""
    names = _group_names(groups)
    for (kind, major, minor), access in allowed.entries.items():
        word = {"c": "char", "b": "block"}[kind]
        if major == WILDCARD:
            yield f"{word}-*", access
        elif minor != WILDCARD:
            yield f"/dev/{word}/{major}:{minor}", access
        else:
            for name in names.get((word, major), ()):
                yield f"{word}-{name}", access


def _group_names(text: str) -> dict[tuple[str, int], list[str]]:
    """Return the names of each major number of a /proc/devices: "Character devices:", then lines of number and name."""
    found: dict[tuple[str, int], list[str]] = {}
    word = ""
    for line in text.splitlines():
        if line.endswith("devices:"):
            word = "char" if line.startswith("Character") else "block"
        elif line.strip():
            number, _, name = line.strip().partition(" ")
            found.setdefault((word, int(number)), []).append(name)
    return found
