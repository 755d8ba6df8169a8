"""Steps for volumes: a part of one that is opened without leaving it, and what the image has in one that is empty."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import ClassVar

from wherry.kernel import const, mountapi, pathsafe
from wherry.kernel.fsio.copy import copy_tree
from wherry.runtime.setup import Operation, Setup, SetupError, reason

_WITHIN = const.RESOLVE_BENEATH | const.RESOLVE_NO_MAGICLINKS
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(slots=True)
class OpenParts(Operation):
    """Take detached copies of parts of volumes: (key, volume, path in it).

    A container that has the volume can change every name in it at any time, so the part is found in one system call
    that does not leave the volume, and what it found is what gets mounted (CVE-2021-30465).
    """

    phase: ClassVar[str] = "volume"
    parts: tuple[tuple[int, str, str], ...]

    def describe(self) -> str:
        return "open the parts of volumes"

    def run(self, setup: Setup) -> None:
        for key, volume, path in self.parts:
            try:
                setup.sources[key] = open_part(volume, path)
            except OSError as error:
                full = f"{volume}/{path}"
                message = f"cannot access path {full}: lstat {full}: {reason(error)}"
                if error.errno == errno.EXDEV:
                    message = f"path concatenation escapes the base directory, base: {volume}, subpath: {path}"
                raise SetupError(message, error.errno or 0, full) from error


def open_part(volume: str, path: str) -> int:
    """Return a detached copy of the mount of `path` in a volume. Raises OSError: EXDEV when it leads out of it."""
    whole = os.open(volume, const.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        part = pathsafe.openat2(whole, path, const.O_PATH, resolve=_WITHIN)
        try:
            return mountapi.clone_fd(part, const.AT_RECURSIVE)
        finally:
            os.close(part)
    finally:
        os.close(whole)


def fill_empty(root: int, path: str, tree: int) -> None:
    """Copy the directory that an image has at `path` into the mount that will hide it, if that is empty.

    Raises OSError: ENOSPC when the mount is too small for it.
    """
    try:
        origin = pathsafe.openat2(root, path, _FOLDER)
    except (FileNotFoundError, NotADirectoryError):
        return
    inside = os.open(".", _FOLDER, dir_fd=tree)
    try:
        with os.scandir(inside) as entries:
            if next(entries, None) is None:
                copy_tree(origin, inside, reserve=False)
    finally:
        os.close(inside)
        os.close(origin)


def copy_up(source: int, tree: int) -> None:
    """Copy what an image has at a mount point into the tmpfs that will hide it (option "tmpcopyup")."""
    origin = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=source)
    try:
        for name in os.listdir(origin):
            _copy_entry(origin, tree, name)
    finally:
        os.close(origin)


def _copy_entry(source: int, target: int, name: str) -> None:
    state = os.stat(name, dir_fd=source, follow_symlinks=False)
    mode = stat.S_IMODE(state.st_mode)
    if stat.S_ISDIR(state.st_mode):
        os.mkdir(name, 0o700, dir_fd=target)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        inner, copy = os.open(name, flags, dir_fd=source), os.open(name, flags, dir_fd=target)
        for each in os.listdir(inner):
            _copy_entry(inner, copy, each)
        os.close(inner)
        os.close(copy)
    elif stat.S_ISLNK(state.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    elif stat.S_ISREG(state.st_mode):
        _copy_file(source, target, name)
    else:
        os.mknod(name, state.st_mode, state.st_rdev, dir_fd=target)
    os.chown(name, state.st_uid, state.st_gid, dir_fd=target, follow_symlinks=False)
    if not stat.S_ISLNK(state.st_mode):
        os.chmod(name, mode, dir_fd=target)


def _copy_file(source: int, target: int, name: str) -> None:
    origin = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source)
    copy = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
    while os.sendfile(copy, origin, None, 1 << 20):
        pass
    os.close(origin)
    os.close(copy)
