"""From a layer's tar to an EROFS file system that has no data of its own: its files are where the tar has them.

Every entry becomes an inode at once, written to the end of the index; only directories wait, since what is in them
is not known before the end. A node, what a name stands for until then, is a number: the nid of an inode, or the number
of a directory, and in the last three bits the type. What is removed from the layers below becomes what overlayfs
understands: a character device 0:0, of which a layer has one with many names, and an attribute on a directory.

The tree is what `packing.layers` makes of the same tar on a disk: links in the middle of a name are followed with the
layer as the root, a later entry takes the place of an earlier one, parents that are missing are made.
"""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from wherry.archive import tar
from wherry.archive.tar import Entry, Source, TarError, TarReader, clean_name
from wherry.packing.layers import OPAQUE, PREFIX, is_meta
from wherry.snapshots.erofs import data
from wherry.snapshots.erofs import format as erofs
from wherry.snapshots.erofs.folders import Folder, Folders
from wherry.snapshots.erofs.output import Output

_PATH = 4096
_LINKS = 40
_KNOWN = 1024
_OWNER = 0xFFFFFFFF
_KIND = 7
_ABOVE = (stat.S_IFDIR | 0o755, 0, 0)
_OVERLAY_OPAQUE = {b"trusted.overlay.opaque": b"y"}
_NODES = {
    tar.SYMLINK: (stat.S_IFLNK, erofs.SYMLINK),
    tar.CHARACTER: (stat.S_IFCHR, erofs.CHARACTER),
    tar.BLOCK_DEVICE: (stat.S_IFBLK, erofs.BLOCK_DEVICE),
    tar.FIFO: (stat.S_IFIFO, erofs.FIFO),
}
Attributes = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Below:
    """What an index has to know of the layers below. root: mode and owner of a root that the layer says nothing of.

    names: what is in their roots, which overlayfs shows even when the root of this layer is opaque.
    """

    root: tuple[int, int, int]
    names: Callable[[], Iterable[bytes]]


