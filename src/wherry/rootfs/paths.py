"""Paths as docker cp means them, and what it wants to know of the file that one names."""

from __future__ import annotations

import errno
import os
import posixpath
import stat

from wherry.errors import InvalidArgument, NotFound
from wherry.kernel import const
from wherry.kernel.pathsafe import IN_ROOT, openat2
from wherry.models.queries import PathStat

_LINKS = 40
_GO_BITS = {
    stat.S_IFDIR: 1 << 31, stat.S_IFLNK: 1 << 27, stat.S_IFBLK: 1 << 26, stat.S_IFCHR: 1 << 26 | 1 << 21,
    stat.S_IFIFO: 1 << 25, stat.S_IFSOCK: 1 << 24, stat.S_IFREG: 0,
}  # fmt: skip
_GO_FLAGS = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))
_NOT_A_PATH = {errno.ENOTDIR: "not a directory", errno.ELOOP: "too many levels of symbolic links",
               errno.ENAMETOOLONG: "file name too long"}  # fmt: skip


def clean(text: str) -> str:
    """Return the absolute path that is meant, with the "/" or "/." at its end that says "what it leads to"."""
    path = posixpath.normpath("/" + text).replace("//", "/", 1)
    last = text.rpartition("/")[2]
    if path == "/":
        return "/." if last == "." else "/"
    return path + "/." if last == "." else path + "/" if last == "" else path


def go_mode(mode: int) -> int:
    """Return st_mode in the bits of Go's os.FileMode, which the docker CLI reads."""
    flags = sum(bit for ours, bit in _GO_FLAGS if mode & ours)
    return _GO_BITS.get(stat.S_IFMT(mode), 1 << 19) | flags | (mode & 0o777)


def open_at(root: int, path: str, flags: int, *, where: str) -> int:
    """Open a path of a view. where: the end of the sentence. Raises NotFound and InvalidArgument in dockerd's words."""
    try:
        return openat2(root, path, flags)
    except FileNotFoundError:
        raise NotFound(f"Could not find the file {path} {where}") from None
    except OSError as error:
        if error.errno in _NOT_A_PATH:
            raise InvalidArgument(f"lstat {path}: {_NOT_A_PATH[error.errno]}") from None
        raise


def is_folder(fd: int) -> bool:
    """Return whether a descriptor is that of a directory."""
    return stat.S_ISDIR(os.fstat(fd).st_mode)


def look(root: int, text: str, where: str) -> PathStat:
    """Say what a path, as the client wrote it, names; a link at its end is looked at itself. Raises as `open_at`."""
    path = clean(text)
    fd = open_at(root, path, const.O_PATH | os.O_NOFOLLOW, where=where)
    try:
        state = os.fstat(fd)
        link = os.readlink("", dir_fd=fd) if stat.S_ISLNK(state.st_mode) else ""
    finally:
        os.close(fd)
    parts = text.rstrip("/").rpartition("/")
    return PathStat(
        name="." if path.endswith("/.") else parts[2] or "/",
        size=state.st_size,
        mode=go_mode(state.st_mode),
        mtime=state.st_mtime_ns,
        link_target=follow(root, path) if link else "",
        is_folder=stat.S_ISDIR(state.st_mode),
    )


def follow(root: int, path: str) -> str:
    """Return where a path leads once all links are followed, as an absolute path of the container.

    What does not exist stays as it is written. It is for people and clients to read: whoever opens it has to find it
    anew. Raises InvalidArgument for a loop.
    """
    waiting = [part for part in reversed(path.split("/")) if part]
    done: list[str] = []
    links = 0
    while waiting:
        part = waiting.pop()
        if part in (".", ".."):
            del done[len(done) - (part == "..") :]
            continue
        target = _link(root, "/" + "/".join([*done, part]))
        if target is None:
            done.append(part)
            continue
        links += 1
        if links > _LINKS:
            raise InvalidArgument(f"lstat {path}: {_NOT_A_PATH[errno.ELOOP]}")
        if target.startswith("/"):
            done.clear()
        waiting += [each for each in reversed(target.split("/")) if each]
    return "/" + "/".join(done)


def _link(root: int, path: str) -> str | None:
    """Return the target of a link, None for what is none."""
    try:
        fd = openat2(root, path, const.O_PATH | os.O_NOFOLLOW, resolve=IN_ROOT)
    except OSError as error:
        if error.errno in (errno.ENOENT, *_NOT_A_PATH):
            return None
        raise
    try:
        return os.readlink("", dir_fd=fd) if stat.S_ISLNK(os.fstat(fd).st_mode) else None
    finally:
        os.close(fd)
