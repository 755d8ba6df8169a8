"""Filling new containers' empty volumes with what their image has at the same places."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import cache

from wherry.containers.record import MountRecord, Record
from wherry.errors import InvalidArgument, SystemFailure
from wherry.runtime.mounts import Mount
from wherry.runtime.roots import make_root
from wherry.snapshots.api import Snapshotter
from wherry.volumes import backing, filling, quotas
from wherry.volumes.local import Volumes
from wherry.volumes.records import Volume

KNOWN = 4096
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_OF_THE_PLACE = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR)
"""What the image says to a place that cannot be."""


class Population:
    """Copies from the root file system of a container that has never run. Blocks; several threads may use it."""

    def __init__(self, volumes: Volumes, snapshotter: Snapshotter) -> None:
        self._volumes = volumes
        self._snapshotter = snapshotter
        self._nothing: set[tuple[str, str]] = set()
        """(image, place): looked for before, and images do not change. Mounting a root to look takes 2 ms."""

    def done(self, record: Record, new: Mapping[str, Volume]) -> bool:
        """Whether it is known without a look at the image that `fill` has nothing to copy. Does not block.

        Only folders of ours are looked into: whose directory a volume is may be a server that does not answer.
        """
        for mount, volume in self._candidates(record, record.mounts, new):
            plain = backing.of(volume.options, volume.driver).plain
            if mount.name in new or mount.subpath or not plain or not self._has_content(mount.name):
                return False
        return True

    def _has_content(self, name: str) -> bool:
        try:
            return not filling.is_empty(self._volumes.mountpoint(name))
        except OSError:
            return False

    def _candidates(
        self, record: Record, mounts: Sequence[MountRecord], new: Mapping[str, Volume]
    ) -> Iterator[tuple[MountRecord, Volume]]:
        """Yield the mounts of volumes that may have to be filled now; others are when they are mounted."""
        for mount in mounts:
            if mount.type == "volume" and mount.copy and (record.image_id, mount.destination) not in self._nothing:
                volume = new.get(mount.name) or self._volumes.get(mount.name)
                if not backing.of(volume.options, volume.driver).while_used:  # then see Provision.mount
                    yield mount, volume

    def fill(self, record: Record, new: Mapping[str, Volume]) -> None:
        """Fill the volumes of a container that are empty; new: those that have no record yet, which nobody else sees.

        Raises SystemFailure, or InvalidArgument when the image has a file at the place of a volume.
        """
        root = _Root(lambda: self._snapshotter.mounts(record.id), self._snapshotter.mount_namespace)
        self._fill_all(record, record.mounts, root, new)

    def fill_later(self, record: Record, mounts: Sequence[MountRecord], new: Mapping[str, Volume]) -> None:
        """As `fill`, for mounts that a container gets after it was made: with what its image has. Raises the same."""

        def view() -> Sequence[Mount]:
            return (self._snapshotter.view(self._snapshotter.stat(record.id).parent),)

        self._fill_all(record, mounts, _Root(view, self._snapshotter.mount_namespace), new)

    def _fill_all(
        self, record: Record, mounts: Sequence[MountRecord], root: _Root, new: Mapping[str, Volume]
    ) -> None:
        try:
            for mount, volume in self._candidates(record, mounts, new):
                self._fill(record, mount, root, volume, fresh=mount.name in new)
        finally:
            root.close()

    def _fill(self, record: Record, mount: MountRecord, root: _Root, volume: Volume, *, fresh: bool) -> None:
        behind = backing.of(volume.options, volume.driver)
        base = str(self._volumes.mountpoint(mount.name))
        try:
            target = filling.open_part(behind.device if behind.bind else base, mount.subpath)
        except OSError as error:
            if mount.subpath:
                return  # said at the start, when it may be there
            why = (error.strerror or "").lower()
            what = behind.complaint(base, why) if behind.bind else f"open {base}: {why}"
            raise SystemFailure(f"failed to populate volume: {what}") from error
        try:
            if filling.is_empty(target):
                staging = None if fresh or behind.bind else self._volumes.folder(mount.name)
                with quotas.held() if "size" in (volume.options or {}) else nullcontext():
                    found = filling.fill(root.fd(), mount.destination, target, staging)
                if not found:
                    self._remember(record.image_id, mount.destination)
        except OSError as error:
            kind = InvalidArgument if error.errno in _OF_THE_PLACE else SystemFailure
            raise kind(f"failed to populate volume: {mount.name}: {error}") from error
        finally:
            os.close(target)

    def _remember(self, image_id: str, place: str) -> None:
        if len(self._nothing) >= KNOWN:
            self._nothing.clear()
        self._nothing.add((image_id, place))


class _Root:
    """A root file system, mounted nowhere, opened when it is first asked for: most volumes need no look at it."""

    def __init__(self, mounts: Callable[[], Sequence[Mount]], namespace: int) -> None:
        self._mounts = cache(mounts)
        self._namespace = namespace
        self._fd = -1

    def fd(self) -> int:
        """Return its descriptor. Raises OSError."""
        if self._fd < 0:
            self._fd = make_root(self._mounts()[0], self._namespace)
        return self._fd

    def close(self) -> None:
        """Unmount it."""
        if self._fd >= 0:
            os.close(self._fd)
