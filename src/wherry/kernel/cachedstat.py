"""What the kernel remembers of a file, with no question to its file system: it may be dead, or a FUSE server's.

openat2(2) with RESOLVE_CACHED, 5.12, and statx(2) with AT_STATX_DONT_SYNC, 4.11.
"""

from __future__ import annotations

import struct

from wherry.kernel import const, pathsafe
from wherry.kernel.libc import bind, buffer, c_char_p, c_int, c_uint, check

_WANTED = 0x340  # STATX_MTIME 0x40, STATX_CTIME 0x80 and STATX_INO 0x100, STATX_SIZE 0x200
_FIELDS = struct.Struct("=32xQQ48xqI4xqI12xII")  # stx_ino, size, ctime, mtime, dev_major, dev_minor of struct statx

_statx = bind("statx", c_int, c_char_p, c_int, c_uint, c_char_p)


def state_of(fd: int) -> tuple[int, ...]:
    """Return device, inode number, size, and the times of modification and change in ns, as far as they are known."""
    data = buffer(256)
    flags = const.AT_EMPTY_PATH | const.AT_STATX_DONT_SYNC
    check(_statx(fd, b"", flags, _WANTED, data), "statx", "")
    inode, size, ctime, ctime_ns, mtime, mtime_ns, major, minor = _FIELDS.unpack_from(data)
    second = 1_000_000_000
    return major << 32 | minor, inode, size, mtime * second + mtime_ns, ctime * second + ctime_ns


def open_known(root: int, path: str) -> int:
    """Return an O_PATH descriptor like `pathsafe.open_path`; raises OSError EAGAIN for what is not in memory."""
    return pathsafe.open_path(root, path, resolve=pathsafe.IN_ROOT | const.RESOLVE_CACHED)
