"""Storage drivers: the contract that overlay2 and vfs (later erofs, btrfs, zfs, ...) keep.

A *committed* snapshot is the read-only content of an image's layers up to one layer; its name is the
chain ID of that layer (OCI image spec, "Layer ChainID"), without "sha256:". An *active* snapshot is the
writable layer of one container; its key is the container's id. Both live in one name space per driver.

    ingest(chain, parent, tar, blob) -> committed      a layer's uncompressed tar becomes content
    prepare(key, parent)        ->  active             parent is a chain ID or "" (an empty root)
    mounts(key)                 ->  tuple[Mount, ...]  how to mount an active snapshot; data only
    view(chain)                 ->  Mount              how to mount a committed one, for reading only
    remove(name_or_key)         ->  gone               refused while a committed child or an active one needs it

Drivers mount nothing that anybody else could see: the runtime mounts what `mounts` returns in the container's own
mount namespace, in order, the first with target "" at the rootfs. Whatever is interrupted (kill -9, power) leaves
either nothing or something that `sweep` removes; a committed snapshot is visible only when complete (rename is the
commit), and survives a loss of power once `flush` has returned (one for all layers of an image: it waits for the disk).

All methods block and are safe to call from several threads for different names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from wherry.runtime.mounts import Mount
from wherry.snapshots.changes import Change


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """name: chain ID or key. parent: chain ID or "". committed: False for a container's writable layer."""

    name: str
    parent: str
    committed: bool


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes and inodes held by one snapshot alone, without its parents."""

    size: int
    inodes: int


class Snapshotter(Protocol):
    """A storage driver. Errors: NotFound, Conflict (exists, in use), SystemFailure (kernel or disk, with the path)."""

    name: str
    instant: bool
    """Whether `prepare` only makes a few folders, so that it need not leave the caller's thread."""
    unpacks: bool
    """Whether a layer's files take room beside its tar."""
    mount_namespace: int
    """A descriptor of the mount namespace in which what has the option "x-layers" is to be mounted; -1: nothing has."""

    def ingest(self, chain_id: str, parent: str, layer: BinaryIO, blob: Path) -> Usage:
        """Make the committed snapshot chain_id from an uncompressed layer tar. Existing: returns at once.

        blob: the file that holds the same tar. It is complete and stays, as it is, as long as the snapshot; a driver
        may use it as its own content.
        """
        ...

    def prepare(self, key: str, parent: str, marker: str = "") -> tuple[Mount, ...]:
        """Make the active snapshot key on top of parent. O(1) in overlay2, a full copy in vfs.

        marker: the name of an empty file, mode 0755, that is to be in its root.
        """
        ...

    def mounts(self, key: str) -> tuple[Mount, ...]:
        """Return how to mount the active snapshot."""
        ...

    def view(self, chain_id: str) -> Mount:
        """Return how to mount a committed snapshot, for reading only; "" is an empty tree. Any number at once."""
        ...

    def changes(self, key: str) -> list[Change]:
        """Return what an active snapshot has of its own, sorted by path; cost proportional to what changed."""
        ...

    def layer(self, key: str) -> Iterator[bytes]:
        """Yield the tar of what an active snapshot has of its own; the container should not write meanwhile."""
        ...

    def stat(self, name: str) -> SnapshotInfo:
        """Return what is known of one snapshot."""
        ...

    def usage(self, name: str) -> Usage:
        """Walk the snapshot and sum it up; cost proportional to its number of files."""
        ...

    def walk(self) -> Iterator[SnapshotInfo]:
        """Yield every snapshot of this driver."""
        ...

    def remove(self, name: str) -> None:
        """Remove a snapshot. It is gone for the API when this returns; its files may be deleted after."""
        ...

    def graph_data(self, key: str) -> dict[str, str]:
        """Return GraphDriver.Data of docker inspect (LowerDir, UpperDir, MergedDir, WorkDir for overlay2)."""
        ...

    def status(self) -> list[tuple[str, str]]:
        """Return the DriverStatus lines of docker info."""
        ...

    def flush(self) -> None:
        """Make all committed snapshots durable against a loss of power; before a reference to one is made so."""
        ...

    def sweep(self) -> None:
        """Remove leftovers of interrupted work; called once at start."""
        ...

    def close(self) -> None:
        """Give back what is held in memory and in the kernel; running containers go on."""
        ...
