"""From files to a tar, by descriptor, as chunks of bytes. The tree may be in use, and what changes it may be hostile.

Directories are opened from the root anew without following a link, files through a descriptor that was looked at first,
so that nothing but regular files is ever opened for reading: a device could do something, a FIFO would block. A file
that becomes shorter while it is read is filled up with zeros, one that grows is cut: the header has been sent.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple, Protocol

from wherry.archive import tar, writer
from wherry.archive.tar import Entry
from wherry.kernel.const import O_PATH, RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS
from wherry.kernel.fsio.holes import extents
from wherry.kernel.pathsafe import openat2

CHUNK = 256 << 10
"""Bytes that are collected before they are handed on."""

PIECE = 1 << 20
"""Most bytes of a file that are read at once."""

OPEN = 32
"""Levels of a walk that are held open; of what is above, directories are opened anew by their path."""

PATH_MAX = 4096

LONGEST_MAP = tar.SPECIAL_LIMIT - 4096
"""Bytes of the map of a file with holes; the smallest holes are packed as zeros when it would be longer. Readers keep
it in memory, and our own no more of it."""

_SECOND = 1_000_000_000
_INSIDE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK = O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_TYPES = {
    stat.S_IFREG: tar.REGULAR,
    stat.S_IFDIR: tar.DIRECTORY,
    stat.S_IFLNK: tar.SYMLINK,
    stat.S_IFCHR: tar.CHARACTER,
    stat.S_IFBLK: tar.BLOCK_DEVICE,
    stat.S_IFIFO: tar.FIFO,
}
_FOREIGN = (b"trusted.", b"user.overlay.", b"security.selinux", b"security.ima", b"security.evm", b"security.apparmor",
            b"system.nfs4_", b"system.cifs_", b"system.smb3_")  # fmt: skip
"""Extended attributes that speak to this machine; the others go along: file capabilities, ACLs, the user's own."""


class Ledger(Protocol):
    """Looks on while a tree is packed, and decides what goes along: for backups."""

    def begin(self, entry: Entry, state: os.stat_result, path: str) -> bool:
        """Take note of a file; whether it is packed. path: where it can be opened. A directory is in any case."""
        ...

    def feed(self, piece: bytes) -> None:
        """Take note of the next piece of the content that is packed."""
        ...

    def hole(self, size: int) -> None:
        """Take note of so many bytes that are zeros, and not in the archive."""
        ...

    def end(self) -> None:
        """The file that was begun is complete, or not packed."""
        ...


