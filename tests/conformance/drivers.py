"""The storage drivers under test, and how their snapshots are seen: through the mount that they describe.

The mount is made detached (fsmount(2), open_tree(2)) and read by descriptor, so nothing is mounted anywhere.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tests import tars
from tests.tars import Member
from wherry.kernel import const, mountapi
from wherry.runtime.mounts import Mount
from wherry.runtime.roots import make_root
from wherry.snapshots.api import Snapshotter, Usage
from wherry.snapshots.directories import DirectoryDriver
from wherry.snapshots.drivers.erofs import Erofs
from wherry.snapshots.drivers.overlay2 import Overlay2
from wherry.snapshots.drivers.vfs import Vfs

DRIVERS: dict[str, Callable[[Path], Snapshotter]] = {
    "erofs": Erofs,
    "erofs-loop": partial(Erofs, by_files=False),
    "overlay2": Overlay2,
    "overlay2-links": partial(Overlay2, one_by_one=False),
    "vfs": Vfs,
}


def chain(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def ingest(driver: Snapshotter, root: Path, chain_id: str, parent: str, layer: io.BytesIO) -> Usage:
    """Ingest a layer whose tar lies beside the driver's folder, as the content store has it."""
    data = layer.getvalue()
    blob = root.parent / "blobs" / hashlib.sha256(data).hexdigest()
    blob.parent.mkdir(exist_ok=True)
    blob.write_bytes(data)
    return driver.ingest(chain_id, parent, layer, blob)


class View:
    """A mounted snapshot, by descriptor."""

    def __init__(self, mounts: tuple[Mount, ...], namespace: int) -> None:
        (mount,) = mounts
        if mount.type == "bind":
            self.fd = mountapi.open_tree(const.AT_FDCWD, mount.source, const.OPEN_TREE_CLONE)
        else:
            self.fd = make_root(mount, namespace)

    def path(self, name: str) -> str:
        return f"/proc/self/fd/{self.fd}/{name}"

    def read(self, name: str) -> bytes:
        return Path(self.path(name)).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        Path(self.path(name)).write_bytes(data)

    def stat(self, name: str) -> os.stat_result:
        return os.lstat(self.path(name))

    def names(self, name: str = "") -> list[str]:
        return sorted(os.listdir(self.path(name)))

    def has(self, name: str) -> bool:
        return os.path.lexists(self.path(name))


class Bench:
    """A driver, with layers made of members and views of what is on top of them."""

    def __init__(self, kind: str, root: Path) -> None:
        self.kind = kind
        self.driver = DRIVERS[kind](root)
        self.root = root
        self.views: list[View] = []
        self.serial = 0
        self.held = ExitStack()

    def layer(self, name: str, parent: str, *members: Member) -> str:
        self.ingest(chain(name), parent, io.BytesIO(tars.archive(members)))
        return chain(name)

    def ingest(self, chain_id: str, parent: str, layer: io.BytesIO) -> Usage:
        return ingest(self.driver, self.root, chain_id, parent, layer)

    def view(self, top: str, key: str = "") -> View:
        self.serial += 1
        mounts = self.driver.prepare(key or f"container{self.serial}", top)
        view = View(mounts, self.driver.mount_namespace)
        self.views.append(view)
        return view

    def root_of(self, top: str) -> Path:
        """Where the driver itself sees what a layer is, as overlayfs gets it."""
        if isinstance(self.driver, DirectoryDriver):
            return self.held.enter_context(self.driver.seen([top]))[0]
        raise NotImplementedError

    def close(self) -> None:
        while self.views:
            os.close(self.views.pop().fd)
        self.held.close()
