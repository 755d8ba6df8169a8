"""The shared `Mount` value: producers (snapshots, volumes, oci) describe, the runtime mounts.

Modelled on mount(8) and on the OCI runtime spec's ``mounts`` entries, so that a list of them
converts to ``config.json`` without loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount as data.

    type: file system type as mount(2) takes it ("overlay", "tmpfs", "proc", "cgroup", "bind", ...).
    source: device, directory or file system name; for "bind" a path on the host.
    target: absolute path inside the rootfs; "" for a mount that makes the rootfs itself.
    options: as in fstab(5) and the OCI spec: "ro", "nosuid", "rbind", "rprivate", "mode=755",
        "lowerdir+=/path" ...
    """

    type: str
    source: str
    target: str = ""
    options: tuple[str, ...] = ()

    def to_oci(self) -> dict[str, object]:
        """Return the entry of this mount in an OCI runtime spec's ``mounts``."""
        return {"destination": self.target, "type": self.type, "source": self.source, "options": list(self.options)}


@dataclass(frozen=True, slots=True)
class VolumeMount:
    """One mount(2). place: a directory of the host. flags: MS_*. holder: the mount namespace that may have it, or "".

    complaint: what is said before the reason when it fails. options: as in `Mount`, for one that a storage driver
    describes, which mount(2) cannot make.
    """

    place: str
    fstype: str
    device: str
    flags: int = 0
    data: str = ""
    holder: str = ""
    complaint: str = ""
    options: tuple[str, ...] = ()

    def to_wire(self) -> list[Any]:
        """Return the message's element."""
        wire = [self.place, self.fstype, self.device, self.flags, self.data, self.holder, self.complaint]
        return [*wire, list(self.options)]
