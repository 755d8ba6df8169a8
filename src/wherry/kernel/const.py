"""The kernel's constants under the kernel's names, and the system call numbers that libc does not wrap everywhere.

A name is here when more than one module needs it or when the standard library lacks it. The numbers of system
calls from 424 on (2019) are the same on every architecture; the older ones stand in `syscall_number`.
"""

from __future__ import annotations

import os

# clone(2), unshare(2), setns(2): linux/sched.h
CLONE_NEWTIME = 0x00000080  # 5.6
CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000  # 4.6
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

NAMESPACES = {
    "mount": CLONE_NEWNS,
    "uts": CLONE_NEWUTS,
    "ipc": CLONE_NEWIPC,
    "network": CLONE_NEWNET,
    "pid": CLONE_NEWPID,
    "cgroup": CLONE_NEWCGROUP,
    "time": CLONE_NEWTIME,
    "user": CLONE_NEWUSER,
}
"""The OCI runtime spec's namespace types and their flags."""

# mount(2), umount2(2): linux/mount.h
MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_NOATIME = 0x400
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_UNBINDABLE = 0x20000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MNT_DETACH = 0x2
UMOUNT_NOFOLLOW = 0x8

# mount_setattr(2) (5.12), fsmount(2) (5.2)
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR__ATIME = 0x70  # the field; RELATIME is 0 in it
MOUNT_ATTR_RELATIME = 0x0
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000  # 5.12
MOUNT_ATTR_NOSYMFOLLOW = 0x200000  # 5.14

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EMPTY_PATH = 0x1000
AT_STATX_DONT_SYNC = 0x4000
AT_RECURSIVE = 0x8000
OPEN_TREE_CLONE = 0x1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
FSOPEN_CLOEXEC = 0x1
FSMOUNT_CLOEXEC = 0x1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_SET_FD = 5
FSCONFIG_CMD_CREATE = 6
FSCONFIG_STRING_MAX = 255  # strndup_user(..., 256) in fs/fsopen.c

# openat2(2), 5.6: linux/openat2.h
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10
RESOLVE_CACHED = 0x20
O_PATH = 0o10000000

# statfs(2): linux/magic.h
PROC_SUPER_MAGIC = 0x9FA0
SYSFS_MAGIC = 0x62656572
TMPFS_MAGIC = 0x01021994
FUSE_SUPER_MAGIC = 0x65735546
DEVPTS_SUPER_MAGIC = 0x1CD1
CGROUP2_SUPER_MAGIC = 0x63677270

# socket(7): asm-generic/socket.h
SO_SNDBUFFORCE = 32  # beyond net.core.wmem_max, with CAP_NET_ADMIN

# prctl(2)
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

CLOSE_RANGE_CLOEXEC = 0x4  # 5.11

SYS_open_tree = 428
SYS_move_mount = 429
SYS_fsopen = 430
SYS_fsconfig = 431
SYS_fsmount = 432
SYS_close_range = 436
SYS_openat2 = 437
SYS_mount_setattr = 442
SYS_quotactl_fd = 443  # 5.14

_OLD_NUMBERS = {
    "x86_64": {
        "rt_sigprocmask": 14, "setgroups": 116, "capget": 125, "capset": 126, "pivot_root": 155, "keyctl": 250,
        "seccomp": 317, "bpf": 321,
    },
    "aarch64": {
        "pivot_root": 41, "capget": 90, "capset": 91, "setgroups": 159, "rt_sigprocmask": 135, "keyctl": 219,
        "seccomp": 277, "bpf": 280,
    },
}  # fmt: skip


def syscall_number(name: str) -> int:
    """Return the number of a system call from before the common numbering, on this machine.

    Raises OSError ENOSYS on an architecture that is not in the table: better than calling another system call.
    """
    machine = os.uname().machine
    try:
        return _OLD_NUMBERS[machine][name]
    except KeyError:
        raise OSError(38, f"{name}: no system call number known for {machine}") from None
