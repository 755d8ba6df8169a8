"""A reader of EROFS for tests, written after the format's description only; it believes nothing that it reads.

It walks the whole tree and raises Wrong for what a kernel should not have to see: an offset out of a file, names out of
order, counts that are not right.
"""

from __future__ import annotations

import stat
import struct
from dataclasses import dataclass, field
from pathlib import Path

BLOCK = 512


class Wrong(AssertionError):
    """The index breaks a rule."""


def need(holds: object, rule: str) -> None:
    if not holds:
        raise Wrong(rule)


@dataclass
class Inode:
    nid: int
    layout: int
    mode: int
    size: int
    place: int
    uid: int
    gid: int
    mtime: int
    nlink: int
    xattrs: dict[bytes, bytes]
    tail: int
    """Where what follows inode and attributes begins."""


@dataclass
class Image:
    """An index and its tar."""

    index: bytes
    tar_size: int
    inodes: dict[int, Inode] = field(default_factory=dict)
    names: dict[int, int] = field(default_factory=dict)

    def check(self) -> dict[bytes, Inode]:
        """Return every path with its inode."""
        fields = struct.unpack_from("<IIIBBHQQIIII16s16sIHHHB", self.index, 1024)
        magic, checksum, compat, bits, slots, root, _, _, _, blocks, meta, *_, incompat, _, devices, table, _ = fields
        need((magic, compat, bits, slots, incompat) == (0xE0F5E1E2, 1, 9, 0, 12), "a superblock of this kind")
        covered = bytearray(self.index[1024:1536])
        covered[4:8] = bytes(4)
        need(crc32c(bytes(covered)) == checksum, "the checksum")
        need(blocks * BLOCK == len(self.index), "the size of the file")
        need((meta, devices, table * 128) == (0, 1, 1152), "one further device")
        self.tar_blocks = struct.unpack_from("<I", self.index, 1152 + 64)[0]
        need(self.tar_blocks * BLOCK <= self.tar_size, "a device within the tar")
        found: dict[bytes, Inode] = {b"": self.inode(root)}
        self.folder(b"", root, root, found)
        for nid, inode in self.inodes.items():
            if not stat.S_ISDIR(inode.mode):
                need(inode.nlink >= self.names[nid], f"{inode.nlink} links for {self.names[nid]} names")
        return found

    def bytes_at(self, offset: int, size: int) -> bytes:
        need(offset >= 0 and offset + size <= len(self.index), f"{size} bytes at {offset} of the index")
        return self.index[offset : offset + size]

    def inode(self, nid: int) -> Inode:
        if nid in self.inodes:
            return self.inodes[nid]
        offset = nid * 32
        form, count, mode, _, size, place, _, uid, gid, seconds, nanoseconds, nlink = struct.unpack(
            "<HHHHQIIIIqII", self.bytes_at(offset, 48)
        )
        need(form & 1 and form >> 1 in (0, 2, 4) and nanoseconds < 10**9, "an inode")
        length = 12 + 4 * (count - 1) if count else 0
        xattrs = self.xattrs(self.bytes_at(offset + 64, length)) if count else {}
        made = Inode(nid, form >> 1, mode, size, place, uid, gid, seconds * 10**9 + nanoseconds, nlink, xattrs,
                     offset + 64 + length)  # fmt: skip
        self.inodes[nid] = made
        if stat.S_ISREG(mode):
            self.file(made)
        elif stat.S_ISLNK(mode):
            self.target(made)
        return made

    def xattrs(self, body: bytes) -> dict[bytes, bytes]:
        acl = b"system.posix_acl_"
        prefixes = {1: b"user.", 2: acl + b"access", 3: acl + b"default", 4: b"trusted.", 6: b"security."}
        need(body[:12] == bytes(12), "no shared attributes")
        found, at = {}, 12
        while at < len(body):
            length, kind, size = struct.unpack_from("<BBH", body, at)
            need(at + 4 + length + size <= len(body), "an attribute within its inode")
            name = prefixes[kind] + body[at + 4 : at + 4 + length]
            found[name] = body[at + 4 + length : at + 4 + length + size]
            at += (4 + length + size + 3) // 4 * 4
        need(at == len(body), "attributes that fill their room")
        return found

    def extents(self, inode: Inode) -> list[tuple[int, int, int, int]]:
        """(place in the file, length, device, offset there) of every piece of data."""
        if inode.layout == 0:
            need(inode.size == 0, "no plain data of files")
            return []
        need(inode.place & ~0x3F == 0 and inode.place & 0x20, "a form of chunks")
        bits = 9 + (inode.place & 0x1F)
        at = (inode.tail + 7) // 8 * 8
        found = []
        for number in range((inode.size + (1 << bits) - 1) >> bits):
            zero, device, block = struct.unpack("<HHI", self.bytes_at(at + 8 * number, 8))
            need(zero == 0 and device in (0, 1), "an index")
            length = min(1 << bits, inode.size - (number << bits))
            if block != 0xFFFFFFFF:
                found.append((number << bits, length, device, block * BLOCK))
        return found

    def file(self, inode: Inode) -> None:
        need(inode.layout in (0, 4), "a file of chunks")
        for _, length, device, offset in self.extents(inode):
            limit = self.tar_blocks * BLOCK if device else len(self.index)
            need(offset + (length + BLOCK - 1) // BLOCK * BLOCK <= limit, "data within its device")
            need(device or offset >= 64 << 10, "data that is no metadata")

    def target(self, inode: Inode) -> bytes:
        if inode.layout == 2:
            need(inode.tail % BLOCK + inode.size <= BLOCK, "inline data in one block")
            return self.bytes_at(inode.tail, inode.size)
        return self.bytes_at(inode.place * BLOCK, inode.size)

    def folder(self, path: bytes, nid: int, parent: int, found: dict[bytes, Inode]) -> None:
        waiting = [(path, nid, parent)]
        while waiting:
            path, nid, parent = waiting.pop()
            inode = self.inode(nid)
            need(stat.S_ISDIR(inode.mode) and inode.layout == 0 and inode.size, "a directory")
            entries = self.entries(inode)
            names = [name for name, _, _ in entries]
            need(names == sorted(set(names)), "names in order")
            own = dict((name, child) for name, child, _ in entries)
            need((own.pop(b"."), own.pop(b"..")) == (nid, parent), "a directory's own names")
            folders = 0
            for name, child, kind in entries:
                if name in (b".", b".."):
                    continue
                below = self.inode(child)
                need(kind == KINDS[stat.S_IFMT(below.mode)], "the type of a name")
                self.names[child] = self.names.get(child, 0) + 1
                whole = path + b"/" + name if path else name
                found[whole] = below
                if stat.S_ISDIR(below.mode):
                    folders += 1
                    need(self.names[child] == 1, "one name of a directory")
                    waiting.append((whole, child, nid))
            need(inode.nlink == 2 + folders, "the links of a directory")

    def entries(self, inode: Inode) -> list[tuple[bytes, int, int]]:
        found = []
        for start in range(0, inode.size, BLOCK):
            block = self.bytes_at(inode.place * BLOCK + start, min(BLOCK, inode.size - start))
            first = struct.unpack_from("<QH", block)[1]
            need(first and first % 12 == 0 and first <= len(block), "the first name of a block")
            heads = [struct.unpack_from("<QHBB", block, at) for at in range(0, first, 12)]
            ends = [head[1] for head in heads[1:]] + [len(block)]
            for (child, offset, kind, _), end in zip(heads, ends, strict=True):
                need(first <= offset < end <= len(block), "a name within its block")
                name = block[offset:end].split(b"\0")[0]
                need(0 < len(name) < 256 and b"/" not in name, "a name")
                found.append((name, child, kind))
        return found


KINDS = {stat.S_IFREG: 1, stat.S_IFDIR: 2, stat.S_IFCHR: 3, stat.S_IFBLK: 4, stat.S_IFIFO: 5, stat.S_IFLNK: 7}


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ 0x82F63B78 if crc & 1 else crc >> 1
    return crc


def load(folder: Path) -> Image:
    """Read the index of a layer's folder."""
    return Image((folder / "index").read_bytes(), (folder / "tar").stat().st_size)
