"""What a spec needs to know of this host, read once when the engine starts; and device nodes, read when needed."""

from __future__ import annotations

import functools
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wherry.errors import SystemFailure
from wherry.kernel.caps import names
from wherry.oci import capabilities
from wherry.runtime import cgroups

PARSER_PATH = "/sbin:/usr/sbin"
SKIPPED = frozenset({"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"})
"""Folders of /dev that a container has its own of, or that other engines keep their things in."""

BFQ = "blkio.bfq.io_service_bytes"
"""Of that scheduler's files the root group has the counters only: its weights are in all the others."""


@dataclass(frozen=True, slots=True)
class HostFacts:
    """cpus, mems: the sets that containers can use, as ranges ("0-3"). capabilities: those the engine itself has.

    thermal_throttle: paths to be masked, one per CPU that has one. blkio_weight, swap_limit, oom_kill_disable: whether
    the kernel has these limits. apparmor: whether that security module is at work. apparmor_parser: the path of the
    program that loads its profiles, "" where none is installed.
    """

    cgroup_version: int = 1
    cpu_count: int = 1
    cpus: str = "0"
    mems: str = "0"
    machine: str = "x86_64"
    kernel: str = "6.1.0"
    capabilities: tuple[str, ...] = capabilities.ALL
    time_namespace: bool = True
    thermal_throttle: tuple[str, ...] = ()
    swap_limit: bool = True
    blkio_weight: bool = False
    blkio_weight_device: bool = False
    oom_kill_disable: bool = True
    realtime: bool = False
    seccomp: bool = True
    recursive_readonly: bool = True
    apparmor: bool = False
    apparmor_parser: str = ""


@dataclass(frozen=True, slots=True)
class Device:
    """A device node of the host: kind "c" or "b", permission bits and owner as they are there."""

    path: str
    kind: str
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0


@functools.cache
def read_host_facts() -> HostFacts:
    """Read the facts; raises SystemFailure when the host has no control groups or no /proc."""
    try:
        return _read_facts()
    except OSError as error:
        raise SystemFailure(f"cannot read what this host can do: {error}") from error


def _read_facts() -> HostFacts:
    layout = cgroups.detect()
    memory, block, cpu = (_controller(layout, name) for name in ("memory", "blkio", "cpu"))
    cpus, mems = _sets(layout)
    uname = os.uname()
    return HostFacts(
        cgroup_version=layout.version,
        cpu_count=len(os.sched_getaffinity(0)),
        cpus=cpus,
        mems=mems,
        machine=uname.machine,
        kernel=uname.release,
        capabilities=_own_capabilities(),
        time_namespace=os.path.exists("/proc/self/ns/time"),
        thermal_throttle=tuple(sorted(map(str, Path("/sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle")))),
        swap_limit=layout.version == 2 or os.path.exists(f"{memory}/memory.memsw.limit_in_bytes"),
        blkio_weight=layout.version == 2 or _has_any(block, "blkio.weight", BFQ),
        blkio_weight_device=layout.version == 2 or _has_any(block, "blkio.weight_device", BFQ),
        oom_kill_disable=layout.version == 1 and os.path.exists(f"{memory}/memory.oom_control"),
        realtime=layout.version == 1 and os.path.exists(f"{cpu}/cpu.rt_runtime_us"),
        seccomp=os.path.exists("/proc/sys/kernel/seccomp"),
        apparmor=_read_word("/sys/module/apparmor/parameters/enabled") == "Y",
        apparmor_parser=shutil.which("apparmor_parser", path=PARSER_PATH) or "",
        recursive_readonly=tuple(map(int, uname.release.split(".")[:2])) >= (5, 12),  # mount_setattr(2)
    )


def _controller(layout: cgroups.Layout, name: str) -> str:
    """Return the root of a version 1 controller's hierarchy; a path without files when it is not mounted."""
    for hierarchy in layout.hierarchies:
        if not hierarchy.unified and name in hierarchy.controllers:
            return hierarchy.mount
    return "/nonexistent"


def _read_word(path: str) -> str:
    """Return what a file of /sys says; "" when the kernel has not been built with what would say it."""
    try:
        return Path(path).read_text().strip()
    except FileNotFoundError:
        return ""


def _has_any(folder: str, *names: str) -> bool:
    return any(os.path.exists(f"{folder}/{name}") for name in names)


def _sets(layout: cgroups.Layout) -> tuple[str, str]:
    names = (
        ("cpuset.cpus.effective", "cpuset.mems.effective") if layout.version == 2 else ("cpuset.cpus", "cpuset.mems")
    )
    folder = layout.hierarchies[-1].mount if layout.version == 2 else _controller(layout, "cpuset")
    found = []
    for name, otherwise in zip(
        names, ("/sys/devices/system/cpu/online", "/sys/devices/system/node/online"), strict=True
    ):
        path = Path(folder, name) if os.path.exists(f"{folder}/{name}") else Path(otherwise)
        found.append(path.read_text().strip() if path.exists() else "0")
    return found[0], found[1]


def _own_capabilities() -> tuple[str, ...]:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapBnd:"):
            return tuple(names(int(line.split()[1], 16)))
    return capabilities.ALL


def stat_device(path: str) -> Device | None:
    """Return the node at a host path, symbolic links followed; None for what is no device. Raises OSError."""
    status = os.stat(path)
    kinds = {stat.S_IFCHR: "c", stat.S_IFBLK: "b"}
    kind = kinds.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        return None
    return Device(
        path,
        kind,
        os.major(status.st_rdev),
        os.minor(status.st_rdev),
        stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_gid,
    )


def walk_devices(folder: str) -> Iterator[Device]:
    """Yield the nodes below a host folder, in order of names; none for what is no folder, or is gone meanwhile."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if entry.name not in SKIPPED:
                yield from walk_devices(entry.path)
        elif entry.name != "console" and not entry.is_symlink():
            try:
                device = stat_device(entry.path)
            except FileNotFoundError:
                continue
            if device is not None:
                yield device
