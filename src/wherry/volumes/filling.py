"""Copying what an image has at a volume's place into the volume that is still empty.

The source is found with the container's root as its root, so no link of an image leads out of it. What goes into a
volume that containers may be using is copied aside first and then moved in, whole entries at a time and replacing
nothing: a copy that is cut off leaves the volume empty, and whoever has the volume cannot make the copy go astray.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from pathlib import Path

from wherry.errors import InvalidArgument
from wherry.kernel import const, pathsafe
from wherry.kernel.fsio import placement, trees
from wherry.kernel.fsio.copy import copy_attributes, copy_tree

ASIDE = "filling-"
WITHIN = const.RESOLVE_BENEATH | const.RESOLVE_NO_MAGICLINKS
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def open_part(base: Path | str, subpath: str) -> int:
    """Return a descriptor of the directory `subpath` of a volume. Raises OSError: EXDEV when it leads out of it."""
    whole = os.open(base, _FOLDER)
    if not subpath:
        return whole
    try:
        return pathsafe.openat2(whole, subpath, _FOLDER, resolve=WITHIN)
    finally:
        os.close(whole)


def is_empty(folder: int | Path) -> bool:
    """Whether a directory has no entries."""
    with os.scandir(folder) as entries:
        return next(entries, None) is None


def open_source(root: int, path: str) -> int:
    """Return a descriptor of the directory `path` below a root file system, -1 when there is nothing.

    Raises InvalidArgument when it is not a directory, with dockerd's text, and OSError.
    """
    try:
        found = pathsafe.open_path(root, path)
    except (FileNotFoundError, NotADirectoryError):
        return -1
    try:
        if not stat.S_ISDIR(os.fstat(found).st_mode):
            raise InvalidArgument(f"source {path} is not directory")
        return os.open(".", _FOLDER, dir_fd=found)
    finally:
        os.close(found)


def fill(root: int, path: str, target: int, staging: Path | None) -> bool:
    """Copy the directory `path` below a root into the empty directory `target`; False when there is none.

    staging: a folder on the same file system, when others may see the target meanwhile. Raises InvalidArgument and
    OSError.
    """
    source = open_source(root, path)
    if source < 0:
        return False
    try:
        if staging is None:
            copy_tree(source, target)
        else:
            _fill_aside(source, target, staging)
    finally:
        os.close(source)
    return True


def _fill_aside(source: int, target: int, staging: Path) -> None:
    parent = os.open(staging, _FOLDER)
    name = f"{ASIDE}{secrets.token_hex(8)}"
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
        aside = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=parent)
        try:
            copy_tree(source, aside)
            _move_in(aside, target)
        finally:
            os.close(aside)
    finally:
        trees.remove(parent, name)
        os.close(parent)


def _move_in(aside: int, target: int) -> None:
    entries = os.listdir(aside)
    for entry in entries:
        try:
            placement.move_new(entry, aside, target)
        except OSError as error:
            if error.errno != errno.EXDEV:  # another file system is mounted there, or the volume has a project
                raise
            _copy_in(aside, target, entries)
            return
    copy_attributes(aside, target)


def _copy_in(aside: int, target: int, entries: list[str]) -> None:
    """Copy all or nothing: a part of an image would be taken for all of it by the next container."""
    there = set(os.listdir(target))
    try:
        copy_tree(aside, target)
    except OSError:
        for entry in entries:
            if entry not in there:
                trees.remove(target, entry)
        raise


def sweep(folder: Path) -> None:
    """Remove what a copy that was cut off has left in a volume's folder."""
    left = [name for name in os.listdir(folder) if name.startswith(ASIDE)]
    if not left:
        return
    parent = os.open(folder, _FOLDER)
    try:
        for name in left:
            trees.remove(parent, name)
    finally:
        os.close(parent)
