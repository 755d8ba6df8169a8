"""Names of systemd's units for containers: SLICE:PREFIX:NAME, the OCI cgroupsPath of the systemd cgroup driver.

    system.slice:wherry:ID       wherry-ID.scope in /system.slice
    a-b.slice:wherry:ID          wherry-ID.scope in /a.slice/a-b.slice
    -.slice:wherry:ID            wherry-ID.scope in the root
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

DEFAULT_SLICE = "system.slice"
ROOT_SLICE = "-.slice"
_SUFFIX = ".slice"
BOOTED = "/run/systemd/system"
"""A directory where systemd is the first process: sd_booted(3)."""
_ALLOWED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.\\-")
"""What a unit's name is made of, but for ":", which separates here (systemd.unit(5))."""
_LONGEST = 255


@dataclass(frozen=True, slots=True)
class Scope:
    """A scope unit that holds one container."""

    slice: str
    unit: str

    @classmethod
    def parse(cls, path: str) -> Scope | None:
        """Return the scope that a cgroupsPath names, None for a path; raises OSError EINVAL for names that cannot be.

        An empty slice is system.slice.
        """
        if "/" in path or path.count(":") != 2:
            return None
        slice_name, prefix, name = path.split(":")
        unit = f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
        if not name or not set(unit) <= _ALLOWED or len(unit) > _LONGEST:
            raise OSError(errno.EINVAL, "SLICE:PREFIX:NAME does not make the name of a systemd unit", path)
        slice_path(slice_name or DEFAULT_SLICE)
        return cls(slice_name or DEFAULT_SLICE, unit)

    @property
    def path(self) -> str:
        """Where its control group is below the mount point of each hierarchy."""
        return f"{slice_path(self.slice)}/{self.unit}"


def booted() -> bool:
    """Return whether systemd is this machine's first process."""
    return os.path.isdir(BOOTED)


def is_slice(name: str) -> bool:
    """Return whether this can be the name of a slice."""
    try:
        slice_path(name)
    except OSError:
        return False
    return True


def slice_path(name: str) -> str:
    """Return the group of a slice, in which "-" separates levels: "/a.slice/a-b.slice", "" for the root slice.

    Raises OSError EINVAL for what is no slice's name (systemd.slice(5)).
    """
    if name == ROOT_SLICE:
        return ""
    parts = name.removesuffix(_SUFFIX).split("-")
    if not name.endswith(_SUFFIX) or not all(parts) or not set(name) <= _ALLOWED or len(name) > _LONGEST:
        raise OSError(errno.EINVAL, "not the name of a systemd slice", name)
    return "".join(f"/{'-'.join(parts[: level + 1])}{_SUFFIX}" for level in range(len(parts)))
