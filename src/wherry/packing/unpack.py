"""From a tar to a directory, by descriptor; the tar is hostile (CVE-2014-9356, 2021-32760, 2025-4517).

- A parent directory is found with the given directory as its root (openat2 RESOLVE_IN_ROOT), so links lead nowhere
  else; the last part of a name is never followed: files are made with O_EXCL after what stood there is unlinked.
- Names are cleaned lexically; one that would leave the root is refused.
- Directories get owner, mode, attributes and times at the end: making entries changes times, and a set-group-ID
  directory would pass its group on.
- trusted.* and user.overlay.* attributes are dropped: they would speak to overlayfs, not to the container.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from wherry.archive import tar
from wherry.archive.tar import Entry, Source, TarError, TarReader, clean_name
from wherry.kernel import pathsafe
from wherry.kernel.const import O_PATH
from wherry.kernel.fsio import trees
from wherry.kernel.fsio.space import Reserve

_CACHED = 128
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NODES = {
    tar.CHARACTER: stat.S_IFCHR,
    tar.BLOCK_DEVICE: stat.S_IFBLK,
    tar.FIFO: stat.S_IFIFO,
}


class KindMismatch(TarError):
    """A file would take the place of a directory, or the other way round, and may not."""


class Unpacker:
    """Unpacks a tar below the directory `root`; `size` is then that of its files.

    owner: whose everything becomes, instead of what the tar says. replace: whether a file may take the place of a
    directory and the other way round; KindMismatch when it would and may not. reserve: whether it stops before the disk
    is full. ids: what a user and a group of the tar are here, when not the same; raises OSError for one that is nothing
    here.
    """

    def __init__(
        self,
        root: int,
        *,
        owner: tuple[int, int] | None = None,
        replace: bool = True,
        reserve: bool = True,
        ids: Callable[[int, int], tuple[int, int]] | None = None,
    ) -> None:
        self.size = 0
        self.inodes = 0
        self._root = root
        self._owner = owner
        self._ids = ids
        self._replace = replace
        self._folders: dict[bytes, int] = {}
        self._ours: set[int] = set()
        """Open directories of group 0, in which a file of root's is root:root without being told."""
        self._late: dict[bytes, tuple[Entry, tuple[int, int]]] = {}
        """Directories that are finished at the end, with their device and inode: somebody may put another one there."""
        self._reserve = Reserve(root) if reserve else None
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
            for path, (entry, made) in self._late.items():
                self._finish_folder(path, entry, made)
        finally:
            for path in list(self._folders):
                self._forget(path)

    def _spend(self, size: int) -> None:
        if self._reserve is not None:
            self._reserve.spend(size)

    def _unpack(self, entry: Entry, reader: TarReader) -> None:
        path = clean_name(entry.name)
        if len(self._folders) > _CACHED:  # between entries: what one entry has opened stays open for it
            for old in list(self._folders)[: _CACHED // 2]:
                self._forget(old)
        try:
            if self._owner is not None:
                entry.uid, entry.gid = self._owner
            if self._ids is not None:
                entry.uid, entry.gid = self._here(entry, self._ids)
            self._take(entry, reader, path)
        except OverflowError as error:
            raise TarError(f"a number that no file can have: {os.fsdecode(entry.name)}: {error}") from error
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            raise OSError(error.errno, f"{os.fsdecode(entry.name)}: {error.strerror}") from error

    def _here(self, entry: Entry, ids: Callable[[int, int], tuple[int, int]]) -> tuple[int, int]:
        try:
            return ids(entry.uid, entry.gid)
        except OSError as error:
            raise TarError(f"{os.fsdecode(entry.name)}: {error.strerror}") from error

    def _take(self, entry: Entry, reader: TarReader, path: bytes) -> None:
        """Take one entry. The root itself stays as it is."""
        if path:
            self._make(entry, reader, path)

    def _make(self, entry: Entry, reader: TarReader, path: bytes) -> None:
        folder, _, name = path.rpartition(b"/")
        parent = self._folders.get(folder) or self._open_folder(folder)
        self._spend(0)
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
                    self._spend(len(chunk))
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
            self._spend(len(chunk))
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
            state = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileExistsError:
            state = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISDIR(state.st_mode):
                if not self._replace:
                    raise KindMismatch(f'cannot overwrite non-directory "{os.fsdecode(path)}" with directory') from None
                self._clear(parent, name, path)
                os.mkdir(name, 0o700, dir_fd=parent)
                self._replaced(path, state)
                state = os.stat(name, dir_fd=parent, follow_symlinks=False)
        self._late[path] = entry, (state.st_dev, state.st_ino)

    def _replaced(self, path: bytes, state: os.stat_result) -> None:
        """A directory stands where something else, of `state`, was."""

    def _make_other(self, entry: Entry, parent: int, name: bytes, path: bytes) -> None:
        try:
            self._make_node(entry, parent, name)
        except FileExistsError:
            self._clear(parent, name, path)
            self._make_node(entry, parent, name)
        if entry.type == tar.HARD_LINK:
            return  # shares owner, mode and times with what it is linked to
        self.size += len(entry.link)
        # By a descriptor: a link that took its place meanwhile could lead to a file of the host
        fd = os.open(name, O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            made = stat.S_IFMT(os.fstat(fd).st_mode)
            if made != _NODES.get(entry.type, stat.S_IFLNK):
                raise OSError(errno.ESTALE, "it was replaced while it was made")
            _dress(f"/proc/self/fd/{fd}", entry)
        finally:
            os.close(fd)

    def _make_node(self, entry: Entry, parent: int, name: bytes) -> None:
        if entry.type == tar.SYMLINK:
            os.symlink(entry.link, name, dir_fd=parent)
        elif entry.type == tar.HARD_LINK:
            folder, _, first = clean_name(entry.link).rpartition(b"/")
            source = self._folders.get(folder) or self._open_folder(folder, make=False)
            os.link(first or b".", name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        elif entry.type in _NODES:
            device = os.makedev(*entry.device)
            os.mknod(name, _NODES[entry.type] | 0o600, device, dir_fd=parent)
        else:
            raise TarError(f"a member of unknown type {chr(entry.type)!r}: {os.fsdecode(name)}")

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
            if not self._replace:
                raise KindMismatch(f'cannot overwrite directory "{os.fsdecode(path)}" with non-directory')
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

    def _finish_folder(self, path: bytes, entry: Entry, made: tuple[int, int]) -> None:
        try:
            fd = pathsafe.openat2(self._root, os.fsdecode(path), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            return  # a later entry took its place
        except OSError as error:
            if error.errno == errno.ELOOP:
                return
            raise
        try:
            found = os.fstat(fd)
            if (found.st_dev, found.st_ino) != made:
                return  # not the one that was made
            _dress(fd, entry)
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


def _dress(target: int | str, entry: Entry) -> None:
    """Give owner, mode, attributes and times. target: a descriptor, or its link in /proc when it is an O_PATH one."""
    os.chown(target, entry.uid, entry.gid)  # first: it clears the set-ID bits and security.capability
    if entry.type != tar.SYMLINK:
        os.chmod(target, entry.mode & 0o7777)
    if entry.xattrs:
        _set_xattrs(target, entry.xattrs)
    os.utime(target, ns=(entry.mtime, entry.mtime))


def _set_xattrs(target: int | str, xattrs: dict[bytes, bytes]) -> None:
    for name, value in xattrs.items():
        if name.startswith((b"trusted.", b"user.overlay.")):
            continue
        try:
            os.setxattr(target, name, value)
        except OSError as error:
            # As Docker: an attribute that this file system or machine does not know is left out.
            if error.errno not in (errno.ENOTSUP, errno.EPERM):
                raise
