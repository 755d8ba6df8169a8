"""The ledger of a walk over a volume: writes the manifest, and knows what has changed since another one."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from wherry.archive import tar
from wherry.archive.tar import Entry
from wherry.errors import InvalidArgument
from wherry.kernel.fsio.holes import extents
from wherry.volumes.backup import manifest
from wherry.volumes.backup.digest import ContentDigest
from wherry.volumes.backup.manifest import Line

PIECE = 1 << 20
FRESH = 2_000_000_000
"""ns: who wrote so shortly ago may write again without a new ctime, whose clock ticks every 4 ms (CONFIG_HZ 250)."""

_KINDS = {
    tar.REGULAR: manifest.FILE,
    tar.DIRECTORY: manifest.FOLDER,
    tar.SYMLINK: manifest.LINK,
    tar.HARD_LINK: manifest.HARD,
    tar.FIFO: manifest.PIPE,
    tar.CHARACTER: manifest.CHARACTER,
    tar.BLOCK_DEVICE: manifest.BLOCK,
}


class Spool:
    """A manifest on its way to or from the disk, in a file without a name. Of any size: nothing of it is in memory."""

    def __init__(self, folder: Path) -> None:
        self._file: IO[bytes] = TemporaryFile(dir=folder)  # noqa: SIM115 - closed by `close`
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, piece: bytes) -> None:
        """Add a piece."""
        self._file.write(piece)
        self._digest.update(piece)
        self.size += len(piece)

    @property
    def id(self) -> str:
        """What names the manifest: the SHA-256 of its text, "" for an empty one."""
        return self._digest.hexdigest() if self.size else ""

    def pieces(self) -> Iterator[bytes]:
        """Yield the text from its beginning."""
        self._file.seek(0)
        while piece := self._file.read(PIECE):
            yield piece

    def lines(self) -> Iterator[Line]:
        """Yield the lines in the order of the walk; raises InvalidArgument for what is no manifest."""
        self._file.seek(0)
        return manifest.ordered(manifest.read(self._file))

    def close(self) -> None:
        """Give the room back."""
        self._file.close()


class Against:
    """The lines of another manifest, looked up in the order of the walk: each is passed once."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self._lines = iter(lines)
        self._next = next(self._lines, None)

    def find(self, name: bytes) -> Line | None:
        """Return the line of a path, None when there is none. Paths are asked for in the order of the walk."""
        wanted = manifest.place(name)
        while self._next is not None and manifest.place(self._next.name) < wanted:
            self._next = next(self._lines, None)
        if self._next is None or self._next.name != name:
            return None
        found = self._next
        self._next = next(self._lines, None)
        return found


class Ledger:
    """Writes a line for each file of a walk, and lets go along what is not in the manifest `against` as it is now.

    prefix: what stands before the paths in the archive. pack False: nothing goes along, everything is only looked at.
    """

    def __init__(self, spool: Spool, against: Against, prefix: bytes, *, pack: bool = True) -> None:
        self._spool = spool
        self._against = against
        self._prefix = prefix
        self._pack = pack
        self._line = Line(kind="")
        self._digest = ContentDigest()
        self.packed = 0

    def begin(self, entry: Entry, state: os.stat_result, path: str) -> bool:
        """See `packing.pack.Ledger`."""
        name = entry.name.removeprefix(self._prefix).lstrip(b"/")
        before = self._against.find(name)
        now = self._line = _line(entry, state, name, self._prefix)
        self._digest = ContentDigest()
        if now.kind != manifest.FILE:
            return True
        if before is not None and before.untouched(now):
            self._line = _with(now, before.digest)
            return False
        likely = before is not None and (before.size, before.mtime) == (now.size, now.mtime)
        if likely or not self._pack:
            self._line = _with(now, _digest(path, now.size))
            if not self._pack or (before is not None and not before.differs(self._line)):
                return False
        self._line = now
        self.packed += 1
        return True

    def feed(self, piece: bytes) -> None:
        """See `packing.pack.Ledger`."""
        self._digest.feed(piece)

    def hole(self, size: int) -> None:
        """See `packing.pack.Ledger`."""
        self._digest.hole(size)

    def end(self) -> None:
        """See `packing.pack.Ledger`."""
        line = self._line
        if line.kind == manifest.FILE and not line.digest:
            line = _with(line, self._digest.hexdigest())
        self._spool.write(manifest.encode(line))


def _line(entry: Entry, state: os.stat_result, name: bytes, prefix: bytes) -> Line:
    kind = _KINDS[entry.type]
    target = os.fsdecode(entry.link).encode("utf-8", "backslashreplace").decode() if kind == manifest.LINK else ""
    if kind == manifest.HARD:
        target = manifest.shown(entry.link.removeprefix(prefix).lstrip(b"/"))
    elif kind in (manifest.CHARACTER, manifest.BLOCK):
        target = "{}:{}".format(*entry.device)
    settled = time.time_ns() - state.st_ctime_ns > FRESH
    own = kind != manifest.HARD  # owner, mode and times of a hard link are those of what it leads to
    return Line(
        kind=kind,
        **manifest.named(name),
        mode=stat.S_IMODE(state.st_mode) if own else 0,
        uid=state.st_uid if own else 0,
        gid=state.st_gid if own else 0,
        mtime=state.st_mtime_ns if own else 0,
        size=state.st_size if kind == manifest.FILE else 0,
        target=target,
        attributes=manifest.digest_of(entry.xattrs) if own else "",
        ctime=state.st_ctime_ns if settled and kind == manifest.FILE else 0,
        inode=state.st_ino if kind == manifest.FILE else 0,
    )


def _with(line: Line, digest: str) -> Line:
    return manifest.replace(line, digest=digest)


def _digest(path: str, size: int) -> str:
    """Return the digest of what a file has now, cut or filled up to `size` as the packer does."""
    digest, position = ContentDigest(), 0
    with open(path, "rb", buffering=0) as file:
        for start, length in extents(file.fileno(), size):
            digest.hole(start - position)
            file.seek(start)
            position, end = start, start + length
            while position < end:
                piece = file.read(min(end - position, PIECE)) or bytes(min(end - position, PIECE))
                digest.feed(piece)
                position += len(piece)
    digest.hole(size - position)
    return digest.hexdigest()


def checked(lines: Iterable[Line]) -> Iterator[Line]:
    """Yield lines whose paths stay inside; raises InvalidArgument."""
    for line in lines:
        parts = line.name.split(b"/")
        if line.name and (b"" in parts or b"." in parts or b".." in parts):
            raise InvalidArgument(f"the manifest has a path that cannot be: {line.path or line.path64!r}")
        yield line
