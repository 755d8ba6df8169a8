"""Project quotas: a limit for all files of a tree, by a number that the files carry. quotactl(2), ioctl_xfs_fsgetxattr.

What is made in a directory with FS_XFLAG_PROJINHERIT carries its number, and nothing can be linked or renamed into it
from another project (EXDEV). ext4 needs the features quota and project and the mount option prjquota, xfs the option.
"""

from __future__ import annotations

import fcntl
import struct
import sys

from wherry.kernel import const
from wherry.kernel.libc import bind_syscall, buffer, c_char_p, c_int, c_uint, check

_GET, _SET = 0x801C581F, 0x401C5820  # FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR: linux/fs.h
_FSXATTR = struct.Struct("IIIII8x")  # fsx_xflags, extsize, nextents, projid, cowextsize
_INHERIT = 0x200
_PROJECTS = 2  # PRJQUOTA
_SETQUOTA = 0x800008 << 8 | _PROJECTS
_DQBLK = struct.Struct("8QI4x")  # struct if_dqblk; limits in blocks of 1024 bytes
_LIMITS = 1  # QIF_BLIMITS
_GETSTATE = 0x5808 << 8 | _PROJECTS  # Q_XGETQSTATV, linux/dqblk_xfs.h: served by all file systems with quotas
_STATE_SIZE, _STATE_VERSION = 160, 1  # struct fs_quota_statv: version (1 byte), 1 byte, flags (2 bytes) ...
_ENFORCED = 0x20  # FS_QUOTA_PDQ_ENFD
_quotactl_fd = bind_syscall(c_int, c_uint, c_uint, c_char_p)


def project(folder: int) -> int:
    """Return the project of a directory (an ordinary descriptor), 0 for none. Raises OSError ENOTTY, EOPNOTSUPP."""
    return int(_FSXATTR.unpack(fcntl.ioctl(folder, _GET, bytes(_FSXATTR.size)))[3])


def set_project(folder: int, number: int) -> None:
    """Put an empty directory, and what will be made in it, into a project. Raises OSError: EOPNOTSUPP, EINVAL."""
    flags, extent, _, _, cow = _FSXATTR.unpack(fcntl.ioctl(folder, _GET, bytes(_FSXATTR.size)))
    fcntl.ioctl(folder, _SET, _FSXATTR.pack(flags | _INHERIT, extent, 0, number, cow))


def limit(folder: int, number: int, size: int) -> None:
    """Let the files of a project take `size` bytes at most, on the file system of a directory. Linux 5.14.

    Raises OSError: ESRCH or ENOSYS when it is mounted without project quotas.
    """
    blocks = max(1, -(-size // 1024))
    wanted = _DQBLK.pack(blocks, blocks, 0, 0, 0, 0, 0, 0, _LIMITS)
    check(_quotactl_fd(const.SYS_quotactl_fd, folder, _SETQUOTA, number, wanted), "quotactl_fd")


def enforced(folder: int) -> bool:
    """Whether the file system of a directory keeps projects to their limits.

    ext4 with the feature and without the mount option takes limits, counts, and refuses nothing. Raises OSError:
    ENOSYS for a file system without quotas.
    """
    state = buffer(bytes([_STATE_VERSION]), _STATE_SIZE)
    check(_quotactl_fd(const.SYS_quotactl_fd, folder, _GETSTATE, 0, state), "quotactl_fd")
    return bool(int.from_bytes(state.raw[2:4], sys.byteorder) & _ENFORCED)
