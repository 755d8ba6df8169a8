"""An exact copy of a tree: content with holes, modes, owners, times to the ns, links, nodes, extended attributes.

The source must not change meanwhile and its paths must be shorter than PATH_MAX; both hold for committed layers. The
target may be in a container's hands: it can spoil the copy, but what is outside of the target is never touched.
"""

from __future__ import annotations

import errno
import os
import stat

from wherry.kernel.const import O_PATH, RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS
from wherry.kernel.fsio.holes import extents
from wherry.kernel.fsio.space import Reserve
from wherry.kernel.fsio.trees import PATH_MAX, Folder, walk
from wherry.kernel.pathsafe import openat2

_INSIDE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE = 1 << 30


def copy_tree(source: int, target: int, *, reserve: bool = True) -> None:
    """Copy everything below the directory `source` into the empty directory `target`, attributes of the root too.

    Both are ordinary (not O_PATH) descriptors. reserve: leave some room, as on the disk that the engine lives on.
    Raises OSError: ENOSPC also when the reserve would be touched.
    """
    _Copy(source, target, Reserve(target) if reserve else None).run()


def copy_attributes(source: int, target: int) -> None:
    """Give a file or directory the owner, mode, extended attributes and times of another. Raises OSError."""
    _copy_attributes(source, target, os.fstat(source))


class _Copy:
    def __init__(self, source: int, target: int, reserve: Reserve | None) -> None:
        self._source = source
        self._target = target
        self._reserve = reserve
        self._linked: dict[int, str] = {}
        self._folders: list[str] = [""]
        self._folder: Folder | None = None
        self._from = self._to = -1

    def run(self) -> None:
        try:
            for folder, entry in walk(self._source):
                self._enter(folder)
                self._copy(folder, entry.name, entry.stat(follow_symlinks=False))
        finally:
            self._leave()
        for path in reversed(self._folders):  # last, for making entries changes the times of a directory
            self._finish_folder(path)

    def _enter(self, folder: Folder) -> None:
        if folder is self._folder:
            return
        self._leave()
        path = folder.path()
        self._from = openat2(self._source, path, O_PATH | os.O_DIRECTORY, resolve=_INSIDE)
        self._to = openat2(self._target, path, O_PATH | os.O_DIRECTORY, resolve=_INSIDE)
        self._folder = folder

    def _leave(self) -> None:
        self._folder = None
        for fd in (self._from, self._to):
            if fd >= 0:
                os.close(fd)
        self._from = self._to = -1

    def _copy(self, folder: Folder, name: str, state: os.stat_result) -> None:
        path = f"{folder.path()}/{name}".lstrip("/")
        if len(os.fsencode(path)) >= PATH_MAX:
            raise OSError(errno.ENAMETOOLONG, "nested too deep to be copied", path)
        if self._reserve is not None:
            self._reserve.spend(state.st_blocks * 512)
        kind = stat.S_IFMT(state.st_mode)
        if kind == stat.S_IFDIR:
            os.mkdir(name, 0o700, dir_fd=self._to)
            self._folders.append(path)
            return
        if state.st_nlink > 1:
            first = self._linked.setdefault(state.st_ino, path)
            if first is not path:
                self._link(first, name)
                return
        if kind == stat.S_IFREG:
            self._copy_file(name, state)
        else:
            self._copy_node(name, state, kind)

    def _link(self, first: str, name: str) -> None:
        folder, _, base = first.rpartition("/")
        source = openat2(self._target, folder, O_PATH | os.O_DIRECTORY, resolve=_INSIDE)
        try:
            os.link(base, name, src_dir_fd=source, dst_dir_fd=self._to, follow_symlinks=False)
        finally:
            os.close(source)

    def _copy_file(self, name: str, state: os.stat_result) -> None:
        source = os.open(name, _READ, dir_fd=self._from)
        try:
            target = os.open(name, _MAKE, 0o600, dir_fd=self._to)
            try:
                _copy_content(source, target, state)
                _copy_attributes(source, target, state)
            finally:
                os.close(target)
        finally:
            os.close(source)

    def _copy_node(self, name: str, state: os.stat_result, kind: int) -> None:
        if kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=self._from), name, dir_fd=self._to)
        else:
            os.mknod(name, kind | 0o600, state.st_rdev, dir_fd=self._to)
        os.chown(name, state.st_uid, state.st_gid, dir_fd=self._to, follow_symlinks=False)
        if kind != stat.S_IFLNK:
            _change_mode(self._to, name, stat.S_IMODE(state.st_mode))
        # there is no setxattrat(2) before 6.13; the descriptor's own magic link leads to the directory itself
        _copy_xattrs(f"/proc/self/fd/{self._from}/{name}", f"/proc/self/fd/{self._to}/{name}")
        times = (state.st_atime_ns, state.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=self._to, follow_symlinks=False)

    def _finish_folder(self, path: str) -> None:
        source = openat2(self._source, path, os.O_RDONLY | os.O_DIRECTORY, resolve=_INSIDE)
        try:
            target = openat2(self._target, path, os.O_RDONLY | os.O_DIRECTORY, resolve=_INSIDE)
            try:
                _copy_attributes(source, target, os.fstat(source))
            finally:
                os.close(target)
        finally:
            os.close(source)


def _change_mode(folder: int, name: str, mode: int) -> None:
    """chmod(2) of what is there, never through a link: there is no fchmodat2(2) before 6.6."""
    node = os.open(name, O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        if not stat.S_ISLNK(os.fstat(node).st_mode):
            os.chmod(f"/proc/self/fd/{node}", mode)
    finally:
        os.close(node)


def _copy_content(source: int, target: int, state: os.stat_result) -> None:
    """Copy the data between the holes; copy_file_range(2) shares where it can."""
    for start, length in extents(source, state.st_size):
        end = start + length
        while start < end:
            done = _copy_piece(source, target, start, min(end - start, _PIECE))
            if not done:
                raise OSError(errno.EIO, "copy_file_range: the source became shorter")
            start += done
    os.ftruncate(target, state.st_size)


def _copy_piece(source: int, target: int, start: int, size: int) -> int:
    """Copy some bytes to the same place. Between file systems of different types copy_file_range(2) refuses (5.19)."""
    try:
        return os.copy_file_range(source, target, size, start, start)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL):
            raise
    os.lseek(target, start, os.SEEK_SET)
    return os.sendfile(target, source, start, size)


def _copy_xattrs(source: int | str, target: int | str) -> None:
    follow = isinstance(source, int)
    for name in os.listxattr(source, follow_symlinks=follow):
        value = os.getxattr(source, name, follow_symlinks=follow)
        try:
            os.setxattr(target, name, value, follow_symlinks=follow)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:  # a target without extended attributes, such as NFS
                raise


def _copy_attributes(source: int, target: int, state: os.stat_result) -> None:
    """Owner first: chown(2) clears the set-user-ID bit and security.capability."""
    os.fchown(target, state.st_uid, state.st_gid)
    os.fchmod(target, stat.S_IMODE(state.st_mode))
    _copy_xattrs(source, target)
    os.utime(target, ns=(state.st_atime_ns, state.st_mtime_ns))
