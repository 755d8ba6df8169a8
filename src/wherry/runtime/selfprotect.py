"""Run the interpreter from read-only mounts, so that no container can write to it through /proc/PID/exe.

A process on its way into a container is still the host's interpreter, and an image can make it start the interpreter
again ("#!/proc/self/exe"): CVE-2019-5736 overwrote the runtime's binary so. What a process runs from a read-only
mount cannot be opened for writing by anyone, and the mount is in a mount namespace that no container is in.

    engine's mount namespace          ours (a copy; changes over there still arrive here, none goes back)
    /usr/bin/python3.11   rw    --->  /usr/bin/python3.11   ro      and again for libpython, the standard library
                                      execve: /proc/self/exe is this one from now on           and this package
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from wherry.kernel import const, mountapi, namespaces

_MARK = "WHERRY_ENGINE_MOUNTS"
_engine: list[int] = []
_layers: list[int] = []


def protect_interpreter() -> None:
    """Execute this program once more from read-only mounts; returns in the process that runs from them.

    All descriptors, arguments and the environment stay as they are.
    """
    mark = os.environ.pop(_MARK, "")
    if mark:
        os.unsetenv(_MARK)
        os.set_inheritable(int(mark), False)
        _engine.append(int(mark))
        return
    engine = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    namespaces.unshare(const.CLONE_NEWNS)
    root = os.open("/", const.O_PATH | os.O_CLOEXEC)
    mountapi.mount_setattr(root, 0, propagation=const.MS_SLAVE, recursive=True)
    os.close(root)
    for path in sorted(set(_own_files())):
        _make_read_only(path)
    os.set_inheritable(engine, True)
    executable = os.readlink("/proc/self/exe")
    os.execve(executable, sys.orig_argv, {**os.environ, _MARK: str(engine)})


def take_layer_mounts(fd: int) -> None:
    """Keep the mount namespace in which layers are mounted (the erofs driver's), for `layer_mounts`."""
    os.set_inheritable(fd, False)
    _layers.append(fd)


def layer_mounts() -> int | None:
    """Return the mount namespace in which layers are mounted, which is where a root made of them is made."""
    return _layers[0] if _layers else None


def drop_layer_mounts() -> None:
    """Let the mounts of layers go: whoever holds them keeps the disk from getting the room of removed layers back."""
    while _layers:
        os.close(_layers.pop())


def kept() -> tuple[int, ...]:
    """Return the descriptors that a child needs on its way into a container."""
    return (*_engine, *_layers)


def engine_mounts() -> int | None:
    """Return the mount namespace that `protect_interpreter` left: where the paths of bind mounts have their meaning."""
    return _engine[0] if _engine else None


def _own_files() -> Iterator[str]:
    """The executable, what is mapped of shared libraries, the standard library and this package."""
    yield os.readlink("/proc/self/exe")
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            path = line.rstrip("\n").partition("/")[2]
            if path and ".so" in path and not path.endswith(" (deleted)"):
                yield os.path.realpath("/" + path)
    yield os.path.realpath(os.path.dirname(os.__file__))
    yield os.path.realpath(os.path.dirname(os.path.dirname(__file__)))


def _make_read_only(path: str) -> None:
    target = os.open(path, const.O_PATH | os.O_CLOEXEC)
    try:
        tree = mountapi.clone_fd(target)
        try:
            mountapi.mount_setattr(tree, const.MOUNT_ATTR_RDONLY)
            mountapi.move_mount(tree, target, path)
        finally:
            os.close(tree)
    finally:
        os.close(target)


