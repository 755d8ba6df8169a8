"""The control group of a container: where the kernel has its first process, and what limits it there."""

from __future__ import annotations

from wherry.kernel import cgroup
from wherry.kernel.procfs import Process
from wherry.models.xray import ControlGroup, GroupPath, Limit
from wherry.xray import limits


def paths(process: Process) -> tuple[GroupPath, ...]:
    """Return where a process is in each hierarchy, version 1 first; raises OSError."""
    mounted = {_key(each): each.mount for each in cgroup.hierarchies()}
    found = []
    for names, path in process.groups():
        controllers = tuple(names.split(",")) if names else ()
        mount = mounted.get(frozenset(controllers), "")
        if not names:
            offered = limits.text(f"{mount}{path}/cgroup.controllers") if mount else None
            controllers = tuple((offered or "").split())
        directory = f"{mount}{path}".rstrip("/") if mount else ""
        found.append(GroupPath(version=1 if names else 2, controllers=controllers, path=path, directory=directory))
    return tuple(sorted(found, key=lambda each: (each.version, each.controllers)))


def _key(hierarchy: cgroup.Hierarchy) -> frozenset[str]:
    return frozenset() if hierarchy.unified else frozenset(hierarchy.controllers)


def directories(where: tuple[GroupPath, ...], version: int) -> dict[str, str]:
    """Return the directories by controller; of the root group none, since it limits nothing."""
    return {
        controller: each.directory
        for each in where
        if each.version == version and each.directory and each.path != "/"
        for controller in each.controllers
    }


def read(process: Process) -> ControlGroup:
    """Return the group with its limits; raises OSError. A hybrid machine can have limits of both versions."""
    where = paths(process)
    old, new = directories(where, 1), directories(where, 2)
    found: list[Limit] = []
    for controller, directory in old.items():
        found += limits.limits(limits.V1, controller, directory)
    for controller, directory in new.items():
        found += limits.limits(limits.V2, controller, directory)
    return ControlGroup(
        version=1 if old else 2,
        paths=where,
        limits=tuple(sorted(found, key=_order)),
        events=tuple(limits.events({**new, **old})),
        frozen=_frozen(old, where),
    )


_ORDER = ("memory", "cpu", "cpuset", "pids", "blkio", "io", "hugetlb")


def _order(limit: Limit) -> tuple[int, int]:
    place = _ORDER.index(limit.controller) if limit.controller in _ORDER else len(_ORDER)
    return place, 0


def _frozen(old: dict[str, str], where: tuple[GroupPath, ...]) -> bool:
    if "freezer" in old:
        return limits.text(f"{old['freezer']}/freezer.state") == "FROZEN"
    unified = [each.directory for each in where if each.version == 2 and each.path != "/"]
    return any("frozen 1" in (limits.text(f"{each}/cgroup.events") or "") for each in unified)
