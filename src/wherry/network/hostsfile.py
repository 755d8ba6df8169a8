"""The hosts file of a container that runs: lines come and go in place, because the file is mounted by its inode."""

from __future__ import annotations

import os
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
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        with open(fd, "r+b") as file:
            before = file.read(LARGEST + 1)
            if len(before) > LARGEST:
                return
            after = b"".join(line for line in before.splitlines(keepends=True) if line not in unwanted)
            file.seek(0)
            file.write(after)
            file.truncate()
    except OSError as error:
        raise SystemFailure(f"cannot write {path}: {error.strerror}") from error
