"""Mounts that show other owners than the disk has, and the words for it.

    uids=1000-0-1;gids=1000-0-1          what belongs to 1000 on the disk is seen as root's, and the reverse
    uids=1000-0-1#5000-1-100;gids=...    several ranges: DISK-SEEN-COUNT
    owner=0:33                           whose what is mounted is, is seen as 0, its group as 33

Both lists are needed. Ids outside of them are seen as 65534 (nobody), and who has such an id can make no file.

The ids of a container in a user namespace of its own are written alike: DISK is what its processes see, and what its
layers and volumes have on the disk; SEEN is what the host sees.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from wherry.kernel import idmap
from wherry.kernel.idmap import Range, Start

OWNER = "owner="
_MOST = 340
"""Lines that uid_map takes (4.15), user_namespaces(7)."""
_IDS = 1 << 32
_DIGITS = 10
_NOBODY = 65534
"""What the kernel shows in place of an id that is not there: /proc/sys/fs/overflowuid."""


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


@dataclass(frozen=True, slots=True)
class Ids:
    """Which ids of the host those of a container are: ranges of (container's, host's, how many)."""

    uids: tuple[Range, ...]
    gids: tuple[Range, ...]

    @classmethod
    def of_words(cls, text: str) -> Ids | None:
        """Return what `words` were, None for "". Raises ValueError."""
        return cls(*parse(text)) if text else None

    @classmethod
    def of_spec(cls, linux: dict[str, Any]) -> Ids:
        """Return what uidMappings and gidMappings of an OCI spec say. Raises ValueError without them."""
        found = [
            tuple((int(each["containerID"]), int(each["hostID"]), int(each["size"])) for each in linux.get(key) or ())
            for key in ("uidMappings", "gidMappings")
        ]
        if not all(found):
            raise ValueError("a user namespace needs linux.uidMappings and linux.gidMappings")
        return cls(*found)

    def to_spec(self) -> dict[str, list[dict[str, int]]]:
        """Return uidMappings and gidMappings of an OCI spec."""
        return {
            key: [{"containerID": own, "hostID": host, "size": count} for own, host, count in ranges]
            for key, ranges in (("uidMappings", self.uids), ("gidMappings", self.gids))
        }

    def uid(self, own: int) -> int:
        """Return the host's number of a user. Raises OSError EINVAL when it has none."""
        return _host_id(self.uids, own, "user")

    def gid(self, own: int) -> int:
        """Return the host's number of a group. Raises OSError EINVAL when it has none."""
        return _host_id(self.gids, own, "group")

    def settings(self, data: Sequence[str]) -> tuple[str, ...]:
        """Return the options of a file system with the host's ids in place of a container's. Raises OSError EINVAL."""
        found = []
        for word in data:
            key, _, value = word.partition("=")
            number = _number(value) if key in ("uid", "gid") else None
            if number is not None:
                word = f"{key}={self.uid(number) if key == 'uid' else self.gid(number)}"
            found.append(word)
        return tuple(found)

    def sysctl(self, name: str, value: str) -> str:
        """Return the value of a sysctl with the host's ids, where the kernel takes ids for those of who writes it."""
        words = value.split()
        numbers = [int(word) for word in words if word.isascii() and word.isdecimal() and len(word) <= _DIGITS]
        if name.replace("/", ".") != "net.ipv4.ping_group_range" or (len(words), len(numbers)) != (2, 2):
            return value
        low, high = numbers
        for own, host, count in self.gids:
            if own <= low < own + count and low <= high:
                return f"{host + low - own} {host + min(high - own, count - 1)}"
        return value

    def check(self, uid: int, *gids: int) -> int:
        """Return the host's number of a user. Raises OSError EINVAL when it, or one of the groups, has none."""
        for gid in gids:
            self.gid(gid)
        return self.uid(uid)

    def host(self, uid: int, gid: int) -> tuple[int, int]:
        """Return the host's numbers of a user and a group. Raises OSError EINVAL when they have none."""
        return self.uid(uid), self.gid(gid)

    def own(self, uid: int, gid: int) -> tuple[int, int]:
        """Return what the container sees as the user and the group that a file has for the host."""
        return _own_id(self.uids, uid), _own_id(self.gids, gid)

    @property
    def words(self) -> str:
        """The text that `parse` understands."""
        return f"uids={_text(self.uids)};gids={_text(self.gids)}"

    def seen_inside(self, text: str) -> str:
        """Return a mapping whose SEEN are ids of the container as one of the host's. Raises ValueError."""
        if text.startswith(OWNER):
            uid, _, gid = text.removeprefix(OWNER).partition(":")
            try:
                return f"{OWNER}{self.uid(int(uid))}:{self.gid(int(gid))}"
            except OSError as error:
                raise ValueError(str(error.strerror)) from error
        uids, gids = parse(text)
        return f"uids={_text(_joined(uids, self.uids))};gids={_text(_joined(gids, self.gids))}"


def _number(text: str) -> int | None:
    """A number as the kernel reads one in an option, kstrtouint(): with 0x, or 0 for octal; None for what is none."""
    base = 16 if text[:2].lower() == "0x" else 8 if text.startswith("0") else 10
    try:
        return int(text, base) if text.isascii() and text.isalnum() else None
    except ValueError:
        return None


def _host_id(ranges: Iterable[Range], own: int, kind: str) -> int:
    for first, host, count in ranges:
        if first <= own < first + count:
            return host + own - first
    raise OSError(errno.EINVAL, f"{os.strerror(errno.EINVAL)} ({kind} {own} has no id in the user namespace)")


def _own_id(ranges: Iterable[Range], host: int) -> int:
    return next((own + host - first for own, first, count in ranges if first <= host < first + count), _NOBODY)


def _text(ranges: Iterable[Range]) -> str:
    return "#".join("-".join(map(str, each)) for each in ranges)


def _joined(inner: Sequence[Range], outer: Sequence[Range]) -> list[Range]:
    """Return inner, from the disk to the container, followed by outer, from the container to the host."""
    found = []
    for disk, seen, count in inner:
        for first, host, more in outer:
            start, end = max(seen, first), min(seen + count, first + more)
            if start < end:
                found.append((disk + start - seen, host + start - first, end - start))
    if not found:
        raise ValueError("invalid idmap: none of the ids that it shows exists in the container")
    return found


def map_owners(tree: int, source: str, text: str, start: Start) -> None:
    """Map the ids of a detached mount, and of those in it. start: as of `idmap.namespace`. Raises OSError.

    ENOTSUP: a file system cannot be mounted so. An owner is that of the mount itself: its path may have been changed.
    """
    namespace = idmap.namespace(*_ranges(tree, text), start)
    try:
        apply(tree, source, namespace)
    finally:
        os.close(namespace)


def apply(tree: int, source: str, namespace: int) -> None:
    """Map the ids of a detached mount, and of those in it, as a user namespace does. Raises OSError: ENOTSUP."""
    try:
        idmap.apply(tree, namespace, recursive=True)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
        what = f"its file system, {_filesystem(tree)}, or one that is mounted in it, cannot show other owners"
        hint = "ext4, xfs, btrfs and tmpfs can, since Linux 5.12 to 6.3"
        raise OSError(errno.ENOTSUP, f"not supported ({what}; {hint})", source) from error


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
