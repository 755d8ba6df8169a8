"""What the directory drivers (overlay2, vfs) share: where a snapshot is, how it appears and how it goes.

    DRIVER/
      layers/HEX/     committed: lower (chain IDs of all layers below, topmost first, one a line), fs/ (content)
        unsynced      there until `flush`: the content may not survive a loss of power, so `sweep` removes it
      active/KEY/     a container's: lower, fs/, and what the driver adds
      new/, ingest/   being made (a container's, a layer); renamed to its place when complete
      trash/          renamed from its place; deleted after

A rename within one file system is the only step that makes a snapshot appear or vanish. `lower` is written before.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wherry.errors import Conflict, InvalidArgument, NotFound, SystemFailure
from wherry.kernel.fsio import durable, placement, trees
from wherry.snapshots.api import SnapshotInfo, Usage

CHAIN = re.compile(r"[0-9a-f]{64}\Z")
KEY = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}\Z")
MAX_DEPTH = 125
"""Docker's limit; overlayfs' own is 500."""


log = logging.getLogger(__name__)
_deleting = threading.Lock()  # one after the other: two at once only make the disk seek


class Layout:
    """The folders of one driver."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.layers = root / "layers"
        self.active = root / "active"
        self._new = root / "new"
        self._ingest = root / "ingest"
        self._trash = root / "trash"
        self._lock = threading.Lock()
        self._chains: dict[str, tuple[str, ...]] = {}
        try:
            for folder in (self.layers, self.active, self._new, self._ingest, self._trash):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _spread(self._ingest)
        except OSError as error:
            raise _failed("make the folders of the storage driver", error) from error

    def layer(self, chain_id: str) -> Path:
        """Return the folder of a committed snapshot, which may not be there."""
        if not CHAIN.match(chain_id):
            raise InvalidArgument(f"invalid chain ID: {chain_id!r}")
        return self.layers / chain_id

    def container(self, key: str) -> Path:
        """Return the folder of an active snapshot, which may not be there."""
        if not KEY.match(key):
            raise InvalidArgument(f"invalid snapshot key: {key!r}")
        return self.active / key

    def find(self, name: str) -> tuple[Path, bool]:
        """Return the folder of a snapshot and whether it is committed; a committed one is preferred."""
        if CHAIN.match(name) and (self.layers / name).is_dir():
            return self.layers / name, True
        folder = self.container(name)
        if not folder.is_dir():
            raise NotFound(f"no such snapshot: {name}{self._elsewhere(name)}")
        return folder, False

    def _elsewhere(self, name: str) -> str:
        """Say which other storage driver has an active snapshot: the engine may have been started with another one."""
        for path in sorted(self.root.parent.glob(f"*/active/{name}")):
            return f"; it is one of the storage driver {path.parent.parent.name}: start wherryd with that"
        return ""

    def chain(self, parent: str) -> tuple[str, ...]:
        """Return a committed snapshot and all below it, topmost first; () for ""."""
        if not parent:
            return ()
        known = self._chains.get(parent)
        if known is None:
            folder = self.layer(parent)
            if not folder.is_dir():
                raise NotFound(f"no such snapshot: {parent}")
            known = (parent, *lower(folder))
            self._chains[parent] = known
        return known

    @contextmanager
    def making(self, target: Path, parent: str) -> Iterator[Path]:
        """Give a new folder with `lower` and an empty fs/; it takes its place when the block ends well."""
        chain = self.chain(parent)
        folder = (self._ingest if target.parent == self.layers else self._new) / secrets.token_hex(8)
        try:
            folder.mkdir(mode=0o700)
            (folder / "lower").write_text("".join(f"{each}\n" for each in chain))
            (folder / "fs").mkdir(mode=0o755)
            if chain:
                _copy_root(self.layers / chain[0] / "fs", folder / "fs")
            yield folder
            self._appear(folder, target, chain)
        except OSError as error:
            self._discard(folder)
            raise _failed(f"make the snapshot {target.name}", error) from error
        except BaseException:
            self._discard(folder)
            raise

    def _appear(self, folder: Path, target: Path, chain: tuple[str, ...]) -> None:
        with self._lock:
            if chain and not (self.layers / chain[0]).is_dir():
                raise NotFound(f"no such snapshot: {chain[0]}")
            try:
                folder.rename(target)
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    raise Conflict(f"snapshot {target.name} exists already") from error
                raise

    def _discard(self, folder: Path) -> None:
        _delete(folder.parent, folder.name)

    def walk(self) -> Iterator[SnapshotInfo]:
        """Yield every snapshot."""
        for folder, committed in ((self.layers, True), (self.active, False)):
            for name in sorted(os.listdir(folder)):
                try:
                    yield info(folder / name, committed)
                except FileNotFoundError:
                    continue  # removed meanwhile

    def remove(self, name: str) -> None:
        """Take a snapshot out of its place and delete it in the background."""
        folder, committed = self.find(name)
        aside = self._trash / f"{name[:64]}.{secrets.token_hex(4)}"
        with self._lock:
            if committed:
                self._refuse_when_needed(name)
                self._chains.pop(name, None)
            try:
                folder.rename(aside)
            except FileNotFoundError as error:
                raise NotFound(f"no such snapshot: {name}") from error
            except OSError as error:
                raise _failed(f"remove the snapshot {name}", error) from error
        threading.Thread(target=_delete_later, args=(self._trash, aside.name), name="trash", daemon=True).start()

    def _refuse_when_needed(self, name: str) -> None:
        for each in self.walk():
            if each.parent == name:
                kind = "layer" if each.committed else "container"
                raise Conflict(f"snapshot {name} is needed by the {kind} {each.name}")

    def flush(self) -> None:
        """Make all committed snapshots durable; one syncfs(2), and nothing when there is none to do."""
        marks = list(self.layers.glob("*/unsynced"))
        if not marks:
            return
        try:
            fd = os.open(self.layers, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                durable.syncfs(fd)
            finally:
                os.close(fd)
            for mark in marks:
                mark.unlink(missing_ok=True)
        except OSError as error:
            raise _failed("make the layers durable", error) from error

    def sweep(self) -> None:
        """Remove what was being made or deleted, and the committed ones that may be incomplete with all on them."""
        unsure = {mark.parent.name for mark in self.layers.glob("*/unsynced")}
        for folder in (self.layers, self.active):
            for name in os.listdir(folder):
                if name in unsure or unsure.intersection(lower(folder / name)):
                    (folder / name).rename(self._trash / f"{name}.{secrets.token_hex(4)}")
        self._chains.clear()
        for folder in (self._new, self._ingest, self._trash):
            for name in os.listdir(folder):
                _delete(folder, name)


def info(folder: Path, committed: bool) -> SnapshotInfo:
    """Describe the snapshot in a folder."""
    below = lower(folder)
    return SnapshotInfo(folder.name, below[0] if below else "", committed)


def lower(folder: Path) -> tuple[str, ...]:
    """Return the chain IDs below a snapshot, topmost first."""
    with open(f"{folder}/lower", "rb", buffering=0) as file:  # for each start: half the system calls of read_text
        return tuple(file.readall().decode().split())


def write_usage(folder: Path, usage: Usage) -> None:
    """Keep what a layer's unpacking has counted, so that it need not be measured."""
    (folder / "usage").write_text(f"{usage.size} {usage.inodes}\n")


def read_usage(folder: Path) -> Usage:
    """Return what `write_usage` kept."""
    size, inodes = (folder / "usage").read_text().split()
    return Usage(int(size), int(inodes))


def measure(folder: Path) -> Usage:
    """Return bytes and inodes of a snapshot's files."""
    try:
        fd = os.open(folder / "fs", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            return Usage(*trees.measure(fd))
        finally:
            os.close(fd)
    except OSError as error:
        raise _failed(f"measure the snapshot {folder.name}", error) from error


def _copy_root(source: Path, target: Path) -> None:
    """The root directory of a layer that says nothing of it is that of the layer below."""
    state = source.stat()
    os.chown(target, state.st_uid, state.st_gid)
    target.chmod(state.st_mode & 0o7777)


def _spread(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        placement.spread_subdirectories(fd)
    finally:
        os.close(fd)


def _delete(parent: Path, name: str) -> None:
    fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        trees.remove(fd, name)
    finally:
        os.close(fd)


def _delete_later(parent: Path, name: str) -> None:
    try:
        with _deleting:
            _delete(parent, name)
    except OSError as error:
        log.warning("left in the trash until the next start", extra={"path": str(parent / name), "error": str(error)})


def _failed(what: str, error: OSError) -> SystemFailure:
    return SystemFailure(f"cannot {what}: {error}")
