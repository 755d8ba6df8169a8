"""Pseudo terminals out of one particular devpts instance: pty(7), ioctl_tty(2)."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import termios

TIOCGPTPEER = 0x5441  # 4.13; the same number on x86_64 and aarch64
TIOCSPTLCK = 0x40045431
TIOCGPTN = 0x80045430
PTMX_DEVICE = os.makedev(5, 2)


def _ioctl(fd: int, request: int, argument: bytes | int, name: str) -> bytes | int:
    try:
        return fcntl.ioctl(fd, request, argument)
    except OSError as error:
        raise OSError(error.errno, f"ioctl {name}: {error.strerror}") from error


def open_master(devpts: int) -> int:
    """Return the master side of a new terminal made by the "ptmx" of the devpts directory `devpts`, unlocked.

    The node is not followed when it is a symbolic link and must be the multiplexer, 5:2. Raises OSError: ENOENT,
    ELOOP, ENOSPC (the instance's "max"), EINVAL when the node is something else.
    """
    flags = os.O_RDWR | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC
    master = os.open("ptmx", flags, dir_fd=devpts)
    state = os.fstat(master)
    if not stat.S_ISCHR(state.st_mode) or state.st_rdev != PTMX_DEVICE:
        os.close(master)
        raise OSError(22, "open: not a terminal multiplexer", "ptmx")
    _ioctl(master, TIOCSPTLCK, struct.pack("i", 0), "TIOCSPTLCK")
    return master


def open_peer(master: int) -> int:
    """Return the other side of a terminal without any path, so that no name in a container can stand in for it.

    CVE-2025-52565 was a bind of /dev/pts/N by name. Raises OSError: EIO when the terminal is locked.
    """
    return int(_ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC, "TIOCGPTPEER"))


def number(master: int) -> int:
    """Return N of /dev/pts/N of the terminal's other side."""
    answer = _ioctl(master, TIOCGPTN, b"\0\0\0\0", "TIOCGPTN")
    assert isinstance(answer, bytes)
    return int(struct.unpack("i", answer)[0])


def set_size(fd: int, rows: int, columns: int) -> None:
    """Set the window size; the foreground process group gets SIGWINCH when it changes. Raises OSError ENOTTY."""
    _ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows & 0xFFFF, columns & 0xFFFF, 0, 0), "TIOCSWINSZ")


def make_controlling(fd: int) -> None:
    """Make the terminal the controlling one of the calling session leader. Raises OSError EPERM if it is none."""
    _ioctl(fd, termios.TIOCSCTTY, 0, "TIOCSCTTY")
