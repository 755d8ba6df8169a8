"""The mount system calls, old (mount(2), umount2(2), pivot_root(2)) and new (5.2: by descriptor, detached first).

The new calls separate making a mount from attaching it: a tree is made, configured and filled before any process
can see it, and attached to a directory that was opened and checked before. No path is walked twice.
"""

from __future__ import annotations

import os
import struct

from wherry.kernel import const
from wherry.kernel.libc import bind, bind_syscall, c_char_p, c_int, c_size_t, c_uint, c_ulong, check, failure

_mount = bind("mount", c_char_p, c_char_p, c_char_p, c_ulong, c_char_p)
_umount2 = bind("umount2", c_char_p, c_int)
_pivot_root = bind_syscall(c_char_p, c_char_p)
_open_tree = bind_syscall(c_int, c_char_p, c_uint)
_move_mount = bind_syscall(c_int, c_char_p, c_int, c_char_p, c_uint)
_mount_setattr = bind_syscall(c_int, c_char_p, c_uint, c_char_p, c_size_t)
_fsopen = bind_syscall(c_char_p, c_uint)
_fsconfig = bind_syscall(c_int, c_uint, c_char_p, c_char_p, c_int)
_fsmount = bind_syscall(c_int, c_uint, c_uint)
_PIVOT_ROOT = const.syscall_number("pivot_root")
_MOVE_FD_TO_FD = const.MOVE_MOUNT_F_EMPTY_PATH | const.MOVE_MOUNT_T_EMPTY_PATH


def mount(source: str, target: str, fstype: str, flags: int, data: str = "") -> None:
    """mount(2). Raises OSError with the target as its path."""
    result = _mount(os.fsencode(source), os.fsencode(target), fstype.encode() or None, flags, os.fsencode(data) or None)
    check(result, f"mount {fstype or source}".rstrip(), target)


def umount2(target: str, flags: int = 0) -> None:
    """umount2(2). Raises OSError: EINVAL (no mount), EBUSY."""
    check(_umount2(os.fsencode(target), flags), "umount2", target)


def pivot_root(new_root: str, put_old: str) -> None:
    """Make new_root, a mount point, the root of this mount namespace; the old one lands on put_old.

    pivot_root(".", ".") stacks the old root on the new one, to be detached at once: no directory is needed.
    Raises OSError: EINVAL (not a mount point, or a shared parent), EBUSY.
    """
    check(_pivot_root(_PIVOT_ROOT, os.fsencode(new_root), os.fsencode(put_old)), "pivot_root", new_root)


def open_tree(dirfd: int, path: str, flags: int = 0) -> int:
    """Return an O_PATH, close-on-exec descriptor of a mount; with OPEN_TREE_CLONE of a detached copy (a bind).

    AT_RECURSIVE copies the mounts below too. Raises OSError: ENOENT, EINVAL (CLONE of a mount of another
    namespace, or of an unbindable one), EPERM.
    """
    result = _open_tree(const.SYS_open_tree, dirfd, os.fsencode(path), flags | const.OPEN_TREE_CLOEXEC)
    return check(result, "open_tree", path)


def clone_fd(fd: int, flags: int = 0) -> int:
    """Return a detached copy of the mount of what `fd` refers to: the bind mount of exactly that inode."""
    return open_tree(fd, "", const.OPEN_TREE_CLONE | const.AT_EMPTY_PATH | flags)


def move_mount(tree: int, target: int, path: str = "") -> None:
    """Attach the detached tree to the directory or file that `target` refers to.

    path is only for the error. Raises OSError: ENOTDIR (file on directory or reverse), EINVAL, ELOOP.
    """
    check(_move_mount(const.SYS_move_mount, tree, b"", target, b"", _MOVE_FD_TO_FD), "move_mount", path)


def mount_setattr(
    fd: int, attr_set: int, *, clear: int = 0, propagation: int = 0, user_namespace: int = 0, recursive: bool = False
) -> None:
    """Change the attributes (MOUNT_ATTR_*) or the propagation (MS_PRIVATE ...) of the mount `fd` refers to.

    user_namespace: with MOUNT_ATTR_IDMAP. recursive: all mounts below too, in one step; 5.12. Raises OSError: EINVAL
    (unknown attribute), EPERM (locked).
    """
    flags = const.AT_EMPTY_PATH | (const.AT_RECURSIVE if recursive else 0)
    attributes = struct.pack("QQQQ", attr_set, clear, propagation, user_namespace)
    check(_mount_setattr(const.SYS_mount_setattr, fd, b"", flags, attributes, len(attributes)), "mount_setattr")


def fsopen(fstype: str) -> int:
    """Return a close-on-exec file system context. Raises OSError ENODEV when the kernel lacks the file system."""
    return check(_fsopen(const.SYS_fsopen, fstype.encode(), const.FSOPEN_CLOEXEC), "fsopen", fstype)


def fsconfig_string(context: int, key: str, value: str) -> None:
    """Set one option. Raises OSError: EINVAL for an unknown option or value, or over 255 bytes."""
    result = _fsconfig(const.SYS_fsconfig, context, const.FSCONFIG_SET_STRING, key.encode(), os.fsencode(value), 0)
    if result < 0:
        raise _explained(context, f"fsconfig {key}", value)


def fsconfig_flag(context: int, key: str) -> None:
    """Set an option that has no value. Raises OSError EINVAL for an unknown one."""
    result = _fsconfig(const.SYS_fsconfig, context, const.FSCONFIG_SET_FLAG, key.encode(), None, 0)
    if result < 0:
        raise _explained(context, f"fsconfig {key}", "")


def fsconfig_fd(context: int, key: str, fd: int) -> None:
    """Set an option to an open file; overlayfs takes its directories so since 6.13. Raises OSError EINVAL before."""
    result = _fsconfig(const.SYS_fsconfig, context, const.FSCONFIG_SET_FD, key.encode(), None, fd)
    if result < 0:
        raise _explained(context, f"fsconfig {key}", "")


def fsmount(context: int, attributes: int = 0) -> int:
    """Create the file system of a configured context and return it as a detached mount, O_PATH and close-on-exec.

    attributes: MOUNT_ATTR_*. Raises OSError as mount(2) of that file system does, with the kernel's own words.
    """
    if _fsconfig(const.SYS_fsconfig, context, const.FSCONFIG_CMD_CREATE, None, None, 0) < 0:
        raise _explained(context, "fsconfig CMD_CREATE", "")
    fd = _fsmount(const.SYS_fsmount, context, const.FSMOUNT_CLOEXEC, attributes)
    if fd < 0:
        raise _explained(context, "fsmount", "")
    return fd


def _explained(context: int, call: str, path: str) -> OSError:
    """The errno of the last call with the newest line of the context's message log, read(2) of it."""
    error = failure(call, path)
    lines = []
    while True:
        try:
            lines.append(os.read(context, 4096))
        except OSError:  # ENODATA: no more lines
            break
    words = [line.decode(errors="replace").strip()[2:] for line in lines if line[:2] in (b"e ", b"w ")]
    if words:
        error.strerror = f"{error.strerror} ({words[-1]})"
    return error
