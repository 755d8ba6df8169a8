"""What the drivers make of a layer's whiteouts; `packing.layers.Whiteouts` says when they are asked."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from wherry.kernel import pathsafe
from wherry.kernel.const import O_PATH
from wherry.kernel.fsio import trees


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
