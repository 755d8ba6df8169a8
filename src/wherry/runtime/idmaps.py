"""Mounts that show other owners than the disk has: the words for it, and the step of a container's start.

    uids=1000-0-1;gids=1000-0-1          what belongs to 1000 on the disk is seen as root's, and the reverse
    uids=1000-0-1#5000-1-100;gids=...    several ranges: DISK-SEEN-COUNT
    owner=0:33                           whose what is mounted is, is seen as 0, its group as 33

Both lists are needed. Ids outside of them are seen as 65534 (nobody), and who has such an id can make no file.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from wherry.kernel import idmap
from wherry.kernel.idmap import Range, forked
from wherry.runtime.setup import Operation, Setup, SetupError, reason

OWNER = "owner="
_MOST = 340
"""Lines that uid_map takes (4.15), user_namespaces(7)."""
_IDS = 1 << 32
_DIGITS = 10


def parse(text: str) -> tuple[tuple[Range, ...], tuple[Range, ...]]:
    """Return the ranges of uids and of gids. Raises ValueError."""
    found: dict[str, tuple[Range, ...]] = {}
    for part in text.split(";"):
        name, _, ranges = part.partition("=")
        if name not in ("uids", "gids") or name in found:
            raise ValueError(f"invalid idmap {text!r}: it is uids=DISK-SEEN-COUNT;gids=DISK-SEEN-COUNT")
        found[name] = tuple(_range(each) for each in ranges.split("#"))
        if len(found[name]) > _MOST:
            raise ValueError(f"invalid idmap: more than {_MOST} ranges")
        _check_apart(found[name])
    if len(found) < 2:
        raise ValueError(f"invalid idmap {text!r}: uids and gids are both needed")
    return found["uids"], found["gids"]


def _range(text: str) -> Range:
    words = text.split("-")
    good = len(words) == 3 and all(each.isascii() and each.isdigit() and len(each) <= _DIGITS for each in words)
    disk, seen, count = map(int, words) if good else (0, 0, 0)
    if not count or max(disk, seen) + count >= _IDS:
        raise ValueError(f"invalid idmap range {text!r}: it is DISK-SEEN-COUNT, as 1000-0-1")
    return disk, seen, count


def _check_apart(ranges: tuple[Range, ...]) -> None:
    for column in (0, 1):
        ordered = sorted((each[column], each[2]) for each in ranges)
        if any(first + count > second for (first, count), (second, _) in pairwise(ordered)):
            raise ValueError("invalid idmap: ranges overlap")


def map_owners(tree: int, source: str, text: str, start: Callable[[int], int]) -> None:
    """Map the ids of a detached mount, and of those in it. start: as of `idmap.namespace`. Raises OSError.

    ENOTSUP: a file system cannot be mounted so. An owner is that of the mount itself: its path may have been changed.
    """
    namespace = idmap.namespace(*_ranges(tree, text), start)
    try:
        idmap.apply(tree, namespace, recursive=True)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
        what = f"its file system, {_filesystem(tree)}, or one that is mounted in it, cannot show other owners"
        hint = "ext4, xfs, btrfs and tmpfs can, since Linux 5.12 to 6.3"
        raise OSError(errno.ENOTSUP, f"not supported ({what}; {hint})", source) from error
    finally:
        os.close(namespace)


def _ranges(tree: int, text: str) -> tuple[tuple[Range, ...], tuple[Range, ...]]:
    if not text.startswith(OWNER):
        return parse(text)
    uid, _, gid = text.removeprefix(OWNER).partition(":")
    state = os.fstat(tree)
    return ((state.st_uid, int(uid), 1),), ((state.st_gid, int(gid), 1),)


def _filesystem(fd: int) -> str:
    device = os.fstat(fd).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        lines = (line.split() for line in table)
        return next((each[each.index("-") + 1] for each in lines if each[2] == wanted), wanted)


@dataclass(slots=True)
class MapOwners(Operation):
    """Map the ids of sources that are open: (key, path, words)."""

    phase: ClassVar[str] = "volume"
    mapped: tuple[tuple[int, str, str], ...]

    def describe(self) -> str:
        return "map the owners of mounts"

    def run(self, setup: Setup) -> None:
        for key, path, text in self.mapped:
            try:
                map_owners(setup.sources[key], path, text, forked)
            except OSError as error:
                message = f"cannot map the owners of {path}: {reason(error)}"
                raise SetupError(message, error.errno or 0, path) from error
