"""Files in /etc of a container that runs: they change in place, because they are mounted by their inodes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from wherry.errors import SystemFailure

LARGEST = 1 << 20
"""The container may have written anything into it; what is larger than this we do not touch."""


def add(path: Path, lines: str) -> None:
    """Append lines. Raises SystemFailure."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        with open(fd, "w") as file:
            file.write(lines)
    except OSError as error:
        raise SystemFailure(f"cannot write {path}: {error.strerror}") from error


def remove(path: Path, lines: str) -> None:
    """Take these very lines out, wherever they stand; what else the container wrote stays. Raises SystemFailure."""
    unwanted = set(lines.encode().splitlines(keepends=True))
    _rewrite(path, lambda text: b"".join(line for line in text.splitlines(keepends=True) if line not in unwanted))


def exchange(path: Path, names: Sequence[str], lines: str) -> None:
    """Give a hosts file these lines in place of those whose first names are these; none there, none given.

    Raises SystemFailure.
    """
    wanted = [each.encode() for each in names]

    def change(text: bytes) -> bytes:
        kept: list[bytes] = []
        place = None
        for line in text.splitlines(keepends=True):
            if line.split()[1 : 1 + len(wanted)] == wanted:
                place = len(kept) if place is None else place
            else:
                kept.append(line)
        if place is not None:
            kept.insert(place, lines.encode())
        return b"".join(kept)

    _rewrite(path, change)


def replace(path: Path, before: str, after: str) -> None:
    """Give a file another text, unless the container has changed it meanwhile. Raises SystemFailure."""
    _rewrite(path, lambda text: after.encode() if text == before.encode() else text)


def _rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        with open(fd, "r+b") as file:
            before = file.read(LARGEST + 1)
            if len(before) > LARGEST:
                return
            after = change(before)
            if after != before:
                file.seek(0)
                file.write(after)
                file.truncate()
    except OSError as error:
        raise SystemFailure(f"cannot write {path}: {error.strerror}") from error
