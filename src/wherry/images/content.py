"""Blobs by digest: content/blobs/sha256/HEX, complete and on the disk before anything refers to them.

ingest -> tmp/ file, digest while writing -> fsync -> rename -> the row of the table `content`, in the transaction
that makes the reference visible. Before that a lease (`leases`) keeps it: a file without a row goes with its last
lease, or, when the process was killed, at the next start.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from wherry.errors import NotFound, SystemFailure
from wherry.images.leases import Lease, Leases
from wherry.images.references import hex_of, is_digest
from wherry.kernel.fsio import trees
from wherry.kernel.fsio.durable import fsync_directory
from wherry.store.database import Database


class Content:
    """The blobs of one engine."""

    def __init__(self, root: Path, database: Database) -> None:
        """Use, or make, the folders below `root`."""
        self._blobs = root / "blobs" / "sha256"
        self._tmp = root / "tmp"
        self.spool = root / "spool"
        self._database = database
        self.leases = Leases(self._released)
        for folder in (self._blobs, self._tmp, self.spool):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Return where a blob is, or would be."""
        return self._blobs / hex_of(digest)

    def read(self, digest: str) -> bytes:
        """Return a whole blob, which must be what its name says. Raises NotFound, and SystemFailure for rot."""
        path = self.path(digest)
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise NotFound(f"no such content: {digest}") from error
        except OSError as error:
            raise SystemFailure(f"cannot read {path}: {error}") from error
        if hashlib.sha256(data).hexdigest() != path.name:
            raise SystemFailure(f"{path} is damaged: its bytes are not those of {digest}; load the image again")
        return data

    def put(self, data: bytes) -> str:
        """Write a blob so that it survives a loss of power and return its digest; the caller leases it."""
        digest = hashlib.sha256(data).hexdigest()
        target = self._blobs / digest
        aside = self._tmp / secrets.token_hex(8)
        try:
            if target.exists() and target.read_bytes() == data:
                return f"sha256:{digest}"
            with open(aside, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            aside.rename(target)
            fsync_directory(self._blobs)
        except OSError as error:
            aside.unlink(missing_ok=True)
            raise SystemFailure(f"cannot write {target}: {error}") from error
        return f"sha256:{digest}"

    def adopt(self, file: Path, digest: str) -> None:
        """Take in a file whose bytes are known to be the digest's, unless it is here; the caller leases it."""
        target = self.path(digest)
        try:
            if self.has(digest) and target.exists():
                return
            with open(file, "rb", buffering=0) as written:
                os.fsync(written.fileno())
            file.rename(target)
            fsync_directory(self._blobs)
        except OSError as error:
            raise SystemFailure(f"cannot write {target}: {error}") from error

    def leasing(self, lease: Lease) -> Callable[[str], Path | None]:
        """Return a function that leases a blob and says where it is, None when it is not here or not official."""

        def known(digest: str) -> Path | None:
            lease.add([digest])
            path = self.path(digest)
            return path if self.has(digest) and path.exists() else None

        return known

    def has(self, digest: str) -> bool:
        """Return whether a blob is here and official, and nothing speaks against it."""
        return self.size(digest) >= 0

    def size(self, digest: str) -> int:
        """Return the bytes that an official blob should have, -1 for one that is not here or not to be trusted."""
        rows = self._database.query("SELECT size FROM content WHERE digest = ?", (digest,))
        return int(rows[0][0]) if rows else -1

    def is_recorded(self, digest: str) -> bool:
        """Return whether a blob has a row, trusted or not."""
        return bool(self._database.query("SELECT 1 FROM content WHERE digest = ?", (digest,)))

    def media_type(self, digest: str) -> str:
        """Return what an official blob is, "" for one that is not here."""
        rows = self._database.query("SELECT media_type FROM content WHERE digest = ?", (digest,))
        return str(rows[0][0]) if rows else ""

    def sizes(self, media_type: str) -> dict[str, int]:
        """Return the bytes of each official blob of a type, by digest."""
        rows = self._database.query("SELECT digest, size FROM content WHERE media_type = ?", (media_type,))
        return {str(digest): int(size) for digest, size in rows if size >= 0}

    def digests(self, media_type: str) -> set[str]:
        """Return the digests of all blobs of a type that have a row."""
        rows = self._database.query("SELECT digest FROM content WHERE media_type = ?", (media_type,))
        return {str(digest) for (digest,) in rows}

    def rows(self) -> list[tuple[str, int, str]]:
        """Return digest, size (-1: not to be trusted) and media type of every blob that has a row."""
        rows = self._database.query("SELECT digest, size, media_type FROM content ORDER BY digest")
        return [(str(digest), int(size), str(media_type)) for digest, size, media_type in rows]

    def files(self) -> list[Path]:
        """Return the files of the blobs, whether they have rows or not."""
        return sorted(self._blobs.iterdir())

    def record(self, digest: str, size: int, media_type: str) -> None:
        """Make a blob official; the caller's transaction makes the reference to it."""
        self._database.execute(
            "INSERT INTO content VALUES (?, ?, ?) ON CONFLICT (digest) DO UPDATE SET size = excluded.size",
            (digest, size, media_type),
        )

    def distrust(self, digest: str) -> None:
        """Give a blob out no more, until one comes that takes its place: its bytes were found wrong or missing."""
        self._database.execute("UPDATE content SET size = -1 WHERE digest = ?", (digest,))

    def forget(self, digest: str) -> None:
        """Take the row of a blob away, in the caller's transaction; `sweep` or `delete` takes the file."""
        self._database.execute("DELETE FROM content WHERE digest = ?", (digest,))

    def delete(self, digest: str) -> None:
        """Remove the file of a blob that has no row any more, unless somebody leases it, with whom it goes."""
        with self.leases.lock:
            if digest not in self.leases:
                self._released(digest)

    def _released(self, name: str) -> None:
        if is_digest(name) and not self.is_recorded(name):
            self.path(name).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove files without a row and unfinished ones; once at start."""
        known = {digest for (digest,) in self._database.query("SELECT digest FROM content")}
        for path in self._blobs.iterdir():
            if f"sha256:{path.name}" not in known:
                path.unlink()
        for folder in (self._tmp, self.spool):
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                for name in os.listdir(fd):
                    trees.remove(fd, name)
            finally:
                os.close(fd)
