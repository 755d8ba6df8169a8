"""Paths inside a directory tree that someone else controls: openat2(2), 5.6.

Every result is a descriptor, found with the tree as its root: a symbolic link cannot lead outside, ".." stops at
the root, and the magic links of procfs (/proc/PID/fd, cwd, root) are not followed, CVE-2024-21626. What was found is
used through the descriptor, never looked up again.
"""

from __future__ import annotations

import errno
import os
import stat
import struct

from wherry.kernel import const
from wherry.kernel.libc import bind, bind_syscall, buffer, c_char_p, c_int, c_size_t, check

IN_ROOT = const.RESOLVE_IN_ROOT | const.RESOLVE_NO_MAGICLINKS
BELOW = const.RESOLVE_BENEATH | const.RESOLVE_NO_XDEV | const.RESOLVE_NO_MAGICLINKS
_ATTEMPTS = 128  # EAGAIN: a rename elsewhere on the machine met a ".." of the walk
_LINKS = 40  # as many as the kernel follows, path_resolution(7)

_openat2 = bind_syscall(c_int, c_char_p, c_char_p, c_size_t)
_fstatfs = bind("fstatfs", c_int, c_char_p)


def openat2(dirfd: int, path: str, flags: int, *, resolve: int = IN_ROOT, mode: int = 0) -> int:
    """Open `path` as seen from `dirfd`, close-on-exec.

    Raises OSError: ELOOP (a link that `resolve` forbids), EXDEV (out of the tree or of the mount), EAGAIN (with
    RESOLVE_CACHED: a file system would have to be asked), and as open(2).
    """
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, mode, resolve)
    name = os.fsencode(path) or b"."
    for _ in range(_ATTEMPTS):
        result = _openat2(const.SYS_openat2, dirfd, name, how, len(how))
        if result >= 0:
            return result
        try:
            check(result, "openat2", path)
        except (BlockingIOError, InterruptedError):
            if resolve & const.RESOLVE_CACHED:
                raise
    raise OSError(errno.EAGAIN, "openat2: the tree is being renamed all the time", path)


def open_path(root: int, path: str, *, resolve: int = IN_ROOT, directory: bool = False) -> int:
    """Return an O_PATH descriptor of what `path` names below `root`, links followed within it."""
    flags = const.O_PATH | (os.O_DIRECTORY if directory else 0)
    return openat2(root, path, flags, resolve=resolve)


def make_directories(root: int, path: str, mode: int = 0o755) -> int:
    """Return an O_PATH descriptor of the directory `path` below `root`, making what is missing of it.

    A dangling link is made good by making its target, as image authors expect of /var/run -> /run. Raises OSError:
    ENOTDIR when a part is a file, EROFS, ELOOP.
    """
    try:
        return open_path(root, path, directory=True)
    except FileNotFoundError:
        return _walk(root, path, mode, _LINKS)


def _walk(root: int, path: str, mode: int, links: int) -> int:
    done = ""
    current = open_path(root, "/", directory=True)
    for name in [part for part in path.split("/") if part and part != "."]:
        done = f"{done}/{name}"
        try:
            following = _enter(root, current, done, mode, links)
        finally:
            os.close(current)
        current = following
    return current


def _enter(root: int, parent: int, path: str, mode: int, links: int) -> int:
    """The directory `path`, whose parent is open, made when it is missing."""
    name = path.rpartition("/")[2]
    if name != "..":
        try:
            os.mkdir(name, mode, dir_fd=parent)
        except FileExistsError:
            pass
    try:
        return open_path(root, path, directory=True)
    except FileNotFoundError:
        if links == 0:
            raise OSError(errno.ELOOP, "too many levels of dangling links", path) from None
        try:
            link = os.readlink(name, dir_fd=parent)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise OSError(errno.ESTALE, "it was replaced while it was looked at", path) from error
        return _walk(root, link if link.startswith("/") else f"{path.rpartition('/')[0]}/{link}", mode, links - 1)


def make_file(root: int, path: str, mode: int = 0o644) -> int:
    """Return an O_PATH descriptor of what `path` names below `root`, made as an empty file when nothing is there.

    Never opens what exists for more than O_PATH: a FIFO does not block, a device is not touched. Raises OSError.
    """
    try:
        return open_path(root, path)
    except FileNotFoundError:
        pass
    folder, _, name = path.rpartition("/")
    parent = make_directories(root, folder)
    try:
        # O_EXCL: never through a link, never something that was put there meanwhile (CVE-2024-45310)
        fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=parent)
    except FileExistsError:  # a dangling link
        return make_file(root, _link_target(parent, folder, name), mode)
    finally:
        os.close(parent)
    os.close(fd)
    return open_path(root, path)


def _link_target(parent: int, folder: str, name: str) -> str:
    link = os.readlink(name, dir_fd=parent)
    return link if link.startswith("/") else f"{folder}/{link}"


def filesystem_magic(fd: int) -> int:
    """Return f_type of statfs(2), the *_MAGIC of the file system that `fd` is on."""
    space = buffer(128)  # struct statfs is 120 bytes on 64-bit machines; f_type is its first word
    check(_fstatfs(fd, space), "fstatfs")
    return int(struct.unpack_from("q", space)[0])


def read_regular(root: int, path: str, limit: int) -> bytes:
    """Return the content of a regular file below `root`, at most `limit` bytes.

    What is no regular file is not opened at all: FIFOs would block, devices never end. Raises OSError: EINVAL for
    those, EISDIR, EFBIG over the limit (by size or while reading), and as openat2.
    """
    probe = open_path(root, path)
    try:
        state = os.fstat(probe)
    finally:
        os.close(probe)
    if stat.S_ISDIR(state.st_mode):
        raise OSError(errno.EISDIR, "is a directory", path)
    if not stat.S_ISREG(state.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", path)
    if state.st_size > limit:
        raise OSError(errno.EFBIG, f"larger than {limit} bytes", path)
    fd = openat2(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        now = os.fstat(fd)
        if (now.st_dev, now.st_ino) != (state.st_dev, state.st_ino):
            raise OSError(errno.EAGAIN, "changed while it was opened", path)
        data = os.read(fd, limit + 1)
    finally:
        os.close(fd)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit} bytes", path)
    return data
