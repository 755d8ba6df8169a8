"""Starts a process of ours with an interpreter that has loaded nothing yet: the zygote, the name server."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

import wherry


def start(bootstrap: str, environment: Mapping[str, str], log: str, source: int, descriptor: int) -> int:
    """Return the pid of a session of its own that runs `bootstrap`; it writes to a fresh log, and reads nothing.

    bootstrap: code in which {packages} is where to import from and {descriptor} the number under which it finds our
    descriptor `source`. Nothing else of ours is inherited: no environment, no signals, no descriptor. Raises OSError.
    """
    packages = os.path.dirname(next(iter(wherry.__path__)))
    code = bootstrap.format(packages=packages, descriptor=descriptor)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    actions: list[Any] = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0),
        (os.POSIX_SPAWN_DUP2, 0, 1),
        (os.POSIX_SPAWN_OPEN, 2, log, flags, 0o600),
        (os.POSIX_SPAWN_DUP2, source, descriptor),
    ]
    # -S: no site packages, which cost 10 ms
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", "-S", "-c", code],
        environment,
        file_actions=actions,
        setsid=True,
        setsigmask=[],
        setsigdef=signal.valid_signals(),
    )
