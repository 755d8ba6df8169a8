"""Looking at one running container: every section read for itself, so that one which fails takes no other along.

It blocks, for some 10 to 60 ms, and belongs into a thread; of the caller's state nothing is touched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from wherry.errors import NotFound
from wherry.kernel import cgroup
from wherry.kernel.procfs import GONE, Process
from wherry.models.xray import Difference
from wherry.xray import devices, differences, groups, mounts, namespaces, network, processes, security
from wherry.xray.subject import Subject

T = TypeVar("T")


class Look:
    """Collects the sections of one look."""

    def __init__(self, subject: Subject, machine: str) -> None:
        self._subject = subject
        self._machine = machine
        self.notes: list[str] = []
        self.differences: list[Difference] = []
        self.sections: dict[str, Any] = {}

    def take(self) -> None:
        """Read everything; raises NotFound when the container's first process is gone before anything was read."""
        subject = self._subject
        try:
            process = Process(subject.pid)
        except OSError as error:
            raise NotFound(f"the first process of container {subject.id} has just ended") from error
        with process:
            self._check(process)
            self._read(process)
            self._compare()
            if not _alive(process):
                self.notes.append("the container ended while it was looked at: parts of this are from before")

    def _check(self, process: Process) -> None:
        try:
            same = process.stat().start_time == self._subject.start_time
        except OSError as error:
            if error.errno not in GONE:
                raise
            same = False
        if not same:
            raise NotFound(f"the first process of container {self._subject.id} has just ended")

    def _section(self, name: str, read: Callable[[], T]) -> T | None:
        try:
            found = read()
        except (OSError, KeyError, ValueError, IndexError) as error:
            self.notes.append(f"{name} could not be read: {_why(error)}")
            return None
        self.sections[name] = found
        return found

    def _read(self, process: Process) -> None:
        subject = self._subject
        profile = ((subject.spec or {}).get("linux") or {}).get("seccomp")
        self._section("namespaces", lambda: namespaces.read(process, subject.others, subject.modes))
        group = self._section("control_group", lambda: groups.read(process))
        self._section("mounts", lambda: mounts.read(process, subject.layers, subject.files))
        if group is not None:
            self._section("devices", lambda: devices.read(group.paths))
        self._section("security", lambda: security.read(process, profile, self._machine))
        members = [subject.pid]
        if group is not None:
            directory = next((each.directory for each in group.paths if each.path == subject.cgroup_path), "")
            members = cgroup.processes(directory) if directory else members
        execs = subject.execs
        self._section("processes", lambda: processes.read(subject.pid, members, execs, has_init=subject.has_init))
        self._section("network", lambda: network.read(process, subject, members))

    def _compare(self) -> None:
        subject, found = self._subject, self.sections
        if subject.spec is None:
            self.notes.append(f"what was asked for cannot be compared: {subject.refused}")
            return
        spec = subject.spec
        comparisons: dict[str, Callable[[Any], Iterator[Difference]]] = {
            "namespaces": lambda each: differences.of_namespaces(each, subject),
            "control_group": lambda each: differences.of_groups(each, subject, spec),
            "mounts": lambda each: _of_mounts(each, subject, spec),
            "devices": lambda each: differences.of_devices(each, spec),
            "security": lambda each: differences.of_security(each, spec),
            "network": lambda each: differences.of_network(each, subject.connections),
        }
        for name, compare in comparisons.items():
            if name not in found:
                continue
            try:
                self.differences += compare(found[name])
            except OSError as error:
                self.notes.append(f"{name} could not be compared with what was asked for: {_why(error)}")


def _of_mounts(found: Any, subject: Subject, spec: Any) -> Iterator[Difference]:
    linux = spec.get("linux") or {}
    paths = [*(linux.get("maskedPaths") or ()), *(linux.get("readonlyPaths") or ())]
    # procfs and sysfs have the same files everywhere; of other paths an image decides, and they are not looked at
    exists = [each for each in paths if each.startswith(("/proc/", "/sys/")) and os.path.exists(each)]
    yield from differences.of_mounts(found, subject, spec)
    yield from differences.of_masks(found, spec, exists)


def _alive(process: Process) -> bool:
    try:
        return process.stat().state not in "ZX"
    except OSError as error:
        if error.errno in GONE:
            return False
        raise


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        if error.errno in GONE:
            return "the process has ended"
        return f"{error.strerror}{f' ({error.filename})' if error.filename else ''}"
    return f"{type(error).__name__}: {error}"
