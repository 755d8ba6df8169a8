"""From a layer's tar to a directory, by descriptor; the tar is hostile (CVE-2014-9356, 2021-32760, 2025-4517).

- A parent directory is found with the layer's root as its root (openat2 RESOLVE_IN_ROOT), so links lead nowhere
  else; the last part of a name is never followed: files are made with O_EXCL after what stood there is unlinked.
- Names are cleaned lexically; one that would leave the root is refused.
- Whiteouts (OCI image spec, "Layer Changes") become what the driver needs, see `Whiteouts`.
- Directories get owner, mode, attributes and times at the end: making entries changes times, and a set-group-ID
  directory would pass its group on.
- trusted.* and user.overlay.* attributes are dropped: they would speak to overlayfs, not to the container.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from wherry.archive import tar
from wherry.archive.tar import Entry, Source, TarError, TarReader, clean_name
from wherry.kernel import pathsafe
from wherry.kernel.const import O_PATH
from wherry.kernel.fsio import trees
from wherry.kernel.fsio.space import Reserve

PREFIX = b".wh."
OPAQUE = b".wh..wh..opq"
_META = b".wh..wh."
_CACHED = 128
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NODES = {
    tar.CHARACTER: stat.S_IFCHR,
    tar.BLOCK_DEVICE: stat.S_IFBLK,
    tar.FIFO: stat.S_IFIFO,
}


class Whiteouts(Protocol):
    """How a driver says that something of the layers below is not there any more."""

    def hide(self, parent: int, path: bytes) -> None:
        """Hide what `path`, whose directory is `parent`, is in the layers below."""
        ...

    def hide_content(self, folder: int, path: bytes) -> None:
        """Hide what the layers below have in the directory `path`, open as `folder`."""
        ...

    def made(self, path: bytes) -> None:
        """Take note that this layer has an entry of its own at `path`."""
        ...


class Unpacker:
    """Unpacks one layer below the directory `root`; `size` is then that of its files."""

    def __init__(self, root: int, whiteouts: Whiteouts) -> None:
        self.size = 0
        self.inodes = 0
        self._root = root
        self._whiteouts = whiteouts
        self._folders: dict[bytes, int] = {}
        self._ours: set[int] = set()
        """Open directories of group 0, in which a file of root's is root:root without being told."""
        self._late: dict[bytes, Entry] = {}
        self._reserve = Reserve(root)
        self._open_mode = ~_umask()

    def run(self, source: Source) -> None:
        """Unpack the tar and read its source to the end, where one that checks its digest may still refuse it.

        Raises TarError for a tar that cannot be right and OSError from the disk.
        """
        reader = TarReader(source)
        try:
            for entry in reader:
                self._unpack(entry, reader)
            while source.read(tar.CHUNK):
                pass
            for path, entry in self._late.items():
                self._finish_folder(path, entry)
        finally:
            for path in list(self._folders):
                self._forget(path)

    def _unpack(self, entry: Entry, reader: TarReader) -> None:
        path = clean_name(entry.name)
        folder, _, name = path.rpartition(b"/")
        if len(self._folders) > _CACHED:  # between entries: what one entry has opened stays open for it
            for old in list(self._folders)[: _CACHED // 2]:
                self._forget(old)
        try:
            if not name:
                self._make_root(entry)
            elif name.startswith(PREFIX):
                self._whiteout(folder, name)
            else:
                self._make(entry, reader, path)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            raise OSError(error.errno, f"{os.fsdecode(entry.name)}: {error.strerror}") from error

    def _make_root(self, entry: Entry) -> None:
        if entry.type != tar.DIRECTORY:
            raise TarError("the root of a layer must be a directory")
        self._late[b""] = entry

    def _make(self, entry: Entry, reader: TarReader, path: bytes) -> None:
        folder, _, name = path.rpartition(b"/")
        parent = self._folders.get(folder) or self._open_folder(folder)
        self._reserve.spend(0)
        if entry.type == tar.CHARACTER and entry.device == (0, 0):
            # overlayfs' own form of a whiteout; Docker keeps it one, so an image that holds one means it
            self._whiteouts.hide(parent, path)
            return
        self._whiteouts.made(path)
        self.inodes += entry.type != tar.HARD_LINK
        if entry.type == tar.REGULAR:
            self._make_file(entry, reader, parent, name, path)
        elif entry.type == tar.DIRECTORY:
            self._make_folder(entry, parent, name, path)
        else:
            self._make_other(entry, parent, name, path)

    def _make_file(self, entry: Entry, reader: TarReader, parent: int, name: bytes, path: bytes) -> None:
        mode = entry.mode & 0o7777
        try:
            fd = os.open(name, _CREATE, mode & 0o777, dir_fd=parent)
        except FileExistsError:
            self._clear(parent, name, path)
            fd = os.open(name, _CREATE, mode & 0o777, dir_fd=parent)
        try:
            if entry.sparse is not None:
                self._write_sparse(fd, entry, reader)
            else:
                for chunk in reader.chunks():
                    self._reserve.spend(len(chunk))
                    _write(fd, chunk)
            if entry.uid or entry.gid or parent not in self._ours:
                os.fchown(fd, entry.uid, entry.gid)
            if mode & self._open_mode != mode or mode & 0o7000:  # chown(2) clears the set-ID bits
                os.fchmod(fd, mode)
            if entry.xattrs:
                _set_xattrs(fd, entry.xattrs)
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(fd)
        self.size += entry.size

    def _write_sparse(self, fd: int, entry: Entry, reader: TarReader) -> None:
        pieces = iter(entry.sparse or ())
        offset = left = 0
        for chunk in reader.chunks():
            self._reserve.spend(len(chunk))
            while chunk:
                while not left:
                    offset, left = next(pieces)
                done = os.pwrite(fd, chunk[:left], offset)
                offset += done
                left -= done
                chunk = chunk[done:]
        os.ftruncate(fd, entry.size)

    def _make_folder(self, entry: Entry, parent: int, name: bytes, path: bytes) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            state = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(state.st_mode):
                hidden = stat.S_ISCHR(state.st_mode) and state.st_rdev == 0
                self._clear(parent, name, path)
                os.mkdir(name, 0o700, dir_fd=parent)
                if hidden:  # removed below and made anew in one layer: what was in it stays removed
                    self._whiteouts.hide_content(self._open_folder(path), path)
        self._late[path] = entry

    def _make_other(self, entry: Entry, parent: int, name: bytes, path: bytes) -> None:
        try:
            self._make_node(entry, parent, name)
        except FileExistsError:
            self._clear(parent, name, path)
            self._make_node(entry, parent, name)
        if entry.type == tar.HARD_LINK:
            return  # shares owner, mode and times with what it is linked to
        self.size += len(entry.link)
        os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        if entry.type != tar.SYMLINK:
            os.chmod(name, entry.mode & 0o7777, dir_fd=parent)
        if entry.xattrs:
            _set_xattrs(f"/proc/self/fd/{parent}/{os.fsdecode(name)}", entry.xattrs)
        os.utime(name, ns=(entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)

    def _make_node(self, entry: Entry, parent: int, name: bytes) -> None:
        if entry.type == tar.SYMLINK:
            os.symlink(entry.link, name, dir_fd=parent)
        elif entry.type == tar.HARD_LINK:
            folder, _, first = clean_name(entry.link).rpartition(b"/")
            if first.startswith(PREFIX):
                raise TarError("a hard link to a whiteout")
            source = self._folders.get(folder) or self._open_folder(folder, make=False)
            os.link(first or b".", name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        elif entry.type in _NODES:
            device = os.makedev(*entry.device)
            os.mknod(name, _NODES[entry.type] | 0o600, device, dir_fd=parent)
        else:
            raise TarError(f"a member of unknown type {chr(entry.type)!r}: {os.fsdecode(name)}")

    def _whiteout(self, folder: bytes, name: bytes) -> None:
        if name == OPAQUE:
            fd = self._folders.get(folder) or self._open_folder(folder)
            self._whiteouts.hide_content(fd, folder)
            return
        if name.startswith(_META):
            return  # AUFS' own files, which old images hold
        hidden = name[len(PREFIX) :]
        if hidden in (b"", b".", b".."):
            raise TarError(f"a whiteout without a name: {os.fsdecode(name)}")
        fd = self._folders.get(folder) or self._open_folder(folder)
        self._reserve.spend(0)
        self._whiteouts.hide(fd, folder + b"/" + hidden if folder else hidden)

    def _open_folder(self, path: bytes, *, make: bool = True) -> int:
        """Return a descriptor of a directory of the layer, kept open until others need its place."""
        if path in self._folders:
            return self._folders[path]
        name = os.fsdecode(path)
        if make:
            fd = pathsafe.make_directories(self._root, name)
        else:
            fd = pathsafe.open_path(self._root, name, directory=True)
        self._folders[path] = fd
        if os.geteuid() == os.getegid() == os.fstat(fd).st_gid == 0:
            self._ours.add(fd)
        return fd

    def _forget(self, path: bytes) -> None:
        fd = self._folders.pop(path)
        self._ours.discard(fd)
        os.close(fd)

    def _clear(self, parent: int, name: bytes, path: bytes) -> None:
        """Make room for an entry where another one stands. What a descriptor was found through may be gone then."""
        state = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(state.st_mode):
            trees.remove(parent, name)
        else:
            os.unlink(name, dir_fd=parent)
        if state.st_nlink == 1 and not stat.S_ISDIR(state.st_mode):
            self.size = max(0, self.size - state.st_size)
        if stat.S_ISDIR(state.st_mode) or stat.S_ISLNK(state.st_mode):
            self._late.pop(path, None)
            stale = [each for each in self._folders if self._folders[each] != parent]
            for each in stale:
                self._forget(each)

    def _finish_folder(self, path: bytes, entry: Entry) -> None:
        try:
            fd = pathsafe.openat2(self._root, os.fsdecode(path), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            return  # a later entry took its place
        except OSError as error:
            if error.errno == errno.ELOOP:
                return
            raise
        try:
            os.fchown(fd, entry.uid, entry.gid)
            os.fchmod(fd, entry.mode & 0o7777)
            if entry.xattrs:
                _set_xattrs(fd, entry.xattrs)
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(fd)


def _umask() -> int:
    """Return this process' umask without changing it, which other threads would see."""
    with open("/proc/self/status", "rb") as status:
        for line in status:
            if line.startswith(b"Umask:"):
                return int(line.split()[1], 8)
    return 0o777


def _write(fd: int, chunk: memoryview) -> None:
    done = os.write(fd, chunk)
    while done < len(chunk):
        done += os.write(fd, chunk[done:])


def _set_xattrs(target: int | str, xattrs: dict[bytes, bytes]) -> None:
    for name, value in xattrs.items():
        if name.startswith((b"trusted.", b"user.overlay.")):
            continue
        try:
            os.setxattr(target, name, value, follow_symlinks=isinstance(target, int))
        except OSError as error:
            # As Docker: an attribute that this file system or machine does not know is left out.
            if error.errno not in (errno.ENOTSUP, errno.EPERM):
                raise


class OverlayWhiteouts:
    """overlayfs' own forms: a character device 0:0, and trusted.overlay.opaque on a directory.

    overlayfs merges the roots of its layers even when one is opaque; an opaque root is therefore spelled out as a
    whiteout for every name in the roots of the layers `below`.
    """

    def __init__(self, below: Callable[[], Iterable[str | Path]]) -> None:
        self._below = below
        self._hidden_root = False

    def hide(self, parent: int, path: bytes) -> None:
        """Put the device there. A directory that this layer has already hides by being opaque, a file by itself."""
        name = path.rpartition(b"/")[2]
        try:
            os.mknod(name, stat.S_IFCHR | 0o600, os.makedev(0, 0), dir_fd=parent)
        except FileExistsError:
            if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                fd = os.open(name, O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)
                try:
                    self.hide_content(fd, path)
                finally:
                    os.close(fd)

    def hide_content(self, folder: int, path: bytes) -> None:
        """Mark the directory."""
        if path:
            os.setxattr(f"/proc/self/fd/{folder}", "trusted.overlay.opaque", b"y")
        elif not self._hidden_root:
            self._hidden_root = True
            for name in {os.fsencode(name) for root in self._below() for name in os.listdir(root)}:
                self.hide(folder, name)

    def made(self, path: bytes) -> None:
        """An entry of the upper layer hides what is below by itself."""


class PlainWhiteouts:
    """For a full copy of the layers below: what is hidden is deleted, unless this layer itself made it."""

    def __init__(self) -> None:
        self._own: set[bytes] = set()
        self._done: set[bytes] = set()

    def made(self, path: bytes) -> None:
        """Remember the entry and the directories above it."""
        while path and path not in self._own:
            self._own.add(path)
            path = path.rpartition(b"/")[0]

    def hide(self, parent: int, path: bytes) -> None:
        """Delete it; of a directory that this layer has too, delete what this layer does not have."""
        name = path.rpartition(b"/")[2]
        if path not in self._own:
            trees.remove(parent, name)
            return
        try:
            fd = os.open(name, O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return
            raise
        try:
            self.hide_content(fd, path)
        finally:
            os.close(fd)

    def hide_content(self, folder: int, path: bytes) -> None:
        """Delete what this layer did not make; each directory once, however often it is asked (CVE-2026-95838)."""
        pending = [b""]
        while pending:
            below = pending.pop()
            whole = b"/".join(part for part in (path, below) if part)
            if whole in self._done:
                continue
            self._done.add(whole)
            pending += [below + b"/" + name if below else name for name in self._prune(folder, below, whole)]

    def _prune(self, folder: int, below: bytes, whole: bytes) -> list[bytes]:
        """Delete in one directory; return its own directories, where there may be more to delete."""
        fd = pathsafe.openat2(folder, os.fsdecode(below), os.O_RDONLY | os.O_DIRECTORY, resolve=pathsafe.BELOW)
        try:
            with os.scandir(fd) as entries:
                found = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]
            kept = []
            for name, is_folder in found:
                if (whole + b"/" + name if whole else name) not in self._own:
                    trees.remove(fd, name)
                elif is_folder:
                    kept.append(name)
            return kept
        finally:
            os.close(fd)
