"""What a supervisor sees to for as long as its container lives: sockets bound to published ports, which it keeps open,
and the file of the network namespace, which it deletes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from wherry.kernel import const, mountapi


class Holding:
    """Descriptors by key. Handlers of the messages "hold" and "release", see `wire`."""

    def __init__(self, netns_file: str) -> None:
        self._netns_file = netns_file
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

    def delete_netns_file(self) -> None:
        """Delete the file of the network namespace; the engine may have done it. Raises OSError.

        That takes the mounts away which it is a mount point for elsewhere, in the engine's mount namespace above all.
        Ours has one only when it was copied from the engine's while the container ran, for a zygote that was restarted.
        """
        if not self._netns_file:
            return
        try:
            mountapi.umount2(self._netns_file, const.MNT_DETACH | const.UMOUNT_NOFOLLOW)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):  # no mount, no file
                raise
        with suppress(FileNotFoundError):
            os.unlink(self._netns_file)

    def _close(self, key: str) -> None:
        fd = self._held.pop(key, None)
        if fd is not None:
            os.close(fd)
