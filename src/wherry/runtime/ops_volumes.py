"""Steps for volumes: a part of one that is opened without leaving it, and the image's content in one that is empty."""

from __future__ import annotations

import errno
import os
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
                setup.sources[key] = _open_part(volume, path)
            except OSError as error:
                full = f"{volume}/{path}"
                message = f"cannot access path {full}: lstat {full}: {reason(error)}"
                if error.errno == errno.EXDEV:
                    message = f"path concatenation escapes the base directory, base: {volume}, subpath: {path}"
                raise SetupError(message, error.errno or 0, full) from error


def _open_part(volume: str, path: str) -> int:
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
