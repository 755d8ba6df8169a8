"""By which user and group a thread makes files: setfsuid(2), setfsgid(2)."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from wherry.kernel import caps, const
from wherry.kernel.libc import bind, bind_syscall, c_char_p, c_size_t, c_uint, check

_setfsuid = bind("setfsuid", c_uint)
_setfsgid = bind("setfsgid", c_uint)
_setgroups = bind_syscall(c_size_t, c_char_p)
_SETGROUPS = const.syscall_number("setgroups")
_WORD = 0xFFFFFFFF


def adopt(uid: int, gid: int) -> None:
    """Have what the calling thread makes belong to these ids of its user namespace, and keep its capabilities.

    Raises OSError EINVAL for ids that are not valid there.
    """
    _, permitted, inheritable = caps.get()
    for change, wanted in ((_setfsgid, gid), (_setfsuid, uid)):
        change(wanted)
        if change(wanted) & _WORD != wanted:  # both calls tell the id before, and nothing else
            raise OSError(errno.EINVAL, f"setfsuid: {os.strerror(errno.EINVAL)}")
    caps.set_sets(permitted, permitted, inheritable)  # those for files went with the user id 0: capabilities(7)


@contextmanager
def adopted(uid: int, gid: int) -> Iterator[None]:
    """Do so for a while, in a thread that makes files by its own ids before and after. Raises OSError."""
    adopt(uid, gid)
    try:
        yield
    finally:
        adopt(os.geteuid(), os.getegid())


_OVER_FILES = caps.mask(
    ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_LINUX_IMMUTABLE"]
)


@contextmanager
def plain() -> Iterator[None]:
    """Go without the capabilities over files for a while, as any user who has the ids that were adopted."""
    effective, permitted, inheritable = caps.get()
    caps.set_sets(effective & ~_OVER_FILES, permitted, inheritable)
    try:
        yield
    finally:
        caps.set_sets(effective, permitted, inheritable)


def leave_groups() -> None:
    """Leave all supplementary groups, in the calling thread alone: setgroups(2). Raises OSError EPERM."""
    check(_setgroups(_SETGROUPS, 0, None), "setgroups")
