"""Which storage driver: the one that is named, or the best that works here; with the reason, for docker info."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from wherry.errors import InvalidArgument, SystemFailure
from wherry.snapshots.api import Snapshotter


@dataclass(frozen=True, slots=True)
class Choice:
    """A driver, ready to use, and why it is this one."""

    snapshotter: Snapshotter
    reason: str


DRIVERS = {
    "erofs": ("wherry.snapshots.drivers.erofs", "Erofs"),
    "overlay2": ("wherry.snapshots.drivers.overlay2", "Overlay2"),
    "vfs": ("wherry.snapshots.drivers.vfs", "Vfs"),
}
"""By name, best first; loaded on first use."""


def choose(name: str, root: Path) -> Choice:
    """Return the driver `name`, or for "" the one with data below `root`, or else the best one.

    Raises InvalidArgument for an unknown name and SystemFailure for one that does not work here.
    """
    if name and name not in DRIVERS:
        raise InvalidArgument(f"unknown storage driver {name!r}; known are: {', '.join(DRIVERS)}")
    root.mkdir(mode=0o710, parents=True, exist_ok=True)
    if name:
        why_not = _problem(name, root)
        if why_not:
            raise SystemFailure(f"storage driver {name} does not work in {root}: {why_not}")
        return Choice(_make(name, root), "set by storage-driver")
    refused: list[str] = []
    for each in sorted(DRIVERS, key=lambda driver: not _has_layers(root / driver)):
        why_not = _problem(each, root)
        if not why_not:
            reason = "it has layers already" if _has_layers(root / each) else "the best one that works here"
            return Choice(_make(each, root), "; ".join([reason, *refused]))
        refused.append(f"{each}: {why_not}")
    raise SystemFailure(f"no storage driver works in {root}: {'; '.join(refused)}")


def _has_layers(folder: Path) -> bool:
    return any((folder / "layers").glob("*"))


def _problem(name: str, root: Path) -> str:
    module = import_module(DRIVERS[name][0])
    probe: Callable[[Path], str] | None = getattr(module, "problem", None)
    return probe(root / name) if probe else ""


def _make(name: str, root: Path) -> Snapshotter:
    module, class_name = DRIVERS[name]
    driver: Snapshotter = getattr(import_module(module), class_name)(root / name)
    return driver
