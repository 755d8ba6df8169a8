"""Starts a process of ours with an interpreter that has loaded nothing yet: the zygote, the name server."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import wherry

_FILLED = 10
_LIMIT = resource.getrlimit(resource.RLIMIT_NOFILE)


def start(bootstrap: str, environment: Mapping[str, str], log: str, given: Mapping[int, int]) -> int:
    """Return the pid of a session of its own that runs `bootstrap`; it writes to a fresh log, and reads nothing.

    bootstrap: code in which {packages} is where to import from, and {descriptor} the first number of `given`: those
    under which it finds descriptors of ours, up to 9. Nothing else of ours is inherited: no environment, no signals, no
    descriptor. Raises OSError.
    """
    packages = os.path.dirname(next(iter(wherry.__path__)))
    code = bootstrap.format(packages=packages, descriptor=next(iter(given)))
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    actions: list[Any] = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0),
        (os.POSIX_SPAWN_DUP2, 0, 1),
        (os.POSIX_SPAWN_OPEN, 2, log, flags, 0o600),
    ]
    with ExitStack() as apart:  # from all numbers that are filled
        for number, descriptor in given.items():
            source = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FILLED)
            apart.callback(os.close, source)
            actions.append((os.POSIX_SPAWN_DUP2, source, number))
        return _spawn(code, environment, actions)


def _spawn(code: str, environment: Mapping[str, str], actions: Sequence[Any]) -> int:
    # -S: no site packages, which cost 10 ms
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", "-S", "-c", code],
        environment,
        file_actions=actions,
        setsid=True,
        setsigmask=[],
        setsigdef=signal.valid_signals(),
    )
    resource.prlimit(pid, resource.RLIMIT_NOFILE, _LIMIT)
    return pid


def raise_own_limit() -> None:
    """Let this process open as many files as it may: one for each layer's mount, one for each client, and so on.

    What it starts, and so containers, have the limit that it was started with.
    """
    resource.setrlimit(resource.RLIMIT_NOFILE, (_LIMIT[1], _LIMIT[1]))
