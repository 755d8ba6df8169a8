"""eStargz: a gzip'ed tar whose parts can be decompressed one by one, with a table of contents. The input is hostile.

    |member: headers up to the data of a|member: a, padding, headers|...|member: the table|footer, 51 bytes|
                                         ^ offset of a                   ^ in the footer

    footer   1f 8b 08 04 ... XLEN=26 "SG" 22 "%016x" offset of the table "STARGZ", then an empty deflate block
    table    a tar whose only file is stargz.index.json: {"version": 1, "entries": [...]}
    entry    what the tar says of a member, and of its data: offset of the gzip member, chunkOffset, chunkSize,
             chunkDigest; a file of several chunks has an entry of type "chunk" for each after the first

The table is the layer author's when its digest is the one that the manifest tells (TOC_DIGEST). It is a promise even
then: what the layer is only its tar says (`difference`). Nor does it tell where in the tar something is: headers have
any length.

https://github.com/containerd/stargz-snapshotter/blob/main/docs/estargz.md
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import msgspec

from wherry.archive import tar
from wherry.archive.compression import CompressionError, decompressed
from wherry.archive.tar import SIZE_LIMIT, Entry, TarError, TarReader, clean_name

TOC_DIGEST = "containerd.io/snapshot/stargz/toc.digest"
"""The annotation of a layer's descriptor."""
FOOTER = 51
TABLE_LIMIT = 16 << 20
"""Compressed bytes; a layer of 60,000 files has some 4 MB."""
JSON_LIMIT = 24 << 20
ENTRIES_LIMIT = 200_000

_FOOTER = re.compile(
    rb"\x1f\x8b\x08\x04.{6}\x1a\x00SG\x16\x00([0-9a-f]{16})STARGZ\x01\x00\x00\xff\xff\x00{8}\Z", re.DOTALL
)
_NAME = b"stargz.index.json"
_PATH = 4096
_SHA256 = re.compile(r"sha256:[0-9a-f]{64}\Z")
_MOST_FROM_A_BYTE = 1032
"""What deflate makes of one byte at most (zlib's technical details)."""
_TYPES = {
    "reg": tar.REGULAR, "dir": tar.DIRECTORY, "symlink": tar.SYMLINK, "hardlink": tar.HARD_LINK,
    "char": tar.CHARACTER, "block": tar.BLOCK_DEVICE, "fifo": tar.FIFO,
}  # fmt: skip
_COMPARED = (
    ("type", "type"), ("size", "size"), ("mode", "mode"), ("uid", "owner"), ("gid", "owner"), ("link", "link"),
    ("device", "device"), ("xattrs", "set of attributes"),
)  # fmt: skip
_SECOND = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_Number = Annotated[int, msgspec.Meta(ge=0, le=SIZE_LIMIT)]


class TocError(ValueError):
    """There is no table of contents, or none that can be right."""


