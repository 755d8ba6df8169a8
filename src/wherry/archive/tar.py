"""A streaming tar reader for layers, archives and build contexts; the input is hostile.

One entry, in 512-byte blocks (tar(5), POSIX.1-2001 pax):

    0 name[100] mode[8] uid[8] gid[8]  124 size[12] mtime[12]  148 checksum[8]  156 type  157 linkname[100]
    257 magic+version[8]   265 uname[32] gname[32]  329 devmajor[8] devminor[8]  345 prefix[155]

    magic "ustar\\0" "00"   POSIX: prefix is joined before the name
    magic "ustar  \\0"      GNU: prefix holds other things; types L, K (long names) and S (sparse)
    type x                 pax records "LENGTH KEY=VALUE\\n" for the entry that follows; g (global) is ignored, as
                           Docker does

Names, link names and xattr values are bytes: a tar has no encoding. Numbers, records and maps are bounded before they
are parsed (CVE-2017-14992, CVE-2025-58183). Nothing here touches a file system.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Protocol
from zlib import adler32

BLOCK = 512
CHUNK = 1 << 20
SPECIAL_LIMIT = 1 << 20
"""Most bytes of one long name, of one set of pax records, of one sparse map."""
SIZE_LIMIT = 1 << 62

REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0123456"
_OLD_REGULAR, _CONTIGUOUS, _SPARSE = b"\0007S"
_GNU_NAME, _GNU_LINK, _PAX, _PAX_GLOBAL, _SOLARIS_PAX = b"LKxgX"
_ZEROS = bytes(BLOCK)
_SPACES = 8 * ord(" ")


class TarError(ValueError):
    """The input is not a tar that can be trusted; the text says where it stopped making sense."""


class Source(Protocol):
    """What a reader needs of its input."""

    def read(self, size: int, /) -> bytes: ...


class Entry:
    """One member: what the header says of it. `size` is that of the file, `stored` the bytes in the archive."""

    __slots__ = (
        "device", "gid", "link", "mode", "mtime", "name", "size", "sparse", "stored", "type", "uid", "xattrs",
    )  # fmt: skip

    def __init__(self) -> None:
        self.name = b""
        self.type = REGULAR
        self.mode = self.uid = self.gid = self.size = self.stored = self.mtime = 0
        self.link = b""
        self.device = (0, 0)
        self.xattrs: dict[bytes, bytes] | None = None
        self.sparse: list[tuple[int, int]] | None = None


class TarReader:
    """Iterate over the entries; between two steps `chunks` gives the data of the current one."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._buffer = memoryview(b"")
        self._position = 0
        self._left = 0  # unread bytes of the current entry
        self._padding = 0
        self._end = 0  # bytes of the input up to the end of the buffer

    @property
    def offset(self) -> int:
        """Bytes of the archive before what is read next: where the data of an entry begins, before it is read."""
        return self._end - (len(self._buffer) - self._position)

    def drain(self) -> int:
        """Read the input to its end, where one that checks its digest may still refuse it; return its length."""
        while piece := self._source.read(CHUNK):
            self._end += len(piece)
        return self._end

    def _fill(self, size: int) -> bool:
        """Have at least `size` bytes in the buffer; False at a clean end of the input."""
        parts = [self._buffer[self._position :]]
        have = len(parts[0])
        while have < size:
            piece = self._source.read(CHUNK)
            if not piece:
                break
            parts.append(memoryview(piece))
            have += len(piece)
            self._end += len(piece)
        self._buffer = parts[1] if len(parts) == 2 and not parts[0] else memoryview(b"".join(parts))
        self._position = 0
        if have >= size:
            return True
        if have:
            raise TarError("unexpected end of the archive")
        return False

    def _block(self) -> bytes | None:
        if len(self._buffer) - self._position < BLOCK and not self._fill(BLOCK):
            return None
        position = self._position
        self._position = position + BLOCK
        return bytes(self._buffer[position : position + BLOCK])

    def chunks(self) -> Iterator[memoryview]:
        """Yield what is left of the current entry's data; a chunk is valid until the next one."""
        while self._left:
            available = len(self._buffer) - self._position
            if not available:
                if not self._fill(1):
                    raise TarError("unexpected end of the archive in the data of a member")
                continue
            size = min(self._left, available)
            chunk = self._buffer[self._position : self._position + size]
            self._position += size
            self._left -= size
            yield chunk

    def data(self, limit: int) -> bytes:
        """Return the whole data of the current entry; TarError when it is more than `limit`."""
        if self._left > limit:
            raise TarError(f"a member of {self._left} bytes where at most {limit} are allowed")
        return b"".join(self.chunks())

    def _skip(self) -> None:
        rest = self._left + self._padding
        self._left = self._padding = 0
        available = len(self._buffer) - self._position
        while rest > available:
            rest -= available
            self._position = len(self._buffer)
            if not self._fill(1):
                raise TarError("unexpected end of the archive in the data of a member")
            available = len(self._buffer)
        self._position += rest

    def __iter__(self) -> Iterator[Entry]:
        """Yield every member in order. The archive ends at two blocks of zeros, or where the input ends."""
        pax: dict[bytes, bytes] = {}
        long_name = long_link = b""
        while (block := self._next_header()) is not None:
            entry = _parse(block)
            self._left = entry.stored
            self._padding = -entry.stored % BLOCK
            if entry.type in (_PAX, _SOLARIS_PAX):
                pax = _records(self.data(SPECIAL_LIMIT))
            elif entry.type == _GNU_NAME:
                long_name = self.data(SPECIAL_LIMIT).rstrip(b"\0")
            elif entry.type == _GNU_LINK:
                long_link = self.data(SPECIAL_LIMIT).rstrip(b"\0")
            elif entry.type != _PAX_GLOBAL:
                entry.name = long_name or entry.name
                entry.link = long_link or entry.link
                self._complete(entry, block, pax)
                pax, long_name, long_link = {}, b"", b""
                yield entry
            self._skip()

    def _next_header(self) -> bytes | None:
        block = self._block()
        if block == _ZEROS:
            following = self._block()
            if following is not None and following != _ZEROS:
                raise TarError("data after the end mark")
            return None
        return block

    def _complete(self, entry: Entry, block: bytes, pax: dict[bytes, bytes]) -> None:
        """Apply what came before the header and what follows it."""
        if pax:
            _apply(entry, pax)
            self._left = entry.stored
            self._padding = -entry.stored % BLOCK
        if b"\0" in entry.name or b"\0" in entry.link:
            raise TarError("a name with a NUL byte")
        if entry.type == _SPARSE:
            entry.sparse, entry.size = self._old_sparse(block)
        elif entry.type in (REGULAR, _OLD_REGULAR) and pax:
            self._pax_sparse(entry, pax)
        if entry.type in (_OLD_REGULAR, _CONTIGUOUS, _SPARSE):
            entry.type = DIRECTORY if entry.type == _OLD_REGULAR and entry.name.endswith(b"/") else REGULAR
        if entry.type not in (REGULAR,) and not entry.sparse:
            entry.size = 0
        if entry.sparse is not None:
            _check_sparse(entry, self._left)

    def _old_sparse(self, block: bytes) -> tuple[list[tuple[int, int]], int]:
        """GNU type S: four pairs in the header at 386, then blocks of 21 pairs while the flag is set."""
        pairs: list[tuple[int, int]] = []
        size = _number(block[483:495])
        area, count, more = block[386:482], 4, block[482]
        while True:
            for index in range(count):
                offset, length = area[index * 24 : index * 24 + 12], area[index * 24 + 12 : index * 24 + 24]
                if offset[0]:
                    pairs.append((_number(offset), _number(length)))
            if not more:
                return pairs, size
            extension = self._block()
            if extension is None or len(pairs) * 24 > SPECIAL_LIMIT:
                raise TarError("a sparse map without an end")
            area, count, more = extension, 21, extension[504]

    def _pax_sparse(self, entry: Entry, pax: dict[bytes, bytes]) -> None:
        """GNU sparse 0.0 and 0.1 (map in the records), 1.0 (map at the start of the data)."""
        if b"GNU.sparse.name" in pax:
            entry.name = pax[b"GNU.sparse.name"]
        real = pax.get(b"GNU.sparse.realsize", pax.get(b"GNU.sparse.size"))
        if pax.get(b"GNU.sparse.major") == b"1" and pax.get(b"GNU.sparse.minor") == b"0":
            entry.sparse = self._map_in_data()
        elif b"GNU.sparse.map" in pax:
            entry.sparse = _pairs(pax[b"GNU.sparse.map"].split(b","))
        if entry.sparse is not None:
            entry.size = _decimal(real or b"")

    def _map_in_data(self) -> list[tuple[int, int]]:
        read: list[bytes] = []
        lines, wanted = 0, 1
        while lines < wanted:
            if len(read) * BLOCK > SPECIAL_LIMIT or self._left < BLOCK:
                raise TarError("a sparse map without an end")
            read.append(self._block() or b"")
            self._left -= BLOCK
            lines += read[-1].count(b"\n")
            if wanted == 1 and lines:
                wanted = 1 + 2 * _decimal(b"".join(read).partition(b"\n")[0])
        return _pairs(b"".join(read).split(b"\n")[1:wanted])


