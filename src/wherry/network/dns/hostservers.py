"""The host's name servers as they are now: a laptop that comes into another network gets others."""

from __future__ import annotations

import os
import time

from wherry.network import hostfiles

AGE = 1.0
"""Seconds after which the file is looked at again, when somebody asks."""

_State = tuple[int, int, int]


class HostServers:
    """Reads the host's resolv.conf again when it is another one. It may be a link to a file that others write."""

    def __init__(self, path: str = hostfiles.RESOLV_CONF) -> None:
        """Read nothing yet."""
        self._path = path
        self._looked = 0.0
        self._state: _State | None = None
        self._servers: tuple[str, ...] = ()

    def current(self, known: tuple[str, ...]) -> tuple[str, ...]:
        """Return the servers; `known`, those that the engine read, while the file cannot be read or names none."""
        now = time.monotonic()
        if now - self._looked >= AGE:
            self._looked = now
            self._look()
        return self._servers or known

    def _look(self) -> None:
        try:
            found = os.stat(self._path)
            state = found.st_ino, found.st_mtime_ns, found.st_size
            if state != self._state:
                self._servers = tuple(hostfiles.nameservers(self._path))
                self._state = state
        except OSError:  # being replaced just now, or not for everybody to read: what was known goes on
            self._state = None