class TocEntry(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """One entry, unchecked but for its types. offset: in the blob; inner_offset: in what that member becomes."""

    name: str
    type: str
    size: _Number = 0
    modtime: str = ""
    link_name: str = ""
    mode: _Number = 0
    uid: _Number = 0
    gid: _Number = 0
    dev_major: _Number = 0
    dev_minor: _Number = 0
    xattrs: dict[str, bytes] | None = None
    offset: _Number = 0
    inner_offset: _Number = 0
    chunk_offset: _Number = 0
    chunk_size: _Number = 0
    chunk_digest: str = ""


class _Table(msgspec.Struct, frozen=True):
    version: int
    entries: list[TocEntry]


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """A piece of a file's data. place: in the file. offset: of its gzip member; inner: in what the member becomes."""

    place: int
    length: int
    digest: str
    offset: int
    inner: int


@dataclass(frozen=True, slots=True)
class TocFile:
    """What the table promises of one member of the tar; the entry's time is in whole seconds."""

    entry: Entry
    chunks: tuple[Chunk, ...]


def table_offset(footer: bytes, size: int) -> int:
    """Return where in a blob of `size` bytes the table begins. footer: its last 51 bytes. Raises TocError."""
    match = _FOOTER.match(footer)
    if not match:
        raise TocError("there is no eStargz footer")
    offset = int(match[1], 16)
    if not offset < size - FOOTER:
        raise TocError(f"the footer points to {offset}, the blob ends at {size}")
    if size - FOOTER - offset > TABLE_LIMIT:
        raise TocError(f"a table of contents of {size - FOOTER - offset} bytes; at most {TABLE_LIMIT} are read")
    return offset


def table(member: bytes, digest: str) -> bytes:
    """Return the JSON of a table of contents, which must have the digest. member: compressed. Raises TocError."""
    try:
        reader = TarReader(decompressed(io.BytesIO(member))[0])
        entry = next(iter(reader), None)
        if entry is None or entry.type != tar.REGULAR or entry.name != _NAME:
            raise TocError(f"no {_NAME.decode()} where the footer points to")
        data = reader.data(JSON_LIMIT)
    except (TarError, CompressionError) as error:
        raise TocError(f"the table of contents cannot be read: {error}") from error
    found = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if found != digest:
        raise TocError(f"the table of contents has the digest {found}, the manifest says {digest[:100]}")
    return data


def promised(data: bytes, end: int) -> Iterator[TocFile]:
    """Yield what a table promises, one value for each member of the tar, in its order. end: where the table begins.

    Raises TocError for what cannot be: names out of the root, data outside of the blob or in two places at once, files
    that are not the sum of their chunks, more data than the blob can become.
    """
    entries = _decoded(data)
    layout = _Layout(end)
    at = 0
    while at < len(entries):
        entry = entries[at]
        at += 1
        if entry.type not in _TYPES:
            raise TocError(f"{_shown(entry)}: an entry of the type {entry.type[:40]!r}")
        first = at - 1
        while at < len(entries) and entries[at].type == "chunk":
            at += 1
        chunks = layout.chunks(entry, entries[first:at])
        yield TocFile(_entry(entry), chunks)


def _decoded(data: bytes) -> list[TocEntry]:
    try:
        found = msgspec.json.decode(data, type=_Table)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise TocError(f"the table of contents is not what it should be: {error}") from error
    if found.version != 1:
        raise TocError(f"a table of contents of version {found.version}; only 1 is known")
    if len(found.entries) > ENTRIES_LIMIT:
        raise TocError(f"a table of contents with {len(found.entries)} entries; at most {ENTRIES_LIMIT} are read")
    return found.entries


def _entry(said: TocEntry) -> Entry:
    """Return the tar's entry that an entry of the table tells of."""
    entry = Entry()
    entry.name = _encoded(said.name)
    try:
        length = len(clean_name(entry.name))
    except TarError as error:
        raise TocError(str(error)) from error
    if length >= _PATH:
        raise TocError(f"a name of {length} bytes: {_shown(said)}...")
    entry.type = _TYPES[said.type]
    entry.size = entry.stored = said.size if entry.type == tar.REGULAR else 0
    entry.mode, entry.uid, entry.gid = said.mode & 0o7777, said.uid, said.gid
    entry.mtime = _nanoseconds(said.modtime)
    entry.link = _encoded(said.link_name)
    entry.device = said.dev_major, said.dev_minor
    entry.xattrs = {_encoded(name): value for name, value in (said.xattrs or {}).items()} or None
    return entry


def _encoded(text: str) -> bytes:
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise TocError(f"a name that is no text: {text[:100]!r}") from error
    if b"\0" in data:
        raise TocError("a name with a NUL byte")
    return data


def _shown(entry: TocEntry) -> str:
    return ascii(entry.name[:100])


class _Layout:
    """Checks where the data of files is: one after the other, as in the tar."""

    def __init__(self, end: int) -> None:
        self._end = end
        self._last = (-1, 0)
        self._left = end * _MOST_FROM_A_BYTE

    def chunks(self, file: TocEntry, entries: list[TocEntry]) -> tuple[Chunk, ...]:
        """Return the chunks of a member whose entries these are. Raises TocError."""
        if file.type != "reg" or not file.size:
            if len(entries) > 1:
                raise TocError(f"{_shown(file)}: chunks of something without data")
            return ()
        done = 0
        found = []
        for number, entry in enumerate(entries):
            last = number == len(entries) - 1
            length = entry.chunk_size or (file.size - done if last else 0)
            if entry.name != file.name or entry.chunk_offset != done or length <= 0 or done + length > file.size:
                raise TocError(f"{_shown(file)}: its chunks are not the file")
            self._take(entry, length)
            found.append(Chunk(done, length, entry.chunk_digest, entry.offset, entry.inner_offset))
            done += length
        if done != file.size:
            raise TocError(f"{_shown(file)}: its chunks have {done} of {file.size} bytes")
        return tuple(found)

    def _take(self, entry: TocEntry, length: int) -> None:
        place = (entry.offset, entry.inner_offset)
        if entry.offset >= self._end:
            raise TocError(f"{_shown(entry)}: data at {entry.offset}, where the blob has none")
        if place <= self._last:
            raise TocError(f"{_shown(entry)}: data at {entry.offset}, which lies in that of another file")
        if not _SHA256.match(entry.chunk_digest):
            raise TocError(f"{_shown(entry)}: a chunk without a digest that can be computed")
        self._last = place
        self._left -= length
        if self._left < 0:
            raise TocError(f"{_shown(entry)}: more data than a blob of {self._end} bytes can become")


def difference(data: bytes, end: int, source: tar.Source) -> str:
    """Return in what a tar is not what its table of contents has promised, first things first; "" when it is.

    Reads the tar until then. Times are compared to the second, which is all that the table has.
    Raises TocError as `promised`, and TarError.
    """
    files = promised(data, end)
    reader = TarReader(source)
    for entry in reader:
        if entry.name == _NAME:
            continue
        file = next(files, None)
        if file is None:
            return f"{_named(entry)} is not in the table"
        wrong = _facts(file.entry, entry) or _data(file, reader)
        if wrong:
            return f"{_named(entry)}: {wrong}"
    missing = next(files, None)
    return f"{_named(missing.entry)} is not in the tar" if missing else ""


def _named(entry: Entry) -> str:
    return ascii(entry.name[:100].decode(errors="replace"))


def _facts(promise: Entry, found: Entry) -> str:
    if clean_name(promise.name) != clean_name(found.name):
        return f"the table has {_named(promise)} in its place"
    if found.sparse is not None:
        return "a sparse file, which no table can tell"
    for name, what in _COMPARED:
        one, other = getattr(promise, name), getattr(found, name)
        if one != other and not (name == "mode" and one == other & 0o7777):
            return f"another {what} than in the table"
    return "" if abs(promise.mtime - found.mtime) <= _SECOND else "another time than in the table"


def _nanoseconds(text: str) -> int:
    """Return an RFC 3339 time in whole seconds as ns; without one that of the zero time."""
    if not text:
        return 0
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise TocError(f"{text[:40]!r} is no time") from error
    return int((moment - _EPOCH).total_seconds()) * _SECOND if moment.tzinfo else 0


def _data(file: TocFile, reader: TarReader) -> str:
    """Compare the data with the digests of the chunks."""
    chunks = iter(file.chunks)
    left, digest, wanted = 0, hashlib.sha256(), ""
    for piece in reader.chunks():
        view = piece
        while view:
            if not left:
                chunk = next(chunks)
                digest, left, wanted = hashlib.sha256(), chunk.length, chunk.digest
            part = view[:left]
            digest.update(part)
            left -= len(part)
            view = view[len(part) :]
            if not left and f"sha256:{digest.hexdigest()}" != wanted:
                return "other data than the table has digests of"
    return ""
