"""A tar archive taken apart into temporary files: the order of its members says nothing about what refers to what.

Only regular files and links between them count; the digest of each is computed while it is written. The folder is
private to one load and removed at its end; what a killed process left is removed at the next start.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Member:
    """One file of the archive."""

    path: Path
    size: int
    digest: str


class Spool:
    """A private folder below `root`; a context manager that removes it."""

    def __init__(self, root: Path) -> None:
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
        self.clear()
        os.close(self._root_fd)

    def clear(self, keep: Iterable[Member] = ()) -> None:
        """Remove the files now, but for some: before the disk is told to write everything down."""
        kept = {member.path.name for member in keep}
        if not kept:
            trees.remove(self._root_fd, self._folder.name)
            return
        for path in self._folder.iterdir():
            if path.name not in kept:
                path.unlink()

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
                digest, size = hashlib.sha256(), 0
                while chunk := source.read(CHUNK):
                    self._reserve.spend(len(chunk))
                    digest.update(chunk)
                    file.write(chunk)
                    size += len(chunk)
            return Member(Path(file.name), size, f"sha256:{digest.hexdigest()}")
        except OSError as error:
            raise SystemFailure(f"cannot store the archive in {self._folder}: {error}") from error

    def _new_file(self) -> BinaryIO:
        self._count += 1
        return open(self._folder / str(self._count), "xb", buffering=0)

    def _take(self, entry: Entry, reader: TarReader) -> None:
        name = os.fsdecode(clean_name(entry.name))
        if self._count + len(self._links) >= MEMBER_LIMIT:
            raise TarError(f"more than {MEMBER_LIMIT} members")
        if entry.type == tar.REGULAR and entry.sparse is None:
            with self._new_file() as file:
                digest = hashlib.sha256()
                for chunk in reader.chunks():
                    self._reserve.spend(len(chunk))
                    digest.update(chunk)
                    file.write(chunk)
            self._members[name] = Member(Path(file.name), entry.size, f"sha256:{digest.hexdigest()}")
        elif entry.type in (tar.SYMLINK, tar.HARD_LINK):
            # Old versions of docker save wrote a layer once and linked to it; the target is another member
            base = os.path.dirname(name) if entry.type == tar.SYMLINK else ""
            self._links[name] = os.fsdecode(clean_name(os.fsencode(os.path.join(base, os.fsdecode(entry.link)))))

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
