"""The base of the drivers that keep unpacked directories; a driver says how it fills and mounts them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from wherry.archive.compression import CompressionError
from wherry.archive.tar import TarError
from wherry.errors import Conflict, InvalidArgument, SystemFailure
from wherry.packing.layers import LayerUnpacker, Whiteouts
from wherry.runtime.mounts import Mount
from wherry.snapshots import changes, difference
from wherry.snapshots.api import SnapshotInfo, Usage
from wherry.snapshots.changes import Change
from wherry.snapshots.layout import MAX_DEPTH, Layout, info, lower, measure, read_usage, write_usage


class DirectoryDriver:
    """The part of the Snapshotter protocol that does not depend on the driver."""

    name = ""
    instant = False
    unpacks = True
    mount_namespace = -1
    upper = False
    """Whether an active snapshot's folder is an upper directory of overlayfs, or a whole tree."""

    def __init__(self, root: Path) -> None:
        """Use, or make, the driver's folder `root`."""
        self._layout = Layout(root)

    def _whiteouts(self, parent: str) -> Whiteouts:
        raise NotImplementedError

    def _fill(self, target: Path, parent: str) -> None:
        """Put the content of the parent into the fs/ of a new snapshot, where the driver needs it there."""

    def _add_own(self, folder: Path) -> None:
        """Put what the driver needs for mounting into a new active snapshot."""

    def mounts(self, key: str) -> tuple[Mount, ...]:
        """Return how to mount the active snapshot."""
        raise NotImplementedError

    def view(self, chain_id: str) -> Mount:
        """Return how to mount a committed snapshot, for reading only."""
        raise NotImplementedError

    def ingest(self, chain_id: str, parent: str, layer: BinaryIO, blob: Path) -> Usage:
        """Make the committed snapshot chain_id from an uncompressed layer tar. Existing: returns at once."""
        target = self._layout.layer(chain_id)
        if target.is_dir():
            return read_usage(target)
        if len(self._layout.chain(parent)) >= MAX_DEPTH:
            raise InvalidArgument("max depth exceeded")
        try:
            with self._layout.making(target, parent) as folder:
                usage = self._make_content(folder, parent, layer, blob)
                write_usage(folder, usage)
                (folder / "unsynced").touch()
        except Conflict:
            return read_usage(target)  # another thread was faster with the same layer
        except (TarError, CompressionError) as error:
            raise InvalidArgument(f"cannot unpack the layer: {error}") from error
        return usage

    def _make_content(self, folder: Path, parent: str, layer: BinaryIO, blob: Path) -> Usage:
        """Put what a layer is into its new folder; here, unpack it into fs/."""
        self._fill(folder / "fs", parent)
        root = os.open(folder / "fs", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            unpacker = LayerUnpacker(root, self._whiteouts(parent))
            unpacker.run(layer)
        finally:
            os.close(root)
        return Usage(unpacker.size, unpacker.inodes)

    def prepare(self, key: str, parent: str, marker: str = "") -> tuple[Mount, ...]:
        """Make the active snapshot key on top of parent, with an empty file `marker` in it."""
        with self._layout.making(self._layout.container(key), parent) as folder:
            self._fill(folder / "fs", parent)
            if marker:
                _make_marker(folder / "fs" / marker)
            self._add_own(folder)
        return self.mounts(key)

    @contextmanager
    def seen(self, chains: Iterable[str]) -> Iterator[list[Path]]:
        """Give the directories in which layers are seen, for as long as the block takes."""
        yield [self._layout.layer(each) / "fs" for each in chains]

    def changes(self, key: str) -> list[Change]:
        """Compare an active snapshot with its layers; a vfs layer is whole, so that the topmost one is enough."""
        folder, _ = self._layout.find(key)
        chain = lower(folder)
        try:
            with self.seen(chain if self.upper else chain[:1]) as layers:
                return changes.find(folder / "fs", layers, upper=self.upper)
        except OSError as error:
            raise SystemFailure(f"cannot compare {folder} with its layers: {error}") from error

    def layer(self, key: str) -> Iterator[bytes]:
        """Pack what `changes` finds."""
        folder, _ = self._layout.find(key)
        try:
            yield from difference.layer(folder / "fs", self.changes(key))
        except OSError as error:
            raise SystemFailure(f"cannot pack {folder}: {error}") from error

    def stat(self, name: str) -> SnapshotInfo:
        """Return what is known of one snapshot."""
        return info(*self._layout.find(name))

    def usage(self, name: str) -> Usage:
        """Measure an active snapshot; that of a committed one is known."""
        folder, committed = self._layout.find(name)
        return read_usage(folder) if committed else measure(folder)

    def walk(self) -> Iterator[SnapshotInfo]:
        """Yield every snapshot of this driver."""
        return self._layout.walk()

    def remove(self, name: str) -> None:
        """Remove a snapshot; its files are deleted in the background."""
        self._layout.remove(name)

    def flush(self) -> None:
        """Make every committed snapshot durable against a loss of power."""
        self._layout.flush()

    def sweep(self) -> None:
        """Remove leftovers of interrupted work."""
        self._layout.sweep()

    def close(self) -> None:
        """Nothing is held."""


def _make_marker(path: Path) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o755)
    except FileExistsError:  # from the image, copied
        return
    try:
        os.fchmod(fd, 0o755)
    finally:
        os.close(fd)