def clean_name(name: bytes) -> bytes:
    """Return a member's name as a path from the root, without ".", "..", and slashes at either end.

    Raises TarError for one that leads out of the root.
    """
    if b"/." not in name and b"//" not in name and name[:1] not in (b"/", b"."):
        return name.rstrip(b"/")
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                raise TarError(f"a name that leads out of the archive's root: {name.decode(errors='replace')}")
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


def _parse(block: bytes) -> Entry:
    """Return the entry that one header block describes by itself."""
    # The sum of 256 bytes is below adler32's modulus, so its low half is that sum plus one; 10 times faster than sum().
    total = (adler32(block[:256]) & 0xFFFF) + (adler32(block[256:]) & 0xFFFF) - 2
    if total - sum(block[148:156]) + _SPACES != _number(block[148:156]):
        _check_signed(block)
    entry = Entry()
    entry.type = block[156]
    entry.name = block[:100].partition(b"\0")[0]
    entry.mode = _number(block[100:108])
    entry.uid = _number(block[108:116])
    entry.gid = _number(block[116:124])
    entry.stored = entry.size = _number(block[124:136])
    entry.mtime = _number(block[136:148], signed=True) * 1_000_000_000
    if entry.type in (CHARACTER, BLOCK_DEVICE):
        entry.device = (_number(block[329:337]), _number(block[337:345]))
    if entry.type in (HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO):
        entry.stored = 0  # whatever the size says: some writers repeat that of a link's target, as Go's reader knows
        entry.link = block[157:257].partition(b"\0")[0]
    if block[257:263] == b"ustar\0" and block[345]:
        prefix = block[345:476] if block[508:512] == b"tar\0" else block[345:500]
        entry.name = prefix.partition(b"\0")[0] + b"/" + entry.name
    return entry


