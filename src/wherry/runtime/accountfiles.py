"""What a process that waits in a container found out about it and its user, and whether that can still be true."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from wherry.kernel import cachedstat

Accounts = tuple["tuple[int, ...] | None", ...]
"""The states of the files that tell users and groups; None for one that is not there, () for one that is not known."""
_FILES = ("/etc/passwd", "/etc/group")


def uid_of(pid: int) -> int | None:
    """Return the effective user of a process, None when it has ended."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as status:
            return next(int(line.split()[2]) for line in status if line.startswith("Uid:"))
    except (FileNotFoundError, ProcessLookupError):
        return None


def accounts_of(pid: int) -> Accounts:
    """Return what changes when somebody changes the files that tell users and groups, as a process sees them.

    No file system is asked: the caller must not wait for one that a container serves.
    """
    try:
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # it has ended
        return ()
    try:
        return tuple(_state(root, path) for path in _FILES)
    finally:
        os.close(root)


def spaces_of(pid: int) -> tuple[int, ...]:
    """Return the inode numbers of the namespaces that an exec enters; () when the process has ended.

    A first process with CAP_SYS_ADMIN can go into others, e.g. by unshare(1), and execs go where it is.
    """
    try:
        return tuple(os.stat(f"/proc/{pid}/ns/{kind}").st_ino for kind in ("mnt", "net", "ipc", "uts"))
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ()


def are_older(accounts: Accounts, born: int) -> bool:
    """Whether the files were not changed since a little before a time in ns: ctime goes in steps of up to 10 ms."""
    return all(state is None or (state != () and state[-1] < born - 20_000_000) for state in accounts)


def _state(root: int, path: str) -> tuple[int, ...] | None:
    try:
        fd = cachedstat.open_known(root, path)
    except BlockingIOError:
        return ()
    except OSError:
        return None
    try:
        return cachedstat.state_of(fd)
    finally:
        os.close(fd)


def give_to(uid: int, stdio: Iterable[int]) -> None:
    """Let a user open /dev/stdout and its like again: pipes belong to whom made them, root."""
    for fd in set(stdio) if uid else ():
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            os.fchown(fd, uid, -1)
