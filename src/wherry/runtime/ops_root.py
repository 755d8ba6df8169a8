"""Steps that make the root file system of a container, mount it, and make it the root.

An overlay is made of layers that are given one by one (lowerdir+, Linux 6.8), or, on kernels before, in one text of at
most a page; for that the storage driver uses short names that start from its own folder.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from wherry.kernel import const, mountapi, namespaces
from wherry.runtime import selfprotect
from wherry.runtime.mountoptions import Options
from wherry.runtime.ops_mounts import make_filesystem, settings
from wherry.runtime.setup import Operation, Setup, SetupError

_MOUNT_DATA = 4096  # one page


@dataclass(slots=True)
class MakeRoot(Operation):
    """Make a root file system of layers that are mounted in a namespace of their own.

    It is mounted nowhere yet; `MountRoot` does that. An overlay has copies of the mounts that it is made of, so it can
    be used where they are not.
    """

    fstype: str
    source: str
    options: Options

    def describe(self) -> str:
        return f"make the root file system ({self.fstype}) of its layers"

    def run(self, setup: Setup) -> None:
        enter_layers()
        setup.tree = make_filesystem(self.fstype, self.source, self.options.data, self.options.attributes)


def enter_layers() -> None:
    """Go to the mount namespace of the layers. Raises OSError; `SetupError` where no engine has said which it is."""
    layers = selfprotect.layer_mounts()
    if layers is None:
        raise SetupError("the mounts of the layers are out of reach: no engine has started this process")
    namespaces.setns(layers, const.CLONE_NEWNS)


@dataclass(slots=True)
class MountRoot(Operation):
    """Mount the root file system at `place`; its descriptor is the root of everything that follows."""

    fstype: str
    source: str
    options: Options
    place: str

    def describe(self) -> str:
        return f"mount the root file system ({self.fstype}) at {self.place}"

    def run(self, setup: Setup) -> None:
        if setup.tree >= 0:
            attach_root(setup.tree, self.place)
            setup.root, setup.tree = setup.tree, -1
        else:
            setup.root = mount_root(self.fstype, self.source, self.options, self.place)


def mount_root(fstype: str, source: str, options: Options, place: str) -> int:
    """Mount a root file system at the directory `place` and return a descriptor of it."""
    if options.bind or fstype == "bind":
        tree = bound_root(source, options)
    else:
        with _names_from(fstype, source):
            try:
                tree = make_filesystem(fstype, source, options.data, options.attributes)
            except OSError as error:
                if not _is_classic(fstype, error):
                    raise
                _mount_classic(source, options, place, error)
                return os.open(place, const.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    attach_root(tree, place)
    return tree


def bound_root(source: str, options: Options) -> int:
    """Return a copy of a folder's mounts, detached, as a root file system. Raises OSError."""
    tree = mountapi.open_tree(const.AT_FDCWD, source, const.OPEN_TREE_CLONE | const.AT_RECURSIVE)
    # Private: pivot_root(2) refuses a shared one, and nothing mounted in here is for anybody else
    mountapi.mount_setattr(tree, 0, propagation=const.MS_PRIVATE, recursive=True)
    mountapi.mount_setattr(tree, options.attributes, clear=options.cleared)
    return tree


def made_root(fstype: str, source: str, options: Options) -> int:
    """Return a root file system, detached. Raises OSError.

    Where an overlay's layers are names below its source it may have to be mounted there first: the caller is in a mount
    namespace that nobody else sees, and shares its working directory with no other thread.
    """
    with _names_from(fstype, source):
        try:
            return make_filesystem(fstype, source, options.data, options.attributes)
        except OSError as error:
            if not _is_classic(fstype, error) or not source.startswith("/"):
                raise
            _mount_classic(source, options, source, error)
    mounted = os.open(source, const.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return mountapi.clone_fd(mounted)
    finally:
        os.close(mounted)


@contextmanager
def _names_from(fstype: str, source: str) -> Iterator[None]:
    """Be in the folder that the names of an overlay's layers start from, when they do (snapshots overlay2)."""
    if fstype != "overlay" or not source.startswith("/"):
        yield
        return
    here = os.open(".", const.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chdir(source)
        yield
        os.fchdir(here)
    finally:
        os.close(here)


def _is_classic(fstype: str, error: OSError) -> bool:
    """Whether an overlay is refused as one of layers given one by one is by a kernel before 6.8."""
    return fstype == "overlay" and error.errno == errno.EINVAL


def attach_root(tree: int, place: str) -> None:
    """Put a detached root file system on the directory `place`."""
    target = os.open(place, const.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    mountapi.move_mount(tree, target, place)
    os.close(target)


def _mount_classic(source: str, options: Options, place: str, error: OSError) -> None:
    """Mount with mount(2): overlayfs takes "lowerdir+", and so any number of layers, since 6.8 only."""
    lower = [value or "" for key, value in settings("overlay", options.data) if key == "lowerdir+"]
    words = [word for word in options.data if word.partition("=")[0] not in ("lowerdir", "lowerdir+")]
    data = ",".join(["lowerdir=" + ":".join(map(_escaped, lower)), *(word.replace(",", "\\,") for word in words)])
    if len(os.fsencode(data)) >= _MOUNT_DATA:
        error.add_note(f"and mount(2) takes {_MOUNT_DATA} bytes of options, not {len(data)}")
        raise error
    flags = const.MS_RDONLY if options.attributes & const.MOUNT_ATTR_RDONLY else 0
    mountapi.mount(source, place, "overlay", flags, data)


def _escaped(path: str) -> str:
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


@dataclass(slots=True)
class Pivot(Operation):
    """Make the new root the root, and detach the old one with everything that is mounted on it."""

    def describe(self) -> str:
        return "change the root file system"

    def run(self, setup: Setup) -> None:
        os.fchdir(setup.root)
        mountapi.pivot_root(".", ".")
        # The old root lies on the new one now, and "." is what lies on top: pivot_root(2), NOTES
        mountapi.umount2(".", const.MNT_DETACH)
        os.chdir("/")
