"""A tar archive taken apart into temporary files: the order of its members says nothing about what refers to what.

Only regular files and links between them count; the digest of each is computed while it is written, in a thread of its
own: hashing takes as long as all the rest. What the content store has already is compared and not written. The folder
is private to one load and removed at its end; what a killed process left is removed at the next start.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from wherry.archive import tar
from wherry.archive.compression import CompressionError, decompressed
from wherry.archive.tar import CHUNK, Entry, Source, TarError, TarReader, clean_name
from wherry.errors import InvalidArgument, SystemFailure
from wherry.kernel.fsio import trees
from wherry.kernel.fsio.space import Reserve

MEMBER_LIMIT = 20_000  # each is a file for a while; a thousand images with twenty layers are as many
_LINKS = 8
_SMALL = 64 << 10
"""Bytes that are hashed faster than they are handed to another thread."""
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})\Z")

Known = Callable[[str], Path | None]
"""Given a digest, returns the file that the content store has of it, which stays until the load ends."""


@dataclass(frozen=True, slots=True)
class Member:
    """One file of the archive."""

    path: Path
    size: int
    digest: str


class _Digest:
    """A SHA-256 that is computed while the caller goes on: hashlib lets other threads run meanwhile.

    What it is given must not change afterwards.
    """

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._digest = hashlib.sha256()
        self._running: Future[None] | None = None

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes; waits until the ones before are done with."""
        self._wait()
        if len(data) < _SMALL:
            self._digest.update(data)
        else:
            self._running = self._pool.submit(self._digest.update, data)

    def hexdigest(self) -> str:
        """Return the digest of all that was given."""
        self._wait()
        return self._digest.hexdigest()

    def _wait(self) -> None:
        if self._running is not None:
            self._running.result()
            self._running = None


class Spool:
    """A private folder below `root`; a context manager that removes it."""

    def __init__(self, root: Path, known: Known = lambda _: None) -> None:
        self._known = known
        self._hashing = ThreadPoolExecutor(1, "wherry-hash")
        self._folder = root / f"spool.{secrets.token_hex(8)}"
        self._members: dict[str, Member] = {}
        self._links: dict[str, str] = {}
        self._count = 0

    def __enter__(self) -> Spool:
        try:
            self._folder.mkdir(mode=0o700, parents=True)
            self._root_fd = os.open(self._folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise SystemFailure(f"cannot make {self._folder}: {error}") from error
        self._reserve = Reserve(self._root_fd)
        return self

    def __exit__(self, *_: object) -> None:
        self._hashing.shutdown()
        self.clear()
        os.close(self._root_fd)

    def clear(self) -> None:
        """Remove the files now: before the disk is told to write everything down."""
        trees.remove(self._root_fd, self._folder.name)

    def take_apart(self, stream: Source) -> None:
        """Read a whole archive. Raises InvalidArgument for a bad one and SystemFailure from the disk."""
        try:
            reader = TarReader(decompressed(stream)[0])
            for entry in reader:
                self._take(entry, reader)
        except (TarError, CompressionError) as error:
            raise InvalidArgument(f"cannot read the archive: {error}") from error
        except OSError as error:
            raise SystemFailure(f"cannot store the archive in {self._folder}: {error}") from error

    def take_whole(self, stream: Source) -> Member:
        """Store a stream, decompressed, as one file."""
        try:
            return self.take_plain(decompressed(stream)[0])
        except CompressionError as error:
            raise InvalidArgument(f"cannot read the archive: {error}") from error

    def take_plain(self, source: Source) -> Member:
        """Store a stream as it is, as one file."""
        try:
            with self._new_file() as file:
                digest, size = _Digest(self._hashing), 0
                while chunk := source.read(CHUNK):
                    self._reserve.spend(len(chunk))
                    digest.update(chunk)
                    _write(file, chunk)
                    size += len(chunk)
            return Member(Path(file.name), size, f"sha256:{digest.hexdigest()}")
        except OSError as error:
            raise SystemFailure(f"cannot store the archive in {self._folder}: {error}") from error

    def take_link(self, member: Member) -> Member:
        """Take another spool's file in, too: it stays when that one goes, and its bytes are not copied."""
        self._count += 1
        path = self._folder / str(self._count)
        try:
            os.link(member.path, path)
        except OSError as error:
            raise SystemFailure(f"cannot make {path}: {error}") from error
        return replace(member, path=path)

    def _new_file(self) -> BinaryIO:
        self._count += 1
        return open(self._folder / str(self._count), "xb", buffering=0)

    def _take(self, entry: Entry, reader: TarReader) -> None:
        name = os.fsdecode(clean_name(entry.name))
        if self._count + len(self._links) >= MEMBER_LIMIT:
            raise TarError(f"more than {MEMBER_LIMIT} members")
        if entry.type == tar.REGULAR and entry.sparse is None:
            blob = _BLOB.match(name)
            stored = self._known(f"sha256:{blob[1]}") if blob else None
            self._members[name] = self._store(entry, reader, stored)
        elif entry.type in (tar.SYMLINK, tar.HARD_LINK):
            # Old versions of docker save wrote a layer once and linked to it; the target is another member
            base = os.path.dirname(name) if entry.type == tar.SYMLINK else ""
            self._links[name] = os.fsdecode(clean_name(os.fsencode(os.path.join(base, os.fsdecode(entry.link)))))

    def _store(self, entry: Entry, reader: TarReader, stored: Path | None) -> Member:
        """Write a member to a file of its own; or see to it that it is what the file `stored` holds, by its name."""
        digest = _Digest(self._hashing)
        if stored is not None:
            for chunk in reader.chunks():
                digest.update(chunk)
            if digest.hexdigest() != stored.name:
                raise TarError(f"blob sha256:{stored.name} is damaged: its bytes are not those of its digest")
            return Member(stored, entry.size, f"sha256:{stored.name}")
        with self._new_file() as file:
            for chunk in reader.chunks():
                self._reserve.spend(len(chunk))
                digest.update(chunk)
                _write(file, chunk)
        return Member(Path(file.name), entry.size, f"sha256:{digest.hexdigest()}")

    def has(self, name: str) -> bool:
        """Return whether the archive has a file of that name."""
        return name in self._members

    def find(self, name: str) -> Member:
        """Return the file that a document of the archive names. Raises InvalidArgument."""
        wanted = name
        for _ in range(_LINKS):
            if wanted in self._members:
                return self._members[wanted]
            if wanted not in self._links:
                break
            wanted = self._links[wanted]
        raise InvalidArgument(f"the archive refers to {name[:200]!r} but does not have it")

    def read(self, name: str, limit: int) -> bytes:
        """Return a small file. Raises InvalidArgument when it is missing or larger than `limit`."""
        member = self.find(name)
        if member.size > limit:
            raise InvalidArgument(f"{name[:200]} has {member.size} bytes; more than {limit} are not accepted")
        return member.path.read_bytes()


def _write(file: BinaryIO, data: bytes | memoryview) -> None:
    """Write all of it: one write(2) may take less, and says no more than that when the disk becomes full within it."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
