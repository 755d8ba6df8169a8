"""The signal state that execve(2) hands on, changed by bare system calls.

The signal module turns every number into an enum member on the way, which in a forked interpreter costs more in page
faults than the calls themselves.
"""

from __future__ import annotations

from wherry.kernel import const
from wherry.kernel.libc import bind, bind_syscall, c_char_p, c_int, c_long, c_size_t, check

SIG_SETMASK = 2
SIGSET_BYTES = 8
_ALL = b"\xff" * SIGSET_BYTES
_NONE = b"\0" * SIGSET_BYTES
_KILL, _STOP = 9, 19
_INTERNAL = (32, 33)  # the C library's own, which signal(2) refuses
_CHANGEABLE = tuple(number for number in range(1, 65) if number not in (_KILL, _STOP, *_INTERNAL))

_sigprocmask = bind_syscall(c_int, c_char_p, c_char_p, c_size_t)
_signal = bind("signal", c_int, c_long)
_RT_SIGPROCMASK = const.syscall_number("rt_sigprocmask")


def block_all() -> None:
    """Block every signal but SIGKILL and SIGSTOP in the calling thread."""
    check(_sigprocmask(_RT_SIGPROCMASK, SIG_SETMASK, _ALL, None, SIGSET_BYTES), "rt_sigprocmask")


def unblock_all() -> None:
    """Let every signal through; those that arrived meanwhile are delivered before this returns."""
    check(_sigprocmask(_RT_SIGPROCMASK, SIG_SETMASK, _NONE, None, SIGSET_BYTES), "rt_sigprocmask")


def reset_actions() -> None:
    """Give every signal its default action, those that are ignored too, which execve(2) would leave so.

    What the interpreter believes of its handlers is wrong from then on: only for a process about to execve(2).
    """
    for number in _CHANGEABLE:
        _signal(number, 0)
