"""The seccomp filters that the zygote compiles once and every process forked from it finds in its memory."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from socket import socket
from typing import Any, NamedTuple

from wherry.kernel import process, signals
from wherry.kernel.seccomp_bpf import compile_filter, load_filter
from wherry.runtime import channel
from wherry.runtime.wire import SetupFailure

_DIRECTORY = "/"


class Filter(NamedTuple):
    """program: for `load_filter`. can_spawn: it lets a process that is under it spawn another and tell of it."""

    program: bytes
    can_spawn: bool


Filters = Mapping[str, "Filter | SetupFailure"]


def compile_profile(profile: dict[str, Any]) -> Filter | SetupFailure:
    """Compile an OCI ``linux.seccomp`` object and try it out; a failure is for those who start with it."""
    try:
        program = compile_filter(profile)
    except (OSError, KeyError, TypeError, ValueError) as error:
        return SetupFailure("process", "compile the seccomp profile", 0, "", f"seccomp profile: {error}")
    return Filter(program, can_spawn(program))


def can_spawn(program: bytes) -> bool:
    """Find out in a child whether a fork works under the filter, with what is done around it.

    By trial, not by reading the filter: which system calls that takes is the business of interpreter and C library.
    """
    ours, theirs = channel.pair()
    with ours:
        pid = os.fork()
        if pid == 0:
            _try_to_spawn(program, theirs)
        theirs.close()
        try:
            return bool(channel.receive(ours)[0]["works"])
        except EOFError:  # the filter ended it, or kept it from telling
            return False
        finally:
            _reap(pid)


def _try_to_spawn(program: bytes, sync: socket) -> None:
    try:
        signals.reset_actions()
        process.set_no_new_privileges()
        load_filter(program)
        if os.fork() == 0:
            os.setsid()
            _execute_nothing(sync)
    finally:
        os._exit(0)


def _execute_nothing(sync: socket) -> None:
    try:
        os.execve(_DIRECTORY, [_DIRECTORY], {})
    except OSError as error:
        channel.send(sync, {"works": error.errno == errno.EACCES})  # the answer for a directory
    finally:
        os._exit(0)


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:  # where SIGCHLD is ignored, the kernel has done it
        pass
