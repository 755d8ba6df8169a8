"""Writes the headers of a tar: POSIX ustar, with pax records for what does not fit (POSIX.1-2001, tar(5)).

A pax record is "LENGTH KEY=VALUE\\n"; names and extended attributes (SCHILY.xattr.NAME) are bytes in it, as in `tar`,
the reader. Nothing here touches a file system.
"""

from __future__ import annotations

from zlib import adler32

from wherry.archive.tar import BLOCK, BLOCK_DEVICE, CHARACTER, DIRECTORY, HARD_LINK, REGULAR, SYMLINK, Entry

END = bytes(2 * BLOCK)
"""What ends an archive."""

_NAME, _PREFIX, _ID, _SIZE, _TIME = 100, 155, 8**7, 8**11, 8**11
_PAX = ord("x")
_SECOND = 1_000_000_000
_TAIL = b"ustar\00000" + bytes(64)  # magic, version, no user and group names: they mean nothing elsewhere


def header(entry: Entry) -> bytes:
    """Return the blocks that go before the data of an entry, of which `size` bytes, padded, must follow.

    A directory's name gets its slash. mtime is written to the ns when it is not whole seconds. Of a file with holes
    (`entry.sparse`) its map goes before the data too, which is then that of the pieces alone.
    """
    name = entry.name
    if entry.type == DIRECTORY and not name.endswith(b"/"):
        name += b"/"
    records = []
    pieces = b""
    if entry.sparse is not None:
        pieces = _map(entry)
        records += [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0")]
        records += [(b"GNU.sparse.name", name), (b"GNU.sparse.realsize", b"%d" % entry.size)]
        name = b"GNUSparseFile.0/" + name.rpartition(b"/")[2]  # of what does not know of holes, which sees the map
    stored = _stored(entry, len(pieces))
    prefix, short = _split(name)
    if short is None:
        records.append((b"path", name))
        short = name[:_NAME]
    if len(entry.link) > _NAME or not entry.link.isascii():
        records.append((b"linkpath", entry.link))
    for field, number, limit in (("uid", entry.uid, _ID), ("gid", entry.gid, _ID), ("size", stored, _SIZE)):
        if number >= limit:
            records.append((field.encode(), b"%d" % number))
    if entry.mtime % _SECOND or not 0 <= entry.mtime // _SECOND < _TIME:
        records.append((b"mtime", _time(entry.mtime)))
    records += [(b"SCHILY.xattr." + _key(key), value) for key, value in (entry.xattrs or {}).items()]
    block = _block(entry, short, prefix, stored) + pieces
    return _pax(records, name) + block if records else block


def padding(size: int) -> bytes:
    """Return what fills the last block of `size` bytes of data."""
    return bytes(-size % BLOCK)


def _stored(entry: Entry, pieces: int) -> int:
    if entry.sparse is not None:
        return pieces + sum(length for _, length in entry.sparse)
    return entry.size if entry.type == REGULAR else 0


def _map(entry: Entry) -> bytes:
    """Return the map of what is no hole, GNU's format 1.0: numbers in lines, filled up to whole blocks."""
    pieces = list(entry.sparse or ())
    if not pieces or sum(pieces[-1]) < entry.size:
        pieces.append((entry.size, 0))  # GNU tar makes a file no longer than its last piece
    text = b"%d\n" % len(pieces) + b"".join(b"%d\n%d\n" % each for each in pieces)
    return text + padding(len(text))


def _split(name: bytes) -> tuple[bytes, bytes | None]:
    """Return (prefix, name) of the header, name None when it takes a pax record."""
    if not name.isascii():
        return b"", None
    if len(name) <= _NAME:
        return b"", name
    cut = name.find(b"/", len(name) - _NAME - 1)
    if 0 < cut <= _PREFIX and cut < len(name) - 1:
        return name[:cut], name[cut + 1 :]
    return b"", None


def _time(nanoseconds: int) -> bytes:
    sign = b"-" if nanoseconds < 0 else b""
    whole, fraction = divmod(abs(nanoseconds), _SECOND)
    return b"%b%d.%09d" % (sign, whole, fraction) if fraction else b"%b%d" % (sign, whole)


def _key(name: bytes) -> bytes:
    """Return the name of an attribute as GNU tar writes it, since a record's key ends at its first "="."""
    return name.replace(b"%", b"%25").replace(b"=", b"%3D")


def _record(key: bytes, value: bytes) -> bytes:
    """A record's length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def _pax(records: list[tuple[bytes, bytes]], name: bytes) -> bytes:
    data = b"".join(_record(key, value) for key, value in records)
    announced = Entry()
    announced.type = _PAX
    announced.mode = 0o644
    label = b"PaxHeaders.0/" + name.rstrip(b"/").rpartition(b"/")[2]
    return _block(announced, label[:_NAME], b"", len(data)) + data + padding(len(data))


def _block(entry: Entry, name: bytes, prefix: bytes, size: int) -> bytes:
    seconds = entry.mtime // _SECOND
    link = entry.link[:_NAME] if entry.type in (SYMLINK, HARD_LINK) else b""
    major, minor = entry.device if entry.type in (CHARACTER, BLOCK_DEVICE) else (0, 0)
    before = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0" % (
        name.ljust(_NAME, b"\0"),
        entry.mode & 0o7777,
        _fit(entry.uid, _ID),
        _fit(entry.gid, _ID),
        _fit(size, _SIZE),
        _fit(seconds, _TIME),
    )
    after = b"%c%b%b%07o\0%07o\0%b" % (
        entry.type,
        link.ljust(_NAME, b"\0"),
        _TAIL,
        major,
        minor,
        prefix.ljust(_PREFIX + 12, b"\0"),
    )
    return b"%b%06o\0 %b" % (before, _sum(before) + _sum(after) + 8 * ord(" "), after)


def _fit(value: int, limit: int) -> int:
    """What does not fit stands in a pax record, and counts from there."""
    return value if 0 <= value < limit else 0


def _sum(data: bytes) -> int:
    """The sum of at most 256 bytes: adler32's low half, less one; see `tar._parse`."""
    half = 256
    return (adler32(data[:half]) & 0xFFFF) - 1 + ((adler32(data[half:]) & 0xFFFF) - 1 if len(data) > half else 0)