def _check_signed(block: bytes) -> None:
    """Old archivers summed signed bytes; anything else is no header."""
    counted = block[:148] + b" " * 8 + block[156:]
    signed = sum(byte - 256 if byte > 127 else byte for byte in counted)
    if signed != _number(block[148:156], signed=True):
        raise TarError("invalid tar header")


@lru_cache(maxsize=8192)
def _number(field: bytes, *, signed: bool = False) -> int:
    """Return an octal field, or a base-256 one (first bit set, GNU); bounded by the length of the field."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        if field[0] & 0x40:
            value -= 1 << (8 * len(field) - 1)
    else:
        digits = field.partition(b"\0")[0].strip()
        if not digits:
            return 0
        try:
            value = int(digits, 8)
        except ValueError:
            raise TarError("invalid number in a tar header") from None
    if abs(value) > SIZE_LIMIT or (value < 0 and not signed):
        raise TarError("a number out of range in a tar header")
    return value


def _decimal(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > 19 or (value := int(digits)) > SIZE_LIMIT:
        raise TarError("invalid number in a tar header")
    return value


def _records(data: bytes) -> dict[bytes, bytes]:
    """Parse pax records; the pairs of GNU sparse 0.0, which repeat two keys, become the map of 0.1."""
    records: dict[bytes, bytes] = {}
    pairs: list[bytes] = []
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 20)
        length = _decimal(data[position:space]) if space > 0 else 0
        end = position + length
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not length or end > len(data) or data[end - 1] != 10 or not equals or not key:
            raise TarError("invalid pax record")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            pairs.append(value)
        else:
            records[key] = value
        position = end
    if pairs:
        records[b"GNU.sparse.map"] = b",".join(pairs)
    return records


def _apply(entry: Entry, pax: dict[bytes, bytes]) -> None:
    for key, value in pax.items():
        if key == b"path":
            entry.name = value
        elif key == b"linkpath":
            entry.link = value
        elif key == b"size":
            size = _decimal(value)
            if entry.type not in (HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO):
                entry.size = entry.stored = size
        elif key == b"uid":
            entry.uid = _decimal(value)
        elif key == b"gid":
            entry.gid = _decimal(value)
        elif key == b"mtime":
            entry.mtime = _time(value)
        elif key.startswith(b"SCHILY.xattr."):
            if entry.xattrs is None:
                entry.xattrs = {}
            entry.xattrs[key[13:].replace(b"%3D", b"=").replace(b"%25", b"%")] = value  # as GNU tar writes them


def _time(text: bytes) -> int:
    """Return pax time ("1234.5", "-1.25") in ns; digits beyond the ninth are cut, as the kernel would."""
    whole, _, fraction = text.partition(b".")
    negative = whole.startswith(b"-")
    seconds = _decimal(whole[1:] if negative else whole)
    nanoseconds = _decimal((fraction[:9] or b"0").ljust(9, b"0"))
    if fraction and not fraction.isdigit():
        raise TarError("invalid time in a tar header")
    total = seconds * 1_000_000_000 + nanoseconds
    return -total if negative else total


def _pairs(numbers: list[bytes]) -> list[tuple[int, int]]:
    if len(numbers) % 2:
        raise TarError("invalid sparse map")
    values = [_decimal(number) for number in numbers]
    return list(zip(values[::2], values[1::2], strict=True))


def _check_sparse(entry: Entry, stored: int) -> None:
    """The pieces are in order, inside the file, and together as long as the stored data."""
    end = total = 0
    for offset, length in entry.sparse or ():
        if offset < end or offset + length > entry.size:
            raise TarError("invalid sparse map")
        end = offset + length
        total += length
    if total != stored:
        raise TarError("a sparse map that does not fit the data")
