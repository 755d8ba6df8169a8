"""Comparing trees of files: everything that the kernel says of each of them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

Facts = dict[str, object]


def walk(root: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield every name below a directory, and "." first, without following a link."""
    yield ".", os.lstat(root)
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        for name in sorted(os.listdir(f"{root}/{folder}")):
            path = f"{folder}/{name}" if folder else name
            state = os.lstat(f"{root}/{path}")
            yield path, state
            if stat.S_ISDIR(state.st_mode):
                waiting.append(path)


def facts(path: str, state: os.stat_result) -> Facts:
    """Return what there is to be known of a file, but for its content."""
    found: Facts = {
        "mode": oct(state.st_mode), "owner": (state.st_uid, state.st_gid), "mtime": state.st_mtime_ns,
        "device": state.st_rdev, "xattrs": {name: os.getxattr(path, name, follow_symlinks=False)
                                            for name in os.listxattr(path, follow_symlinks=False)},
    }  # fmt: skip
    if not stat.S_ISDIR(state.st_mode):
        found |= {"size": state.st_size, "links": state.st_nlink}
    if stat.S_ISLNK(state.st_mode):
        found["target"] = os.readlink(os.fsencode(path))
    return found


def differences(wanted: str, found: str, *, but: tuple[str, ...] = ()) -> list[str]:
    """Return how one tree differs from another, in words, at most twenty times. but: paths whose facts do not count."""
    told: list[str] = []
    groups: dict[int, int] = {}
    left = {path for path, _ in walk(found)}
    for path, state in walk(wanted):
        if path not in left:
            told.append(f"{path!r} is missing")
            continue
        left.remove(path)
        there = os.lstat(f"{found}/{path}")
        one, other = facts(f"{wanted}/{path}", state), facts(f"{found}/{path}", there)
        if one != other and path not in but:
            told.append(f"{path!r}: {one} became {other}")
        elif stat.S_ISREG(state.st_mode) and not _same_bytes(f"{wanted}/{path}", f"{found}/{path}"):
            told.append(f"{path!r} has other bytes")
        linked = state.st_nlink > 1 and not stat.S_ISDIR(state.st_mode)
        if linked and groups.setdefault(state.st_ino, there.st_ino) != there.st_ino:
            told.append(f"{path!r} is linked with others")
        if len(told) >= 20:
            break
    return told + [f"{path!r} is too much" for path in sorted(left)][: 20 - len(told)]


def _same_bytes(one: str, other: str) -> bool:
    with open(one, "rb") as first, open(other, "rb") as second:
        while True:
            piece = first.read(1 << 20)
            if piece != second.read(1 << 20):
                return False
            if not piece:
                return True
