"""The archive of a backup: a tar that any tar program reads, of all of a volume or of what has changed.

    wherry-volume.json           the head: format, volume, labels, options, taken (ns), base (id, "" for a whole one)
    content, content/...         directories always, of the other files those that are not in the base as they are now
    wherry-manifest.jsonl        all that is in the volume now, a line each (see `manifest`)

The id of a backup is the SHA-256 of its manifest. One with a base is of use only on top of that very one: what is not
in its manifest goes away, and what is neither in it nor in the archive must be there already. After a restoration every
file is compared with the manifest.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from itertools import islice, zip_longest
from pathlib import Path
from typing import IO

import msgspec

from wherry.archive.compression import decompressed
from wherry.archive.tar import DIRECTORY, HARD_LINK, Entry, TarReader
from wherry.errors import Conflict, InvalidArgument, SystemFailure
from wherry.kernel.const import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS
from wherry.kernel.fsio import trees
from wherry.kernel.pathsafe import openat2
from wherry.packing.pack import Packer
from wherry.packing.unpack import Unpacker
from wherry.volumes.backup import manifest
from wherry.volumes.backup.ledger import Against, Ledger, Spool, checked

FORMAT = 1
HEAD, CONTENT, MANIFEST = b"wherry-volume.json", b"content", b"wherry-manifest.jsonl"
HEAD_LIMIT = 1 << 20
_INSIDE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
_IMPOSSIBLE = (errno.ENOENT, errno.ENOTDIR, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG, errno.EFBIG, errno.ERANGE)
"""What the kernel says to paths, links and attributes that no volume can have had."""

SHOWN = 5
"""Differences that an error tells."""


class Head(msgspec.Struct, frozen=True):
    """What a backup says of itself. taken: Unix ns. base: the id of the backup that it adds to, "" for a whole one."""

    volume: str
    taken: int
    format: int = FORMAT
    base: str = ""
    labels: dict[str, str] | None = None
    options: dict[str, str] | None = None
    frozen: tuple[str, ...] = ()


def taken(root: int, head: Head, base: Spool, scratch: Path) -> Generator[bytes, None, None]:
    """Yield the archive of the directory `root`, which is closed at the end. scratch: a folder for the manifest."""
    with ExitStack() as held:
        held.callback(os.close, root)
        held.callback(base.close)
        spool = Spool(scratch)
        held.callback(spool.close)
        text = msgspec.json.format(msgspec.json.encode(head))
        ledger = Ledger(spool, Against(base.lines()), CONTENT)
        packer = Packer(root, ledger)
        yield from packer.add(HEAD, len(text), [text])
        yield from packer.tree("", CONTENT)
        yield from packer.add(MANIFEST, spool.size, spool.pieces())
        yield from packer.end()


class Restoring(Unpacker):
    """Unpacks a backup below the directory `root`. Raises InvalidArgument for what is none, Conflict for its base."""

    def __init__(self, root: int, spool: Spool, base: str) -> None:
        """spool: gets the manifest. base: what is in `root` already, "" for nothing."""
        super().__init__(root)
        self._into = root
        self._spool = spool
        self._base = base
        self._head: Head | None = None

    @property
    def head(self) -> Head:
        """The head; only after `run`."""
        if self._head is None or not self._spool.size:
            raise InvalidArgument("this is no backup of a volume, or it is cut off: it has no head or no manifest")
        return self._head

    def _take(self, entry: Entry, reader: TarReader, path: bytes) -> None:
        if self._head is None:
            self._head = _head(path, reader, self._base)
        elif self._spool.size:
            raise InvalidArgument("there is something behind the manifest of this backup")
        elif path == MANIFEST:
            for chunk in reader.chunks():
                self._spool.write(bytes(chunk))
            if self._base:  # before directories get their times; in a whole one there must be no others
                _remove_others(self._into, self._spool)
        elif path == CONTENT and entry.type == DIRECTORY:
            state = os.fstat(self._into)
            self._late[b""] = entry, (state.st_dev, state.st_ino)
        elif path.startswith(CONTENT + b"/"):
            if entry.type == HARD_LINK:
                entry.link = entry.link.removeprefix(CONTENT + b"/")
            self._make(entry, reader, path.removeprefix(CONTENT + b"/"))
        else:
            raise InvalidArgument(f"this is no backup of a volume: it has {os.fsdecode(path)!r} in it")


def _head(path: bytes, reader: TarReader, base: str) -> Head:
    if path != HEAD:
        raise InvalidArgument(f"this is no backup of a volume: it begins with {os.fsdecode(path)!r}")
    try:
        head = msgspec.json.decode(reader.data(HEAD_LIMIT), type=Head)
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"the head of this backup cannot be read: {error}") from error
    if head.format != FORMAT:
        raise InvalidArgument(f"this backup has format {head.format}: this engine reads format {FORMAT}")
    if head.base != base:
        needs = f"adds to backup {head.base[:12]}" if head.base else "is a whole one, for a new volume"
        has = f"has backup {base[:12]}" if base else "is new"
        raise Conflict(f"this backup {needs}, but the volume {has}")
    return head


class _Others:
    """A ledger that finds what a manifest does not have."""

    def __init__(self, told: Spool) -> None:
        self._told = Against(checked(told.lines()))
        self.found: list[bytes] = []

    def begin(self, entry: Entry, state: os.stat_result, path: str) -> bool:
        if self._told.find(entry.name) is None and not (self.found and entry.name.startswith(self.found[-1] + b"/")):
            self.found.append(entry.name)
        return False

    def feed(self, piece: bytes) -> None: ...

    def hole(self, size: int) -> None: ...

    def end(self) -> None: ...


def _remove_others(root: int, told: Spool) -> None:
    """Remove what the manifest does not have."""
    others = _Others(told)
    for _ in Packer(root, others).tree("", b"", itself=False):
        pass
    for name in others.found:
        folder, _, base = name.rpartition(b"/")
        parent = openat2(root, os.fsdecode(folder) or ".", os.O_RDONLY | os.O_DIRECTORY, resolve=_INSIDE)
        try:
            trees.remove(parent, base)
        finally:
            os.close(parent)


def restore(root: int, source: IO[bytes], base: Spool, base_id: str, scratch: Path) -> tuple[Head, str, Spool]:
    """Unpack a backup in the directory `root`, which has that of `base_id`, and compare all of it with its manifest.

    base: the manifest of what is there, as of this machine. Return the head, the id, and the manifest as it is on this
    machine now, for the next backup on top of it; the caller closes it. Raises InvalidArgument, Conflict,
    SystemFailure (it is not what the manifest says), TarError, OSError.
    """
    with ExitStack() as held:
        told = Spool(scratch)
        held.callback(told.close)
        work = Restoring(root, told, base_id)
        try:
            work.run(decompressed(source)[0])
        except OSError as error:
            if error.errno not in _IMPOSSIBLE:
                raise
            raise InvalidArgument(f"what is in this backup cannot be made: {error}") from error
        head = work.head
        here = look(root, base, scratch)
        undo = held.enter_context(ExitStack())
        undo.callback(here.close)
        if found := differences(told, here):
            raise SystemFailure(f"what was restored is not what was saved: {found}")
        undo.pop_all()
        return head, told.id, here


def look(root: int, base: Spool, scratch: Path) -> Spool:
    """Return the manifest of what is in a directory; a file that `base` has and nobody has written to is not read."""
    spool = Spool(scratch)
    try:
        ledger = Ledger(spool, Against(base.lines()), b"", pack=False)
        for _ in Packer(root, ledger).tree("", b""):
            pass
    except BaseException:
        spool.close()
        raise
    return spool


def differences(one: Spool, other: Spool) -> str:
    """Say what differs between two manifests, whatever the machine; "" when nothing does."""
    found = list(islice(_differences(one, other), SHOWN + 1))
    return "; ".join(found[:SHOWN]) + (", and more" if len(found) > SHOWN else "")


def _differences(one: Spool, other: Spool) -> Iterator[str]:
    for mine, its in zip_longest(one.lines(), other.lines()):
        if mine is None or its is None or mine.name != its.name:
            yield f"{manifest.shown((mine or its).name)} is only in one of them"
            return
        for field in mine.differs(its):
            yield f"{manifest.shown(mine.name) or '/'} has another {field}"
