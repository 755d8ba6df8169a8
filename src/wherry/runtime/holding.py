"""Descriptors that a supervisor keeps open for as long as its container lives: sockets bound to published ports."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any


class Holding:
    """Descriptors by key. Handlers of the messages "hold" and "release", see `wire`."""

    def __init__(self) -> None:
        self._held: dict[str, int] = {}

    @property
    def handlers(self) -> dict[str, Callable[[dict[str, Any], list[int]], dict[str, Any] | None]]:
        """What to do on which message."""
        return {"hold": self._hold, "release": self._release}

    def _hold(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Keep copies: the caller closes what came with the message."""
        for key, fd in zip(message["keys"], fds, strict=True):
            self._close(key)
            self._held[key] = os.dup(fd)  # close-on-exec, as all that os makes
        return {}

    def _release(self, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        """Close some."""
        for key in message["keys"]:
            self._close(key)
        return {}

    def close(self) -> None:
        """Close all: the container is over, and whoever comes next may want them."""
        for key in tuple(self._held):
            self._close(key)

    def _close(self, key: str) -> None:
        fd = self._held.pop(key, None)
        if fd is not None:
            os.close(fd)
