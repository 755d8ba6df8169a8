"""Whole directory trees by descriptor: removing, measuring and copying what a container may have made hostile.

Nothing here follows a link, recurses deeper than `DEEP`, or opens anything but directories and regular files. Nothing
is removed from what is mounted in a tree: it is somebody's, and lies elsewhere.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from wherry.kernel.const import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV
from wherry.kernel.pathsafe import openat2

DEEP = 100
PATH_MAX = 4096
_INSIDE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
_SAME_MOUNT = RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def remove(parent: int, name: str | bytes) -> None:
    """Remove `name` in the directory `parent`, whatever it is; nothing there is no error, nor is a second remover.

    Directories nested deeper than DEEP are moved up next to `name` first, so neither descriptors nor the stack run
    out. The caller keeps others from adding to the tree. Raises OSError: EXDEV when something is mounted in it.
    """
    name = os.fsencode(name)
    if not _unlink(parent, name, unknown=True):
        return
    pending = [name]
    serial = 0
    while pending:
        current = pending.pop()
        serial += 1
        moved: list[bytes] = []
        _empty(parent, current, DEEP, _Aside(parent, b"%s.%d" % (name, serial), moved))
        _rmdir(parent, current)
        pending += moved


@dataclass(slots=True)
class _Aside:
    """Where directories go that are too deep."""

    parent: int
    prefix: bytes
    names: list[bytes]

    def take(self, folder: int, name: bytes) -> None:
        target = b"%s.%d" % (self.prefix, len(self.names))
        os.rename(name, target, src_dir_fd=folder, dst_dir_fd=self.parent)
        self.names.append(target)


def _unlink(folder: int, name: bytes, *, unknown: bool = False) -> bool:
    """Unlink; return whether it is still there because it is a directory."""
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return False
    except IsADirectoryError:
        if unknown:
            return True
        raise
    return False


def _rmdir(folder: int, name: bytes) -> None:
    try:
        os.rmdir(name, dir_fd=folder)
    except FileNotFoundError:
        return


def _empty(parent: int, name: bytes, levels: int, aside: _Aside) -> None:
    """Remove everything in a directory."""
    try:
        fd = openat2(parent, os.fsdecode(name), _DIRECTORY, resolve=_SAME_MOUNT)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        raise OSError(errno.EXDEV, "something is mounted there", os.fsdecode(name)) from error
    try:
        with os.scandir(fd) as entries:
            found = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]
        for child, is_directory in found:
            if not is_directory:
                _unlink(fd, child)
            elif levels:
                _empty(fd, child, levels - 1, aside)
                _rmdir(fd, child)
            else:
                aside.take(fd, child)
    finally:
        os.close(fd)


def measure(root: int) -> tuple[int, int]:
    """Return the bytes (apparent sizes, a hard-linked file once, directories 0) and the inodes below `root`.

    What vanishes meanwhile, and what lies deeper than a path can say, is not counted. Raises OSError.
    """
    size = count = 0
    linked: set[int] = set()
    for _, entry in walk(root):
        try:
            state = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        if state.st_nlink > 1 and not stat.S_ISDIR(state.st_mode):
            if state.st_ino in linked:
                continue
            linked.add(state.st_ino)
        count += 1
        if not stat.S_ISDIR(state.st_mode):
            size += state.st_size
    return size, count


@dataclass(frozen=True, slots=True)
class Folder:
    """A directory of a walk: linked to its parent, so that a deep tree costs no more memory than a wide one."""

    parent: Folder | None
    name: str
    length: int

    def path(self) -> str:
        """Return the path from the root of the walk; "" for the root itself."""
        parts: list[str] = []
        folder: Folder | None = self
        while folder is not None and folder.parent is not None:
            parts.append(folder.name)
            folder = folder.parent
        return "/".join(reversed(parts))


def walk(root: int) -> Iterator[tuple[Folder, os.DirEntry[str]]]:
    """Yield (directory, entry) for everything below `root`, parents first. The tree may be in use.

    Each directory is opened from the root anew, links refused (RESOLVE_NO_SYMLINKS), so a rename meanwhile leads
    nowhere else. What vanishes and what lies deeper than PATH_MAX is left out. Raises OSError.
    """
    pending = [Folder(None, "", 0)]
    while pending:
        folder = pending.pop()
        try:
            fd = openat2(root, folder.path(), _DIRECTORY, resolve=_INSIDE)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            if error.errno == errno.ELOOP:  # became a link
                continue
            raise
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    yield folder, entry
                    length = folder.length + len(os.fsencode(entry.name)) + 1
                    if length < PATH_MAX and entry.is_dir(follow_symlinks=False):
                        pending.append(Folder(folder, entry.name, length))
        finally:
            os.close(fd)