class Packer:
    """Packs what lies below the directory `root`, each thing under a name of the caller's.

    owner: what a user and a group are called in the tar, when not as here.

    Times are whole seconds, as in Docker's tars, but to the ns when there is a ledger, and files keep their holes then
    (GNU's sparse format 1.0); sockets are left out, as no tar can hold one. Hard links between packed files stay links.
    The methods yield chunks of the archive and raise OSError;
    `end` gives the last ones.
    """

    def __init__(
        self,
        root: int,
        ledger: Ledger | None = None,
        *,
        owner: Callable[[int, int], tuple[int, int]] | None = None,
    ) -> None:
        self._ledger = ledger
        self._root = root
        self._owner = owner
        self._buffer = bytearray()
        self._links: dict[tuple[int, int], bytes] = {}

    def tree(self, path: str, name: bytes, *, itself: bool = True) -> Iterator[bytes]:
        """Pack the directory `path`, "" for the root, and all below it as `name`; or only what is below."""
        levels = _Levels(self._root)
        try:
            if not levels.enter(path, name):
                return
            if itself:
                self._add_folder(levels.folder(), name)
            while (child := levels.next()) is not None:
                yield from self._pack(child)
                if child.is_folder and levels.enter(child.path, child.name):
                    self._add_folder(levels.folder(), child.name)
                if len(self._buffer) >= CHUNK:
                    yield self._flush()
        finally:
            levels.close()

    def one(self, path: str, name: bytes) -> Iterator[bytes]:
        """Pack what `path` is as `name`: a directory without what is in it, a link as itself."""
        above, _, last = path.rpartition("/")
        levels = _Levels(self._root)
        try:
            if not levels.enter(above, b"", only=last):
                return
            child = levels.next()
            if child is not None:
                yield from self._pack(child._replace(name=name))
                if child.is_folder and levels.enter(child.path, name):
                    self._add_folder(levels.folder(), name)
            if len(self._buffer) >= CHUNK:
                yield self._flush()
        finally:
            levels.close()

    def mark(self, name: bytes) -> None:
        """Add an empty file that is not there: a whiteout."""
        entry = Entry()
        entry.name = name
        self._buffer += writer.header(entry)

    def add(self, name: bytes, size: int, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Add a file that is not there, of these pieces, `size` bytes in all."""
        entry = Entry()
        entry.name, entry.mode, entry.size = name, 0o600, size
        self._buffer += writer.header(entry)
        for piece in pieces:
            self._buffer += piece
            if len(self._buffer) >= CHUNK:
                yield self._flush()
        self._buffer += writer.padding(size)

    def end(self) -> Iterator[bytes]:
        """End the archive."""
        self._buffer += writer.END
        yield self._flush()

    def _flush(self) -> bytes:
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    def _add_folder(self, folder: int, name: bytes) -> None:
        state = os.fstat(folder)
        entry = self._entry(state, name)
        entry.xattrs = _xattrs(folder)
        if self._ledger is not None:
            self._ledger.begin(entry, state, "")
            self._ledger.end()
        self._buffer += writer.header(entry)

    def _entry(self, state: os.stat_result, name: bytes) -> Entry:
        entry = _entry(state, name)
        if self._owner is not None:
            entry.uid, entry.gid = self._owner(entry.uid, entry.gid)
        if self._ledger is not None:
            entry.mtime = state.st_mtime_ns
        return entry

    def _pack(self, child: _Child) -> Iterator[bytes]:
        """Pack what is no directory."""
        if child.is_folder:
            return
        try:
            fd = os.open(child.base, _LOOK, dir_fd=child.parent)
        except OSError as error:
            if error.errno in _GONE:
                return
            raise
        try:
            state = os.fstat(fd)
            kind = stat.S_IFMT(state.st_mode)
            if kind not in _TYPES or kind == stat.S_IFDIR:  # a socket; a directory that was a file a moment ago
                return
            entry = self._entry(state, child.name)
            itself = f"/proc/self/fd/{fd}"
            if self._is_linked(entry, state):
                if self._ledger is not None:
                    self._ledger.begin(entry, state, itself)
                    self._ledger.end()
                self._buffer += writer.header(entry)
                return
            if kind == stat.S_IFLNK:
                entry.link = os.readlink(b"", dir_fd=fd)  # of the link itself: readlinkat(2), since 2.6.39
            entry.xattrs = _xattrs(itself)
            if self._ledger is not None and not self._ledger.begin(entry, state, itself):
                self._ledger.end()
                return
            if self._ledger is not None and kind == stat.S_IFREG and state.st_blocks * 512 < state.st_size:
                entry.sparse = _pieces(itself, state.st_size)
            self._buffer += writer.header(entry)
            if state.st_size and kind == stat.S_IFREG:
                yield from self._data(itself, state.st_size, entry.sparse)
            if self._ledger is not None:
                self._ledger.end()
        finally:
            os.close(fd)

    def _is_linked(self, entry: Entry, state: os.stat_result) -> bool:
        if state.st_nlink < 2:
            return False
        first = self._links.setdefault((state.st_dev, state.st_ino), entry.name)
        if first is entry.name:
            return False
        entry.type, entry.link, entry.size = tar.HARD_LINK, first, 0
        return True

    def _data(self, path: str, size: int, pieces: list[tuple[int, int]] | None) -> Iterator[bytes]:
        """Pack the content of a file, or only those pieces of it: (offset, length)."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        packed = position = 0
        try:
            for start, length in [(0, size)] if pieces is None else pieces:
                self._hole(start - position)
                os.lseek(fd, start, os.SEEK_SET)
                left = length
                while left:
                    piece = os.read(fd, min(left, PIECE))
                    if not piece:
                        piece = bytes(min(left, PIECE))
                    left -= len(piece)
                    if self._ledger is not None:
                        self._ledger.feed(piece)
                    self._buffer += piece
                    if len(self._buffer) >= CHUNK:
                        yield self._flush()
                position = start + length
                packed += length
        finally:
            os.close(fd)
        self._hole(size - position)
        self._buffer += writer.padding(packed)

    def _hole(self, size: int) -> None:
        if size and self._ledger is not None:
            self._ledger.hole(size)


class _Child(NamedTuple):
    """One name in an open directory. path: from the root. name: in the archive."""

    parent: int
    base: str
    path: str
    name: bytes
    is_folder: bool


class _Level:
    """A directory of the walk; fd is -1 while deeper ones need the descriptors."""

    __slots__ = ("fd", "name", "names", "path")

    def __init__(self, fd: int, path: str, name: bytes, names: Iterator[str]) -> None:
        self.fd = fd
        self.path = path
        self.name = name
        self.names = names


class _Levels:
    """The directories from the start of a walk to where it is, the last OPEN of them open."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._levels: list[_Level] = []

    def enter(self, path: str, name: bytes, *, only: str = "") -> bool:
        """Go into a directory, to walk all its names or `only` one; False when it is not there any more."""
        fd = self._open(path)
        if fd < 0:
            return False
        try:
            names = [only] if only else sorted(os.listdir(fd))
        except BaseException:
            os.close(fd)
            raise
        self._levels.append(_Level(fd, path, name, iter(names)))
        if len(self._levels) > OPEN:
            above = self._levels[-1 - OPEN]
            if above.fd >= 0:
                os.close(above.fd)
                above.fd = -1
        return True

    def _open(self, path: str) -> int:
        if len(os.fsencode(path)) >= PATH_MAX:
            raise OSError(errno.ENAMETOOLONG, "nested too deep to be packed", f"{path[:100]}...")
        try:
            return openat2(self._root, path or ".", _FOLDER, resolve=_INSIDE)
        except OSError as error:
            if error.errno in _GONE:
                return -1
            raise

    def folder(self) -> int:
        """Return the descriptor of the directory last entered."""
        return self._levels[-1].fd

    def next(self) -> _Child | None:
        """Return what comes next, leaving directories that are done; None at the end."""
        while self._levels:
            level = self._levels[-1]
            for base in level.names:
                if level.fd < 0 and (fd := self._open(level.path)) >= 0:
                    level.fd = fd
                kind = _kind(level.fd, base) if level.fd >= 0 else 0
                if kind:
                    path = f"{level.path}/{base}" if level.path else base
                    return _Child(level.fd, base, path, _join(level.name, os.fsencode(base)), kind == stat.S_IFDIR)
            self._leave()
        return None

    def _leave(self) -> None:
        level = self._levels.pop()
        if level.fd >= 0:
            os.close(level.fd)

    def close(self) -> None:
        """Close what is open."""
        while self._levels:
            self._leave()


def _kind(folder: int, base: str) -> int:
    """Return S_IFMT of a name, 0 when it is gone."""
    try:
        return stat.S_IFMT(os.stat(base, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return 0


def _join(name: bytes, base: bytes) -> bytes:
    return name + base if not name or name.endswith(b"/") else name + b"/" + base


def _entry(state: os.stat_result, name: bytes) -> Entry:
    entry = Entry()
    entry.name = name
    entry.type = _TYPES[stat.S_IFMT(state.st_mode)]
    entry.mode = stat.S_IMODE(state.st_mode)
    entry.uid, entry.gid = state.st_uid, state.st_gid
    entry.mtime = state.st_mtime_ns // _SECOND * _SECOND
    if entry.type == tar.REGULAR:
        entry.size = state.st_size
    elif entry.type in (tar.CHARACTER, tar.BLOCK_DEVICE):
        entry.device = (os.major(state.st_rdev), os.minor(state.st_rdev))
    return entry


def _pieces(path: str, size: int) -> list[tuple[int, int]]:
    """Return what is data in a file, as (offset, length), with some holes filled when there are too many."""
    most = LONGEST_MAP // (2 * len(str(size)) + 2)
    found: list[tuple[int, int]] = []
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for each in extents(fd, size):
            found.append(each)
            if len(found) > most:
                found = _coarser(found)
    finally:
        os.close(fd)
    return found


def _coarser(pieces: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return half as many pieces, which have the smaller holes filled."""
    holes = sorted((after[0] - sum(before), after[0]) for before, after in pairwise(pieces))
    filled = {start for _, start in holes[: len(holes) // 2]}
    found: list[tuple[int, int]] = []
    for start, length in pieces:
        first = found.pop()[0] if start in filled else start
        found.append((first, start + length - first))
    return found


def _xattrs(target: int | str) -> dict[bytes, bytes] | None:
    try:
        names = os.listxattr(target)
    except OSError as error:
        if error.errno in (errno.ENOTSUP, *_GONE):
            return None
        raise
    found = {}
    for name in map(os.fsencode, names):
        if name.startswith(_FOREIGN):
            continue
        try:
            found[name] = os.getxattr(target, name)
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.ENOTSUP):
                raise
    return found or None
