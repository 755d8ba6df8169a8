"""What a container changed below its root: docker diff.

Nothing is mounted: what several layers show together is put together here, so that only directories that changed are
looked into. The container may change its tree meanwhile, so each directory of it is opened from the root without
following a link; layers do not change. One directory is open at a time, however deep or wide the trees are.

    overlay2   has: the upper directory, which holds what was written, a device 0/0 for what was removed, and an
               attribute on a directory that hides what is below it    (Documentation/filesystems/overlayfs.rst)
    vfs        has: its whole copy

Places where the engine itself puts things before a start are not the container's doing: see `PREPARED`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from wherry.kernel import const
from wherry.kernel.pathsafe import openat2

MODIFIED, ADDED, DELETED = 0, 1, 2
PREPARED = frozenset({
    ".dockerenv", "dev", "dev/console", "dev/mqueue", "dev/pts", "dev/shm", "etc", "etc/hostname", "etc/hosts",
    "etc/resolv.conf", "proc", "sys",
})  # fmt: skip
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_RESOLVE = const.RESOLVE_IN_ROOT | const.RESOLVE_NO_SYMLINKS | const.RESOLVE_NO_XDEV
_OPAQUE = "trusted.overlay.opaque"


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """path: absolute, as in the container. kind: MODIFIED, ADDED or DELETED."""

    path: str
    kind: int


def find(now: Path, before: Sequence[Path], *, upper: bool) -> list[Change]:
    """Return the changes, sorted. now: the container's tree. before: the layers it began with, topmost first.

    upper: `now` is an upper directory of overlayfs; else a whole tree. Raises OSError.
    """
    root = os.open(now, _OPEN)
    try:
        return _Comparison(root, tuple(map(str, before)), upper).run()
    finally:
        os.close(root)


class Seen(NamedTuple):
    """What tells one version of a file from another; of directories the first four."""

    mode: int
    uid: int
    gid: int
    device: int
    size: int
    mtime: int
    target: str

    @property
    def folder(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def whiteout(self) -> bool:
        """Whether it stands for something that was removed."""
        return stat.S_ISCHR(self.mode) and self.device == 0


class _Comparison:
    """Walks the container's tree. A path has no leading slash; "" is the root."""

    def __init__(self, root: int, layers: tuple[str, ...], upper: bool) -> None:
        self._root = root
        self._upper = upper
        self._kinds: dict[str, int] = {}
        self._kept: set[str] = set()  # directories that were there before
        self._waiting: list[tuple[str, tuple[str, ...]]] = [("", layers)]

    def run(self) -> list[Change]:
        while self._waiting:
            self._compare(*self._waiting.pop())
        for path in tuple(self._kinds):
            self._mark_above(path)
        return sorted(Change(f"/{path}", kind) for path, kind in self._kinds.items())

    def _mark_above(self, path: str) -> None:
        """A directory is modified when something in it is."""
        while "/" in path:
            path = path.rpartition("/")[0]
            if path in self._kept and path not in self._kinds:
                self._kinds[path] = MODIFIED

    def _compare(self, path: str, layers: tuple[str, ...]) -> None:
        """layers: those that have a part in what this directory showed before."""
        try:
            folder = openat2(self._root, path or ".", _OPEN, resolve=_RESOLVE)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return  # removed, or replaced, since we saw it
            raise
        try:
            now = dict(_listing(folder))
            opaque = _is_opaque(folder)
        finally:
            os.close(folder)
        earlier = _merged(layers, path)
        prefix = f"{path}/" if path else ""
        if not self._upper or opaque:
            self._kinds.update(dict.fromkeys((prefix + name for name in earlier.keys() - now.keys()), DELETED))
        for name, seen in now.items():
            self._judge(prefix + name, seen, earlier.get(name), layers)

    def _judge(self, path: str, now: Seen, earlier: Seen | None, layers: tuple[str, ...]) -> None:
        if self._upper and now.whiteout:
            if earlier is not None:
                self._kinds[path] = DELETED
            return
        if now.folder:
            kept = earlier is not None and earlier.folder
            self._waiting.append((path, _contributors(layers, path) if kept else ()))
            if kept or (earlier is None and path in PREPARED):
                self._kept.add(path)
        if earlier is None:
            if path not in PREPARED or (now.size and not now.folder):
                self._kinds[path] = ADDED
        elif now.folder and earlier.folder:
            if now[:4] != earlier[:4]:
                self._kinds[path] = MODIFIED
        elif self._upper or now != earlier:  # a file is in an upper directory only when it was written to
            self._kinds[path] = MODIFIED


def _listing(folder: int) -> Iterator[tuple[str, Seen]]:
    for name in os.listdir(folder):
        try:
            state = os.stat(name, dir_fd=folder, follow_symlinks=False)
            target = os.readlink(name, dir_fd=folder) if stat.S_ISLNK(state.st_mode) else ""
        except FileNotFoundError:
            continue
        facts = (state.st_mode, state.st_uid, state.st_gid, state.st_rdev, state.st_size, state.st_mtime_ns)
        yield name, Seen(*facts, target)


def _open_in(layer: str, path: str) -> int:
    """Return a descriptor of a directory of a layer, whose names and links are the image's: none is followed."""
    root = os.open(f"{layer}/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # some are /proc/self/fd/N
    try:
        return openat2(root, path or ".", _OPEN, resolve=_RESOLVE)
    finally:
        os.close(root)


def _merged(layers: Sequence[str], path: str) -> dict[str, Seen]:
    """Return what overlayfs shows of one directory of several layers, by name."""
    found: dict[str, Seen] = {}
    for layer in layers:
        folder = _open_in(layer, path)
        try:
            for name, seen in _listing(folder):
                found.setdefault(name, seen)
            opaque = _is_opaque(folder)
        finally:
            os.close(folder)
        if opaque:
            break
    return {name: seen for name, seen in found.items() if not seen.whiteout}


def _contributors(layers: Sequence[str], path: str) -> tuple[str, ...]:
    """Return those of the layers that make up this directory, of which the parent is made up by `layers`."""
    found = []
    for layer in layers:
        try:
            folder = _open_in(layer, path)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                break  # removed here, or something else: what is below it is not seen
            raise
        found.append(layer)
        opaque = _is_opaque(folder)
        os.close(folder)
        if opaque:
            break
    return tuple(found)


def _is_opaque(folder: int) -> bool:
    try:
        return os.getxattr(folder, _OPAQUE) == b"y"
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return False
        raise
