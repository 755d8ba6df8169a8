"""The volumes of one engine: rows in the database, folders on disk.

    DATA_ROOT/volumes/NAME/_data      the content, what containers see
    DATA_ROOT/volumes/NAME/unsettled  there while the volume is being made or removed
    DATA_ROOT/volumes/.trash-RANDOM   removed; deleted after

Made: folder with `unsettled`, content, row, then `unsettled` goes. Removed: `unsettled` comes, row, then the folder. So
whatever is interrupted leaves a folder of which the next start knows what to do: with a row it stays; without one and
with `unsettled` it goes; without either it is somebody's data whose row was lost, and it becomes a volume again.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from wherry.errors import NotFound, SystemFailure
from wherry.failpoints import reach
from wherry.kernel.fsio import trees
from wherry.kernel.procfs import parse_mount
from wherry.store.database import Database
from wherry.volumes import filling, names, records
from wherry.volumes.records import Volume

log = logging.getLogger(__name__)
DATA = "_data"
UNSETTLED = "unsettled"
TRASH = ".trash-"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


class Volumes:
    """The one place that holds and persists volumes. Rows from the event loop only; folders from any thread."""

    def __init__(self, database: Database, root: Path) -> None:
        self._database = database
        self._root = root
        self._by_name: dict[str, Volume] = {}
        try:
            root.mkdir(mode=0o701, exist_ok=True)
        except OSError as error:
            raise SystemFailure(f"cannot make the folder of volumes: {error}") from error

    def load(self) -> list[str]:
        """Read all rows; return a sentence for each that cannot be read (it stays in the store, untouched)."""
        damaged = []
        for name, data in self._database.query("SELECT name, record FROM volumes ORDER BY name"):
            try:
                self._by_name[name] = records.decode(data)
            except msgspec.MsgspecError as error:
                damaged.append(f"the record of volume {name} cannot be read: {error}")
                self._by_name[name] = Volume(name=name, created=time.time_ns())
        for volume in self:
            if volume.moved_from:
                self.move(volume)
        return damaged

    def __iter__(self) -> Iterator[Volume]:
        return iter(tuple(self._by_name.values()))

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def get(self, name: str) -> Volume:
        """Return a volume; raises NotFound with dockerd's text."""
        try:
            return self._by_name[name]
        except KeyError:
            raise NotFound(f"get {name}: no such volume") from None

    def folder(self, name: str) -> Path:
        """Return the folder that is a volume's own."""
        return self._root / name

    def mountpoint(self, name: str) -> Path:
        """Return where the content of a volume is, or would be."""
        return self._root / name / DATA

    # Rows

    @contextmanager
    def recording(self, fresh: Iterable[Volume]) -> Iterator[None]:
        """Remember volumes together with what the block writes: all of it, or nothing."""
        kept = tuple(fresh)
        with self._database.transaction():
            for volume in kept:
                self._database.execute(
                    "INSERT INTO volumes (name, record) VALUES (?, ?)", (volume.name, volume.encode())
                )
            yield
        self._by_name.update({volume.name: volume for volume in kept})

    @contextmanager
    def forgetting(self, gone: Iterable[str]) -> Iterator[None]:
        """Forget volumes together with what the block writes."""
        unwanted = tuple(gone)
        with self._database.transaction():
            for name in unwanted:
                self._database.execute("DELETE FROM volumes WHERE name = ?", (name,))
            yield
        for name in unwanted:
            self._by_name.pop(name, None)

    @contextmanager
    def renaming(self, old: str, fresh: Volume) -> Iterator[None]:
        """Remember a volume by another name, together with what the block writes; `move` is next."""
        with self._database.transaction():
            self._database.execute("DELETE FROM volumes WHERE name = ?", (old,))
            self._database.execute("INSERT INTO volumes (name, record) VALUES (?, ?)", (fresh.name, fresh.encode()))
            yield
        self._by_name.pop(old, None)
        self._by_name[fresh.name] = fresh

    # Folders

    def move(self, volume: Volume) -> None:
        """Give the folder of a volume that was renamed its name, if it has it not, and note that. Raises SystemFailure.

        The rows come first: an engine that dies before it is here does this at its next start.
        """
        old, new = self._root / volume.moved_from, self._root / volume.name
        try:
            if old.exists() and not new.exists():
                old.rename(new)
        except OSError as error:
            raise SystemFailure(f"rename {volume.moved_from}: {error}") from error
        reach("volume.moved")
        settled = msgspec.structs.replace(volume, moved_from="")
        self._database.execute("UPDATE volumes SET record = ? WHERE name = ?", (settled.encode(), settled.name))
        self._by_name[settled.name] = settled

    def mounted_inside(self, name: str) -> str:
        """Return where something is mounted in the folder of a volume, by whomever; "" when nothing is. Blocks."""
        folder = os.path.realpath(self._root / name)
        with open("/proc/thread-self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
            targets = (parse_mount(line).target for line in table if name in line)
            return next((each for each in targets if f"{each}/".startswith(f"{folder}/")), "")

    def make(self, name: str) -> None:
        """Make the folder of a volume, unsettled. Raises SystemFailure."""
        folder = self._root / name
        try:
            folder.mkdir(mode=0o701)
            self.unsettle(name)
            (folder / DATA).mkdir()
            (folder / DATA).chmod(0o755)
        except OSError as error:
            raise SystemFailure(
                f"create {name}: error while creating volume path '{folder / DATA}': {error}"
            ) from error

    def settle(self, name: str) -> None:
        """Say that a folder and its row belong together."""
        (self._root / name / UNSETTLED).unlink(missing_ok=True)

    def unsettle(self, name: str) -> None:
        """Say that a folder without a row is to be deleted. Raises OSError."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            os.close(os.open(self._root / name / UNSETTLED, flags, 0o600))
        except FileNotFoundError:
            if (self._root / name).exists():
                raise

    def discard(self, name: str) -> None:
        """Delete the folder of a volume that has no row (any more) and is unsettled. Raises SystemFailure."""
        if not (self._root / name / UNSETTLED).exists():
            return
        aside = f"{TRASH}{secrets.token_hex(8)}"
        try:
            (self._root / name).rename(self._root / aside)
        except FileNotFoundError:
            return
        except OSError as error:
            raise SystemFailure(f"remove {name}: {error}") from error
        reach("volume.trash")
        self._delete(aside)

    def _delete(self, name: str) -> None:
        fd = os.open(self._root, _FOLDER)
        try:
            trees.remove(fd, name)
        except OSError as error:
            log.warning("left in the trash until the next start", extra={"path": name, "error": str(error)})
        finally:
            os.close(fd)

    def delete_trash(self, name: str) -> None:
        """Delete what is left of a removed volume."""
        if name.startswith(TRASH):
            self._delete(name)

    def take_up(self, name: str) -> None:
        """Make a folder whose record is lost a volume again."""
        if name not in self._by_name:
            with self.recording([Volume(name=name, created=time.time_ns())]):
                pass

    def sweep(self) -> list[Volume]:
        """Delete what was being made or removed; return the volumes whose rows are lost, for `recording`."""
        found = []
        for name in sorted(os.listdir(self._root)):
            if name.startswith(TRASH):
                self._delete(name)
            elif name in self._by_name:
                filling.sweep(self._root / name)
                self.settle(name)
            elif (self._root / name / UNSETTLED).exists():
                self.discard(name)
            elif names.NAME.match(name) and (self._root / name / DATA).is_dir():
                log.warning("a volume without a record is taken up again", extra={"volume": name})
                found.append(Volume(name=name, created=time.time_ns()))
        return found

    def usage(self, name: str) -> int:
        """Return the bytes of a volume's files; what cannot be read counts for nothing. Raises OSError."""
        fd = os.open(self.mountpoint(name), _FOLDER)
        try:
            return trees.measure(fd)[0]
        finally:
            os.close(fd)
