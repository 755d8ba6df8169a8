"""Which devices the control group lets the container open."""

from __future__ import annotations

import os

from wherry.kernel import bpf_device
from wherry.models.xray import DeviceProgram, DeviceRule, Devices, GroupPath
from wherry.xray import groups, limits

ANY = -1
NAMES = {
    ("c", 1, 3): "null", ("c", 1, 5): "zero", ("c", 1, 7): "full", ("c", 1, 8): "random", ("c", 1, 9): "urandom",
    ("c", 5, 0): "tty", ("c", 5, 1): "console", ("c", 5, 2): "ptmx", ("c", 136, ANY): "pts", ("c", 10, 200): "tun",
    ("c", 10, 229): "fuse", ("c", 10, 232): "kvm", ("c", 1, 11): "kmsg",
}  # fmt: skip
"""Documentation/admin-guide/devices.txt."""


def read(where: tuple[GroupPath, ...]) -> Devices:
    """Return the rules of version 1 and the programs of version 2; raises OSError."""
    old = groups.directories(where, 1).get("devices")
    content = limits.text(f"{old}/devices.list") if old else None
    rules = tuple(parse(line) for line in (content or "").splitlines())
    programs: list[DeviceProgram] = []
    for each in where:
        if each.version == 2 and each.directory and each.path != "/":
            programs += _programs(each.directory)
    return Devices(version=1 if old else 2, rules=rules, programs=tuple(programs))


def parse(line: str) -> DeviceRule:
    """Return a line of devices.list, such as "c 136:* rwm"."""
    kind, numbers, access = line.split()
    major, minor = (ANY if each == "*" else int(each) for each in numbers.split(":"))
    return DeviceRule(type=kind, major=major, minor=minor, access=access, name=NAMES.get((kind, major, minor), ""))


def _programs(directory: str) -> list[DeviceProgram]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        ids = bpf_device.attached(fd)
    finally:
        os.close(fd)
    found = []
    for program_id in ids:
        try:
            tag, size = bpf_device.information(program_id)
        except FileNotFoundError:
            continue  # replaced meanwhile
        found.append(DeviceProgram(id=program_id, tag=tag, instructions=size))
    return found