class Layer:
    """One layer on its way into an index. size: of its files; inodes: how many entries are one."""

    def __init__(self, fd: int, folder: str, below: Below) -> None:
        """fd: of the empty index. folder: where temporary files may be."""
        self.size = 0
        self.inodes = 0
        self.root: Attributes = (stat.S_IFDIR | below.root[0], *below.root[1:], 0)
        self._below = below
        self._output = Output(fd, erofs.ROOM)
        self._folders = Folders(folder)
        self._known: dict[bytes, int] = {}
        self._whiteout = 0
        self._folders.make(0, self.root)

    def run(self, source: Source, *, uuid: bytes, tag: bytes) -> None:
        """Read the tar to its end and write the index. tag: names the tar, for people.

        Raises TarError for a tar that cannot be right, and OSError from the disk.
        """
        reader = TarReader(source)
        with self._folders:
            for entry in reader:
                self._take(entry, reader)
            length = reader.drain()
            if length >= erofs.MOST_BLOCKS * erofs.BLOCK:
                raise TarError(f"a layer of {length} bytes")
            self._finish(uuid, tag, length >> erofs.BLOCK_BITS)

    # Entries

    def _take(self, entry: Entry, reader: TarReader) -> None:
        path = clean_name(entry.name)
        if len(path) >= _PATH:
            raise TarError(f"a name of {len(path)} bytes: {path[:100].decode(errors='replace')}...")
        folder, _, name = path.rpartition(b"/")
        if not name:
            self._make_root(entry)
        elif name.startswith(PREFIX):
            self._remove(folder, name, entry)
        elif entry.type == tar.CHARACTER and entry.device == (0, 0):
            self._hide(self._enter(folder, entry.mtime), name)
        else:
            self._make(entry, reader, self._enter(folder, entry.mtime), name)

    def _make_root(self, entry: Entry) -> None:
        if entry.type != tar.DIRECTORY:
            raise TarError("the root of a layer must be a directory")
        root = self._folders.get(0)
        root.attributes = self.root = _attributes(entry, stat.S_IFDIR)
        root.xattrs = _xattrs(entry)

    def _make(self, entry: Entry, reader: TarReader, parent: Folder, name: bytes) -> None:
        if len(name) > erofs.NAME:
            raise TarError(f"a name of {len(name)} bytes: {name[:100].decode(errors='replace')}...")
        self.inodes += entry.type != tar.HARD_LINK
        if entry.type == tar.REGULAR:
            node = self._file(entry, reader)
            self.size += entry.size
        elif entry.type == tar.DIRECTORY:
            self._make_folder(entry, parent, name)
            return
        elif entry.type == tar.HARD_LINK:
            node = self._link(entry, parent, name)
            parent = self._folders.get(parent.number)
        else:
            node = self._other(entry)
            self.size += len(entry.link)
        self._put(parent, name, node)

    def _put(self, parent: Folder, name: bytes, node: int) -> None:
        """Give a name to a node, instead of what had the name before."""
        before = parent.names.get(name)
        parent.names[name] = node
        if before is None:
            self._folders.grown()
        else:
            self._drop(before)

    def _drop(self, node: int) -> None:
        """Take note that a node has a name less. A directory that cannot be reached is left out at the end."""
        kind = node & _KIND
        if kind in (erofs.DIRECTORY, erofs.SYMLINK):
            self._known.clear()
        if kind == erofs.DIRECTORY:
            return
        size, nlink = self._size(node), self._count(node, -1)
        if not nlink:
            self.size = max(0, self.size - size)

    def _size(self, node: int) -> int:
        return int.from_bytes(self._output.read(_place(node) + erofs.SIZE_OFFSET, 8), "little")

    def _count(self, node: int, more: int) -> int:
        """Return how many names an inode has with `more`."""
        place = _place(node) + erofs.NLINK_OFFSET
        nlink = int.from_bytes(self._output.read(place, 4), "little") + more
        self._output.change(place, nlink.to_bytes(4, "little"))
        return nlink

    def _make_folder(self, entry: Entry, parent: Folder, name: bytes) -> None:
        attributes, xattrs = _attributes(entry, stat.S_IFDIR), _xattrs(entry)
        before = parent.names.get(name, 0)
        if before & _KIND == erofs.DIRECTORY:
            folder = self._folders.get(before >> 3)
            folder.attributes = attributes
        else:
            folder = self._new_folder(parent, name, attributes)
            # Removed below and made anew in one layer: what was in it stays removed
            folder.opaque = bool(before) and before == self._whiteout
        folder.xattrs = xattrs

    def _new_folder(self, parent: Folder, name: bytes, attributes: Attributes) -> Folder:
        self._put(parent, name, len(self._folders) << 3 | erofs.DIRECTORY)
        return self._folders.make(parent.number, attributes)

    # Inodes

    def _inode(self, layout: int, size: int, place: int, attributes: Attributes, xattrs: bytes = b"") -> int:
        """Write an inode; return its nid."""
        made = erofs.inode(layout, size, place, attributes, xattrs=len(xattrs))
        return self._output.append(made + xattrs) // erofs.SLOT

    def _file(self, entry: Entry, reader: TarReader) -> int:
        attributes, xattrs = _attributes(entry, stat.S_IFREG), erofs_xattrs(_xattrs(entry))
        form, indexes, layout = 0, b"", erofs.FLAT
        if entry.size:
            layout = erofs.CHUNKED
            if entry.sparse is None:
                form, indexes = data.whole(entry.size, reader.offset)
            else:
                form, indexes = data.sparse(entry.size, entry.sparse, reader, self._output)
        self._output.align(erofs.SLOT)
        nid = self._inode(layout, entry.size, form, attributes, xattrs)
        if indexes:
            self._output.align(8)
            self._output.append(indexes)
        return nid << 3 | erofs.REGULAR

    def _other(self, entry: Entry) -> int:
        if entry.type not in _NODES:
            raise TarError(f"a member of unknown type {chr(entry.type)!r}: {os.fsdecode(entry.name)}")
        mode, kind = _NODES[entry.type]
        attributes, xattrs = _attributes(entry, mode), erofs_xattrs(_xattrs(entry))
        if kind == erofs.SYMLINK:
            return self._symlink(entry.link, attributes, xattrs) << 3 | kind
        try:
            number = erofs.device_number(*entry.device)
        except ValueError as error:
            raise TarError(str(error)) from error
        self._output.align(erofs.SLOT)
        return self._inode(erofs.FLAT, 0, number, attributes, xattrs) << 3 | kind

    def _symlink(self, target: bytes, attributes: Attributes, xattrs: bytes) -> int:
        """Write a link; its target lies behind the inode when it fits into one block there."""
        if not 0 < len(target) < _PATH:
            raise TarError(f"a symbolic link to {len(target)} bytes")
        start = self._output.align(erofs.SLOT)
        for _ in range(erofs.BLOCK // erofs.SLOT):
            if (start + erofs.INODE + len(xattrs)) % erofs.BLOCK + len(target) <= erofs.BLOCK:
                self._output.append(bytes(start - self._output.size))
                nid = self._inode(erofs.INLINE, len(target), 0, attributes, xattrs)
                self._output.append(target)
                return nid
            start += erofs.SLOT
        place = self._output.align(erofs.BLOCK)
        self._output.append(target)
        self._output.align(erofs.BLOCK)
        return self._inode(erofs.FLAT, len(target), place >> erofs.BLOCK_BITS, attributes, xattrs)

    def _target(self, node: int) -> bytes:
        """Return where a symbolic link leads."""
        place, size = _place(node), self._size(node)
        head = self._output.read(place, erofs.INODE)
        if head[0] >> 1 & _KIND == erofs.INLINE:
            count = int.from_bytes(head[2:4], "little")
            return self._output.read(place + erofs.INODE + (12 + 4 * (count - 1) if count else 0), size)
        block = int.from_bytes(head[erofs.PLACE_OFFSET : erofs.PLACE_OFFSET + 4], "little")
        return self._output.read(block << erofs.BLOCK_BITS, size)

    def _link(self, entry: Entry, parent: Folder, name: bytes) -> int:
        """Return the node that a hard link leads to, with one name more."""
        above, _, last = clean_name(entry.link).rpartition(b"/")
        if last.startswith(PREFIX):
            raise TarError("a hard link to a whiteout")
        folder = self._enter(above)
        node = folder.names.get(last) if last else None
        itself = folder.number == parent.number and last == name
        if node is None or node == self._whiteout or node & _KIND == erofs.DIRECTORY or itself:
            raise TarError(f"a hard link to what is no file of the layer: {os.fsdecode(entry.link[:200])}")
        self._count(node, 1)
        return node

    # Directories

    def _enter(self, path: bytes, made: int | None = None) -> Folder:
        """Return the directory `path`. made: when those that are missing were last changed, None to refuse them."""
        number = self._known.get(path)
        if number is not None:
            return self._folders.get(number)
        folder = self._walk(path, made)
        if len(self._known) >= _KNOWN:
            self._known.clear()
        self._known[path] = folder.number
        return folder

    def _walk(self, path: bytes, made: int | None) -> Folder:
        waiting = path.split(b"/")[::-1]
        folder, links = self._folders.get(0), 0
        while waiting:
            part = waiting.pop()
            if part == b"..":
                folder = self._folders.get(folder.parent)
            if part in (b"", b".", b".."):
                continue
            node = folder.names.get(part)
            if node is None and made is not None and len(part) <= erofs.NAME:
                folder = self._new_folder(folder, part, (*_ABOVE, made))
            elif node is not None and node & _KIND == erofs.DIRECTORY:
                folder = self._folders.get(node >> 3)
            elif node is not None and node & _KIND == erofs.SYMLINK and links < _LINKS:
                links += 1
                target = self._target(node)
                waiting += target.split(b"/")[::-1]
                folder = self._folders.get(0) if target.startswith(b"/") else folder
            else:
                why = "there is none" if node is None else "it is none" if links < _LINKS else "too many links"
                raise TarError(f"no directory {os.fsdecode(path[:200])}, at {os.fsdecode(part[:255])}: {why}")
        return folder

    # What is removed

    def _remove(self, folder: bytes, name: bytes, entry: Entry) -> None:
        if name == OPAQUE:
            self._hide_content(self._enter(folder, entry.mtime))
            return
        if is_meta(name):
            return  # AUFS' own files, which old images hold
        hidden = name[len(PREFIX) :]
        if hidden in (b"", b".", b".."):
            raise TarError(f"a whiteout without a name: {os.fsdecode(name)}")
        self._hide(self._enter(folder, entry.mtime), hidden)

    def _hide(self, folder: Folder, name: bytes) -> None:
        """Hide what the layers below have. What this layer has there hides it already; a directory by being opaque."""
        node = folder.names.get(name)
        if node is None and not self._whiteout:
            self._put(folder, name, self._make_whiteout())
        elif node is None:
            self._count(self._whiteout, 1)
            self._put(folder, name, self._whiteout)
        elif node & _KIND == erofs.DIRECTORY:
            self._hide_content(self._folders.get(node >> 3))

    def _make_whiteout(self) -> int:
        self._output.align(erofs.SLOT)
        nid = self._inode(erofs.FLAT, 0, 0, (stat.S_IFCHR | 0o600, 0, 0, 0))
        self._whiteout = nid << 3 | erofs.CHARACTER
        return self._whiteout

    def _hide_content(self, folder: Folder) -> None:
        if folder.number:
            folder.opaque = True
        elif not folder.opaque:
            folder.opaque = True
            for name in set(self._below.names()):
                self._hide(self._folders.get(0), name)

    # The end

    def _finish(self, uuid: bytes, tag: bytes, tar_blocks: int) -> None:
        """Write the directories, and what says where everything is."""
        nids = array("Q", bytes(8 * len(self._folders)))
        waiting = [0]
        while waiting:
            folder = self._folders.get(waiting.pop())
            nids[folder.number] = self._folder_inode(folder)
            waiting += [node >> 3 for node in folder.names.values() if node & _KIND == erofs.DIRECTORY]
        for number, nid in enumerate(nids):
            if nid:
                self._fill(self._folders.get(number), nids)
        self._output.finish(4096)
        blocks = self._output.size >> erofs.BLOCK_BITS
        if blocks >= erofs.MOST_BLOCKS:
            raise TarError("a layer whose sparse files are too large together")
        inodes = self.inodes + len(self._folders)  # at most: those that were made unasked are not among the first
        head = erofs.head(blocks=blocks, inodes=inodes, root=nids[0], uuid=uuid, tar_blocks=tar_blocks, tag=tag)
        self._output.change(erofs.SUPERBLOCK, head)

    def _folder_inode(self, folder: Folder) -> int:
        """Write the inode of a directory, whose size and place come later."""
        is_root = not folder.number
        opaque = _OVERLAY_OPAQUE if folder.opaque and not is_root else {}
        xattrs = erofs_xattrs(folder.xattrs | opaque)
        made = erofs.inode(erofs.FLAT, 0, 0, folder.attributes, nlink=2, xattrs=len(xattrs)) + xattrs
        if not is_root:
            self._output.align(erofs.SLOT)
            return self._output.append(made) // erofs.SLOT
        if len(made) > erofs.ROOM - erofs.ROOT:
            raise TarError(f"{len(xattrs)} bytes of extended attributes of the root")
        self._output.change(erofs.ROOT, made)
        return erofs.ROOT // erofs.SLOT

    def _fill(self, folder: Folder, nids: array[int]) -> None:
        """Write what is in a directory: one block after the other, since it may be a million names."""
        names = folder.names
        nlink = 2 + sum(node & _KIND == erofs.DIRECTORY for node in names.values())
        own = {b".": folder.number << 3 | erofs.DIRECTORY, b"..": folder.parent << 3 | erofs.DIRECTORY}
        entries = (
            (name, nids[node >> 3] if node & _KIND == erofs.DIRECTORY else node >> 3, node & _KIND)
            for name in sorted([*names, *own])
            for node in (own.get(name) or names[name],)
        )
        place = nids[folder.number] * erofs.SLOT
        start = self._output.align(erofs.BLOCK)
        for block in erofs.directory(entries):
            self._output.align(erofs.BLOCK)
            self._output.append(block)
        size = self._output.size - start
        self._output.change(place + erofs.SIZE_OFFSET, size.to_bytes(8, "little"))
        self._output.change(place + erofs.PLACE_OFFSET, (start >> erofs.BLOCK_BITS).to_bytes(4, "little"))
        self._output.change(place + erofs.NLINK_OFFSET, nlink.to_bytes(4, "little"))


def _place(node: int) -> int:
    return (node >> 3) * erofs.SLOT


def _attributes(entry: Entry, kind: int) -> Attributes:
    """Return what an inode says. Raises TarError for an owner that no process can be."""
    if entry.uid >= _OWNER or entry.gid >= _OWNER:
        raise TarError(f"an owner {entry.uid}:{entry.gid}: {os.fsdecode(entry.name[:200])}")
    mode = 0o777 if kind == stat.S_IFLNK else entry.mode & 0o7777
    return kind | mode, entry.uid, entry.gid, entry.mtime


def _xattrs(entry: Entry) -> dict[bytes, bytes]:
    """Return the attributes that a file of this kind can have; others would be left out on a disk too, xattr(7)."""
    found = {}
    for name, value in (entry.xattrs or {}).items():
        if name.startswith(b"security."):
            found[name] = value
        elif entry.type == tar.SYMLINK or name.startswith(b"user.overlay."):
            continue
        elif name == b"system.posix_acl_access" or (
            entry.type == tar.DIRECTORY and name == b"system.posix_acl_default"
        ) or (name.startswith(b"user.") and entry.type in (tar.REGULAR, tar.DIRECTORY)):
            found[name] = value
    return found


def erofs_xattrs(values: dict[bytes, bytes]) -> bytes:
    """Return attributes in their form on the disk. Raises TarError."""
    try:
        return erofs.xattrs(values)
    except ValueError as error:
        raise TarError(str(error)) from error
