"""Places in a container that something is mounted at, made when they are missing.

A container with a user namespace is made by a process that has the host's rights. A folder of the host may be mounted
in it that its root may not enter or write to; so what is missing is made with the rights of that root alone: as its
user without capabilities, or, where it has some over files of others in its user namespace, by a child that joins that.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from wherry.kernel import const, fileids, namespaces, pathsafe
from wherry.runtime.setup import Setup

Make = Callable[[int, str], int]


def directory(setup: Setup, path: str) -> int:
    """Return an O_PATH descriptor of a directory of the container. Raises OSError as `pathsafe.make_directories`."""
    return _made(setup, path, pathsafe.make_directories)


def file(setup: Setup, path: str) -> int:
    """Return an O_PATH descriptor of what is at a path of the container, an empty file when nothing was there."""
    return _made(setup, path, pathsafe.make_file)


def _made(setup: Setup, path: str, make: Make) -> int:
    if setup.ids is None:
        return make(setup.root, path)
    try:
        return pathsafe.open_path(setup.root, path, directory=make is pathsafe.make_directories)
    except FileNotFoundError:
        pass
    try:
        with fileids.plain():
            return make(setup.root, path)
    except PermissionError:
        _make_inside(setup, path, make)
        return pathsafe.open_path(setup.root, path)


def _make_inside(setup: Setup, path: str, make: Make) -> None:
    """Have a child make it that has joined the user namespace, and so all capabilities there and none outside."""
    pid = os.fork()
    if pid == 0:
        number = errno.EPERM
        try:
            namespaces.setns(setup.user, const.CLONE_NEWUSER)
            os.close(make(setup.root, path))
            number = 0
        except OSError as error:
            number = error.errno or errno.EPERM
        finally:
            os._exit(min(number, 255))
    number = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if number:
        raise OSError(abs(number), f"mkdir: {os.strerror(abs(number))}", path)
