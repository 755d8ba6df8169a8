"""Mounts of a writable layer that goes with its container.

When overlayfs is unmounted it syncs the whole file system that holds the upper directory (ovl_sync_fs): each end of a
container waits for all that anybody has written to that disk, and the next start for the journal. Of a layer that is
removed at the end, or after a loss of power when the engine starts, nothing has to be on the disk. Option "volatile"
(5.10) leaves all syncs out, also those of fsync(2) in the container; pages are written back as memory wants.

Documentation/filesystems/overlayfs.rst, "Volatile mount": it leaves a folder in the work directory, and what was
mounted so is not mounted again while that is there.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

from wherry.runtime.mounts import Mount

_MARK = "work/incompat"


def ephemeral(mounts: tuple[Mount, ...]) -> tuple[Mount, ...]:
    """Return the mounts of an active snapshot for a container that is removed when it ends; forgets an earlier run."""
    return tuple(_volatile(mount) if mount.type == "overlay" else mount for mount in mounts)


def _volatile(mount: Mount) -> Mount:
    options = dict(option.partition("=")[::2] for option in mount.options)
    if "workdir" not in options:
        return mount
    # as a relative path it starts in the source, see `drivers.overlay2`
    work = os.path.join(mount.source, options["workdir"])
    shutil.rmtree(os.path.join(work, _MARK), ignore_errors=True)
    return replace(mount, options=(*mount.options, "volatile"))
