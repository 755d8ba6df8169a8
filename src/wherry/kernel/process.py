"""What a process says about itself through prctl(2), sethostname(2), setdomainname(2) and /proc/self."""

from __future__ import annotations

import os

from wherry.kernel import const
from wherry.kernel.libc import bind, c_char_p, c_int, c_size_t, c_ulong, check

_OOM_SCORE = "/proc/self/oom_score_adj"
_prctl = bind("prctl", c_int, c_ulong, c_ulong, c_ulong, c_ulong)
_prctl_text = bind("prctl", c_int, c_char_p, c_ulong, c_ulong, c_ulong)
_sethostname = bind("sethostname", c_char_p, c_size_t)
_setdomainname = bind("setdomainname", c_char_p, c_size_t)


def prctl(option: int, value: int = 0, third: int = 0) -> int:
    """Call prctl(2) with unused arguments zero, as newer options demand. Raises OSError as the option does."""
    return check(_prctl(option, value, third, 0, 0), f"prctl {option}")


def set_dumpable(on: bool) -> None:
    """Allow or forbid core dumps and ptrace access by processes without CAP_SYS_PTRACE; execve(2) allows again."""
    prctl(const.PR_SET_DUMPABLE, int(on))


def set_no_new_privileges() -> None:
    """Make set-user-ID bits and file capabilities without effect for this process and its children, for good."""
    prctl(const.PR_SET_NO_NEW_PRIVS, 1)


def set_parent_death_signal(number: int) -> None:
    """Have the kernel send `number` when the thread that forked this process ends; 0 takes it back."""
    prctl(const.PR_SET_PDEATHSIG, number)


def set_name(name: str) -> None:
    """Set the name that ps -e, top and pstree show, /proc/PID/comm: 15 bytes of it. execve(2) sets it anew."""
    check(_prctl_text(const.PR_SET_NAME, name.encode(), 0, 0, 0), "prctl PR_SET_NAME", name)


def set_child_subreaper(on: bool) -> None:
    """Adopt orphaned descendants, in place of the first process of the pid namespace."""
    prctl(const.PR_SET_CHILD_SUBREAPER, int(on))


def sethostname(name: str) -> None:
    """Set the host name of this UTS namespace. Raises OSError: EINVAL over 64 bytes, EPERM."""
    text = name.encode()
    check(_sethostname(text, len(text)), "sethostname", name)


def setdomainname(name: str) -> None:
    """Set the NIS domain name of this UTS namespace. Raises OSError: EINVAL over 64 bytes, EPERM."""
    text = name.encode()
    check(_setdomainname(text, len(text)), "setdomainname", name)


def oom_score() -> int:
    """Return oom_score_adj, -1000 to 1000: how likely a victim of the OOM killer this process and its children are."""
    fd = os.open(_OOM_SCORE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return int(os.read(fd, 16))
    finally:
        os.close(fd)


def set_oom_score(score: int) -> None:
    """Set oom_score_adj. Raises OSError EACCES below the least value ever set, without CAP_SYS_RESOURCE."""
    fd = os.open(_OOM_SCORE, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"%d" % score)
    finally:
        os.close(fd)
