"""The size of a volume: a project quota of the file system that the volumes' folders are on.

A volume with a size has a project of its own. Its number is on the disk, with the folder; numbers begin where nobody
else's are likely to be, and one that is free again is used again.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wherry.errors import InvalidArgument, SystemFailure
from wherry.kernel import caps, quota

FIRST = 0x57000000
LARGEST = (1 << 62) - 1
"""Bytes: twice that is no off_t."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_WITHOUT = (errno.ESRCH, errno.ENOSYS, errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV)
_numbering = threading.Lock()  # from the choice of a number until it is on the disk
_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def parse_size(text: str) -> int:
    """Return the bytes of "10G", "1.5gb", "512m", "1024": units of 1024, as dockerd has it. Checked before.

    More than `LARGEST` is one more than that.
    """
    number = text.strip().lower().removesuffix("b").removesuffix("i").strip()
    unit = number[-1] if number[-1] in _UNITS else ""
    return int(min(float(number.removesuffix(unit)) * 1024 ** _UNITS[unit], LARGEST + 1))


@contextmanager
def held() -> Iterator[None]:
    """Hold the calling thread to limits too: ext4 spares who has CAP_SYS_RESOURCE, xfs nobody. Raises OSError."""
    effective, permitted, inheritable = caps.get()
    caps.set_sets(effective & ~caps.mask(["CAP_SYS_RESOURCE"]), permitted, inheritable)
    try:
        yield
    finally:
        caps.set_sets(effective, permitted, inheritable)


def limit(name: str, root: Path, folder: Path, size: int) -> None:
    """Give the empty folder of a volume a size. root: where all volumes are. Raises InvalidArgument, SystemFailure."""
    fd = os.open(folder, _FOLDER)
    try:
        if not quota.enforced(fd):
            raise OSError(errno.ENOSYS, "limits of projects are not enforced")
        with _numbering:
            number = _free(root, folder.name)
            quota.limit(fd, number, size)
            quota.set_project(fd, number)
    except OSError as error:
        if error.errno not in _WITHOUT:
            raise SystemFailure(f"create {name}: cannot set its size: {error}") from error
        raise InvalidArgument(
            f"create {name}: quota size requested but no quota support: the file system of {root} is "
            "not mounted with prjquota, or the kernel has no quotas for it (ext4 made with mkfs.ext4 -O quota,project, "
            f"or xfs): {error.strerror}"
        ) from error
    finally:
        os.close(fd)


def _free(root: Path, data: str) -> int:
    """Return the first number that no folder on the disk has: volumes being made or deleted count as well."""
    entries = os.listdir(root)
    taken = {_project(root / each / data) for each in entries}
    return next(each for each in range(FIRST, FIRST + len(entries) + 1) if each not in taken)


def _project(folder: Path) -> int:
    try:
        fd = os.open(folder, _FOLDER)
    except OSError:
        return 0  # gone, or damaged: it holds no number
    try:
        return quota.project(fd)
    except OSError:
        return 0
    finally:
        os.close(fd)
