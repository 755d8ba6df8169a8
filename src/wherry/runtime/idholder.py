"""The program that lives in a user namespace while its ids are written: see `kernel.idmap`, whose `live` it replaces.

A process with threads cannot fork to make a user namespace, and an interpreter of its own takes thirty milliseconds.
This one is some two hundred bytes:

    unshare(2), prctl(2) for the parent's end, readlink of /proc/self to standard output, then it waits to be killed
"""

from __future__ import annotations

import functools
import os

from wherry.kernel import const, idmap
from wherry.runtime import sealed
from wherry.runtime.assembler import executable

NAME = "wherry-ids"
_SOURCE = """
start:
    add    sp -64               ; the link's text
    set    a0 {flags}
    call   unshare
    lt     r 0 finish
    set    a0 1                 ; PR_SET_PDEATHSIG
    set    a1 9                 ; SIGKILL
    call   prctl
    set    a0 15                ; PR_SET_NAME
    address a1 name
    call   prctl
    set    a0 -100              ; AT_FDCWD
    address a1 self
    move   a2 sp
    set    a3 64
    call   readlinkat
    le     r 0 finish
    move   a2 r
    set    a0 1
    move   a1 sp
    call   write
    lt     r 0 finish           ; nobody reads: the parent was gone before its end could be a signal
    set    a0 1
    call   close                ; who reads has all of it
    set    t 0
    store  t sp 0               ; a set of no signals
    move   a0 sp
    set    a1 0
    set    a2 0
    set    a3 8
    call   rt_sigtimedwait
finish:
    set    a0 1
    call   exit_group
self:
    "/proc/self"
name:
    "wherry-ids"
"""


def image(machine: str, flags: int) -> bytes:
    """Return the executable for a machine, named as uname(2) names it; raises OSError for an unknown one."""
    return executable(machine, _SOURCE.format(flags=const.CLONE_NEWUSER | flags))


@functools.cache
def _program(flags: int) -> int | None:
    """The descriptor of the program, kept for good; None where memory may not be executed or the machine is unknown."""
    try:
        return sealed.keep(NAME, image(os.uname().machine, flags))
    except OSError:
        return None


def spawned(told: int, flags: int = 0) -> int:
    """Start it with `told` as its standard output, and return its pid; for `idmap.namespace`. Raises OSError."""
    program = _program(flags)
    if program is None:
        return idmap.spawned(told, flags)
    actions = [(os.POSIX_SPAWN_DUP2, told, 1)]
    return os.posix_spawn(f"/proc/self/fd/{program}", [NAME], {}, file_actions=actions)
