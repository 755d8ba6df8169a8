"""fork(2) into a control group of version 2, by clone3(2).

Moving a process (a write to cgroup.procs) takes the lock that keeps all processes of the machine from forking and
exiting, and taking it waits for an RCU grace period: 8 to 12 ms on an idle 6.18 kernel. A child that is born in the
group needs no move (CLONE_INTO_CGROUP, 5.7).
"""

from __future__ import annotations

import ctypes
import os
import signal

from wherry.kernel import libc

SYS_clone3 = 435
CLONE_INTO_CGROUP = 0x200000000

# The interpreter's own steps around fork(2), which os.fork takes too.
_before = ctypes.pythonapi.PyOS_BeforeFork
_after_in_parent = ctypes.pythonapi.PyOS_AfterFork_Parent
_after_in_child = ctypes.pythonapi.PyOS_AfterFork_Child
for _step in (_before, _after_in_parent, _after_in_child):
    _step.argtypes = []
    _step.restype = None
_clone3 = libc.bind_syscall(ctypes.c_void_p, ctypes.c_size_t)


class CloneArgs(ctypes.Structure):
    """struct clone_args of linux/sched.h, up to the field that 5.7 added."""

    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            "flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls", "set_tid",
            "set_tid_size", "cgroup",
        )
    )  # fmt: skip


def fork_into(group: int) -> int:
    """Fork a child that is born in the group whose directory `group` is open; returns as os.fork does.

    Only for a process with one thread: libc's own fork handlers are not run, and its record of the thread's id is the
    parent's in the child, which has to execve(2) or _exit(2) without making threads.
    Raises OSError: ENOSYS (before 5.3, or a seccomp filter as that of Docker's containers), E2BIG (before 5.7),
    EBUSY and EOPNOTSUPP (the group cannot have processes), ENOENT (it was removed), EAGAIN (pids.max).
    """
    arguments = CloneArgs(flags=CLONE_INTO_CGROUP, exit_signal=signal.SIGCHLD, cgroup=group)
    _before()
    pid = _clone3(SYS_clone3, ctypes.addressof(arguments), ctypes.sizeof(arguments))
    if pid == 0:
        _after_in_child()
        return 0
    _after_in_parent()
    if pid < 0:
        error = libc.failure("clone3")
        error.filename = os.readlink(f"/proc/self/fd/{group}")
        raise error
    return pid
