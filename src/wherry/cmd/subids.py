"""The ids of the host that containers' stand for: userns-remap, from /etc/subuid and /etc/subgid; subuid(5).

    default          the ranges of dockremap; they are set aside for it when there are none yet
    USER[:GROUP]     the ranges of a user of the host, by name or number. A group after ":" is checked and not used:
                     both files have the ranges under the user's name
    uids=...;gids=.. the ranges themselves, CONTAINER-HOST-COUNT, as `runtime.idmaps` has them; no file is read
"""

from __future__ import annotations

import fcntl
import grp
import logging
import os
import pwd
from collections.abc import Iterable
from pathlib import Path

from wherry.errors import InvalidArgument, SystemFailure
from wherry.kernel import const, mountapi
from wherry.kernel.idmap import Range
from wherry.runtime import idholder, idmaps
from wherry.runtime.idmaps import Ids

log = logging.getLogger(__name__)

DEFAULT = "default"
DOCKREMAP = "dockremap"
FIRST = 100_000
"""Where ranges begin that are set aside here, as with useradd(8): SUB_UID_MIN of login.defs(5)."""
COUNT = 65_536
_TTY = 5
"""The group of terminals in containers (gid= of their devpts)."""
_DIGITS = 10
_IDS = 1 << 32
"""The ids that there are; the last one means none."""


def read(text: str, etc: Path = Path("/etc")) -> Ids | None:
    """Return the ids of a value of userns-remap, None for "". Raises InvalidArgument, SystemFailure.

    etc: where subuid and subgid are.
    """
    if not text:
        return None
    if text.startswith(("uids=", "gids=")):
        return _checked(text)
    if text == DEFAULT:
        names = {DOCKREMAP}
        _set_aside(etc)
    else:
        user, _, group = text.partition(":")
        names = _names(user)
        _check_group(group)
        if "root" in names:
            log.warning("userns-remap: root cannot be remapped with itself: containers have no user namespaces")
            return None
    found = []
    for file in ("subuid", "subgid"):
        ranges = [(start, count) for name, start, count in _entries(etc / file) if name in names]
        if not ranges:
            raise InvalidArgument(
                f"userns-remap {text}: there are no ids for {text} in {etc / file}: add a line such as "
                f"{sorted(names)[-1]}:{FIRST}:{COUNT}"
            )
        found.append(_in_a_row(ranges))
    return _checked(Ids(*found).words)


def check(ids: Ids, folder: Path) -> None:
    """Raise SystemFailure when containers cannot be given these ids, or not for files in a folder."""
    try:
        tree = mountapi.open_tree(const.AT_FDCWD, str(folder), const.OPEN_TREE_CLONE)
        try:
            idmaps.map_owners(tree, str(folder), ids.words, idholder.spawned)
        finally:
            os.close(tree)
    except OSError as error:
        raise SystemFailure(f"userns-remap cannot be used with {folder}: {error.strerror}") from error


def _checked(text: str) -> Ids:
    try:
        ids = Ids(*idmaps.parse(text))
    except ValueError as error:
        raise InvalidArgument(f"userns-remap: {error}") from error
    if not any(own <= _TTY < own + count for own, _, count in ids.gids):
        raise InvalidArgument(f"userns-remap {text}: there must be a group {_TTY}, whose terminals are")
    for ranges in (ids.uids, ids.gids):
        if not any(own == 0 for own, _, _ in ranges) or any(host == 0 for _, host, _ in ranges):
            raise InvalidArgument(f"userns-remap {text}: 0 must be another id on the host than 0")
    return ids


def _names(user: str) -> set[str]:
    """The names under which the files may have a user. Raises InvalidArgument when the host does not know it."""
    try:
        entry = pwd.getpwuid(int(user)) if user.isascii() and user.isdigit() else pwd.getpwnam(user)
    except (KeyError, OverflowError):
        raise InvalidArgument(f"userns-remap {user}: there is no such user on this host") from None
    return {"root"} if entry.pw_uid == 0 else {entry.pw_name, str(entry.pw_uid)}


def _check_group(group: str) -> None:
    if group:
        try:
            grp.getgrgid(int(group)) if group.isascii() and group.isdigit() else grp.getgrnam(group)
        except (KeyError, OverflowError):
            raise InvalidArgument(f"userns-remap: there is no group {group} on this host") from None


def _entries(file: Path) -> list[tuple[str, int, int]]:
    """Return name, first id and count of each line; those that are no lines of subuid(5) are left out."""
    try:
        lines = file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SystemFailure(f"cannot read {file}: {error.strerror}") from error
    found = []
    for line in lines:
        name, _, rest = line.partition(":")
        first, _, count = rest.partition(":")
        if all(each.isascii() and each.isdigit() and len(each) <= _DIGITS for each in (first, count)) and int(count):
            found.append((name, int(first), int(count)))
    return found


def _in_a_row(ranges: list[tuple[int, int]]) -> tuple[Range, ...]:
    """Give a container's ids from 0 on the host's ranges, one after the other."""
    found: list[Range] = []
    own = 0
    for start, count in ranges:
        found.append((own, start, count))
        own += count
    return tuple(found)


def _set_aside(etc: Path) -> None:
    """Write ranges for dockremap behind all others, unless it has some."""
    files = (etc / "subuid", etc / "subgid")
    if all(any(name == DOCKREMAP for name, _, _ in _entries(file)) for file in files):
        return
    try:
        with (etc / ".pwd.lock").open("a") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX)  # as lckpwdf(3), which useradd takes
            line = f"{DOCKREMAP}:{_free([each for file in files for each in _entries(file)])}:{COUNT}\n"
            for file in files:
                if not any(name == DOCKREMAP for name, _, _ in _entries(file)):
                    _append(file, line)
    except OSError as error:
        raise SystemFailure(f"cannot set ids aside for {DOCKREMAP} in {etc}: {error.strerror}") from error


def _free(taken: Iterable[tuple[str, int, int]]) -> int:
    """Return where COUNT ids are nobody's. Raises SystemFailure."""
    start = FIRST
    for _, first, count in sorted(taken, key=lambda each: each[1]):
        if first < start + COUNT and start < first + count:
            start = first + count
    if start + COUNT >= _IDS:
        raise SystemFailure(f"userns-remap: /etc/subuid and /etc/subgid leave no {COUNT} ids for {DOCKREMAP}")
    return start


def _append(file: Path, line: str) -> None:
    with file.open("ab+") as opened:
        size = opened.seek(0, os.SEEK_END)
        if size:
            opened.seek(size - 1)
            line = line if opened.read(1) == b"\n" else f"\n{line}"
        opened.write(line.encode())
