"""The on-disk format of EROFS, as far as an index of a tar needs it. Pure: values in, bytes out.

    0      zeros
    1024   superblock (128)
    1152   the table of further devices: one slot (128), the tar
    1536   the root's inode and attributes, up to ROOM
    ROOM   inodes, each with its attributes and what says where its data is; then the blocks of directories

An inode's number, its *nid*, is its offset in units of 32 bytes; the root's has 16 bits only, so it has a place of its
own. A block has 512 bytes, as in a tar: so a file's data can be where the archive has it. A file is made of *chunks* of
one size, a power of two; an index of 8 bytes for each says on which device and at which block it begins, or that it is
a hole. The whole of a file that a tar has in one piece is one chunk.

linux: fs/erofs/erofs_fs.h; Documentation/filesystems/erofs.rst; https://erofs.docs.kernel.org/en/latest/core_ondisk.html
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping

BLOCK_BITS = 9
BLOCK = 1 << BLOCK_BITS
SUPERBLOCK = 1024
ROOT = 1536
ROOM = 64 << 10
SLOT = 32
INODE = 64
MOST_BLOCKS = 1 << 32
NAME = 255

FLAT, INLINE, CHUNKED = 0, 2, 4
"""Where an inode's data is: blocks from one on, right behind the inode, or chunks."""

REGULAR, DIRECTORY, CHARACTER, BLOCK_DEVICE, FIFO, SOCKET, SYMLINK = range(1, 8)
"""What a directory says of a name."""

HOLE = struct.pack("<HHI", 0, 0, 0xFFFFFFFF)
LARGEST_CHUNK = 40
"""Bits of the size of a chunk: five bits say how many more than those of a block."""

_MAGIC = 0xE0F5E1E2
_CHECKSUM = 1  # the compatible feature
_CHUNKS_AND_DEVICES = 4 | 8  # the incompatible ones
_EXTENDED = 1
_INDEXES = 0x20
_XATTRS = ((b"user.", 1), (b"system.posix_acl_access", 2), (b"system.posix_acl_default", 3), (b"trusted.", 4),
           (b"security.", 6))  # fmt: skip
_XATTR_HEADER = 12
_INDEX = struct.Struct("<HHI")
_INODE = struct.Struct("<HHHHQIIIIqII16x")
_DIRENT = struct.Struct("<QHBx")
_TABLE = SUPERBLOCK + 128
TABLE_END = _TABLE + 128
_SUPERBLOCK = struct.Struct("<IIIBBHQQIIII16s16sIHHHBBIQB3xIQ8x")
_DEVICE = struct.Struct("<64sII56x")


def inode(
    layout: int, size: int, place: int, attributes: tuple[int, int, int, int], *, nlink: int = 1, xattrs: int = 0
) -> bytes:
    """Return an inode. size: in bytes. place: the first block, the device number, or the form of the chunks.

    attributes: st_mode, uid, gid, and the time of the last change in ns. xattrs: bytes of attributes behind it.
    """
    mode, uid, gid, mtime = attributes
    seconds, nanoseconds = divmod(mtime, 1_000_000_000)
    count = (xattrs - _XATTR_HEADER) // 4 + 1 if xattrs else 0
    return _INODE.pack(
        layout << 1 | _EXTENDED, count, mode, 0, size, place, 0, uid, gid, seconds, nanoseconds, nlink
    )  # fmt: skip


NLINK_OFFSET = 44
SIZE_OFFSET = 8
PLACE_OFFSET = 16


def chunk_form(bits: int) -> int:
    """Return what an inode says of its chunks. bits: log2 of their size."""
    return _INDEXES | (bits - BLOCK_BITS)


def index(device: int, block: int) -> bytes:
    """Return the index of one chunk. device: 0 for this file, 1 for the tar."""
    return _INDEX.pack(0, device, block)


def indexes(device: int, block: int, count: int, bits: int) -> bytes:
    """Return the indexes of `count` chunks that follow each other."""
    if count == 1:
        return _INDEX.pack(0, device, block)
    step = 1 << (bits - BLOCK_BITS)
    return b"".join(_INDEX.pack(0, device, block + number * step) for number in range(count))


def device_number(major: int, minor: int) -> int:
    """Return a device number as inodes hold it, new_encode_dev() of linux/kdev_t.h. Raises ValueError."""
    if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
        raise ValueError(f"no device has the number {major}:{minor}")
    return minor & 0xFF | major << 8 | (minor & ~0xFF) << 12


def xattrs(values: Mapping[bytes, bytes]) -> bytes:
    """Return the attributes as they lie behind an inode, b"" for none. Raises ValueError for one that has no form."""
    if not values:
        return b""
    parts = [bytes(_XATTR_HEADER)]
    for name, value in values.items():
        prefix, number = next(((each, number) for each, number in _XATTRS if name.startswith(each)), (b"", 0))
        rest = name[len(prefix) :]
        if not number or len(name) > NAME or len(value) > 0xFFFF or bool(rest) != prefix.endswith(b"."):
            raise ValueError(f"an extended attribute that no file can have: {name[:300]!r} of {len(value)} bytes")
        entry = struct.pack("<BBH", len(rest), number, len(value)) + rest + value
        parts.append(entry + bytes(-len(entry) % 4))
    data = b"".join(parts)
    if len(data) > _XATTR_HEADER + 4 * 0xFFFE:
        raise ValueError(f"{len(data)} bytes of extended attributes")
    return data


def directory(entries: Iterable[tuple[bytes, int, int]]) -> Iterator[bytes]:
    """Yield what is in the blocks of a directory, at most BLOCK bytes each.

    entries: (name, nid, type), sorted by name, with "." and "..".
    """
    group: list[tuple[bytes, int, int]] = []
    used = 0
    for each in entries:
        need = _DIRENT.size + len(each[0])
        if used + need > BLOCK:
            yield _directory_block(group)
            group, used = [], 0
        group.append(each)
        used += need
    yield _directory_block(group)


def _directory_block(group: list[tuple[bytes, int, int]]) -> bytes:
    offset = _DIRENT.size * len(group)
    parts = []
    for name, nid, kind in group:
        parts.append(_DIRENT.pack(nid, offset, kind))
        offset += len(name)
    return b"".join([*parts, *[name for name, _, _ in group]])


def head(*, blocks: int, inodes: int, root: int, uuid: bytes, tar_blocks: int, tag: bytes) -> bytes:
    """Return superblock and device table, from SUPERBLOCK on. blocks: of this file. tag: names the tar."""

    def pack(checksum: int) -> bytes:
        return _SUPERBLOCK.pack(
            _MAGIC, checksum, _CHECKSUM, BLOCK_BITS, 0, root, inodes, 0, 0, blocks, 0, 0, uuid, b"wherry-layer",
            _CHUNKS_AND_DEVICES, 0, 1, _TABLE // _DEVICE.size, 0, 0, 0, 0, 0, 0, 0,
        )  # fmt: skip

    table = _DEVICE.pack(tag[:64], tar_blocks, 0)
    covered = (pack(0) + table).ljust(BLOCK, b"\0")
    return pack(_crc32c(covered)) + table


def tar_length(head: bytes) -> int:
    """Return how many bytes of the tar an index uses. head: its first TABLE_END bytes."""
    return int.from_bytes(head[_TABLE + 64 : _TABLE + 68].ljust(4, b"\xff"), "little") << BLOCK_BITS


def _crc32c(data: bytes) -> int:
    """Castagnoli's CRC without the inversion at its end, as EROFS has it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc
