"""Steps of a container with a user namespace of its own, in which the process that makes it does not live.

That process keeps the host's rights until the last steps, so all others do as they do without. What is different:

    owner of the namespaces    the user namespace: capabilities of the container count in them, and in nothing else
                               (but pid and time: those belong to the host's, for they are there before)
    layers, volumes            seen through idmapped mounts: their files belong to the container's ids, on the disk to
                               the same ids as without
    what is made meanwhile     belongs to the container's root, setfsuid(2)
    folders of the host        taken from the container's copy of the host's mounts: the kernel has locked there what
                               they are (read-only, nosuid), and lets no mount of the container out to the host
    proc, sysfs                made while outside: the kernel gives a mount namespace of others only what it has already
                               (mount_too_revealing() in fs/namespace.c)
    the program                joins the user namespace with BecomeUser, where all capabilities of the host end

A network namespace that was made for the container belongs to its user namespace, which is found by that: so one that
is shared by containers is one for which both have their rights.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from wherry.kernel import const, idmap, mountapi, namespaces
from wherry.kernel.idmap import forked
from wherry.runtime import selfprotect
from wherry.runtime.idmaps import Ids, apply, map_owners
from wherry.runtime.mountoptions import Options
from wherry.runtime.ops_mounts import settings
from wherry.runtime.ops_namespaces import act_for
from wherry.runtime.ops_root import bound_root, enter_layers, made_root
from wherry.runtime.setup import ContainerStart, Operation, Setup, SetupError, reason

_LAYERS = ("lowerdir+", "upperdir")


@dataclass(slots=True)
class OpenUserNamespace(Operation):
    """Find or make the user namespace, without joining it; from now on files are made by its root.

    path: of one to join, "" for the owner of the network namespace that was handed over, or a new one.
    """

    phase: ClassVar[str] = "namespaces"
    ids: Ids
    path: str

    def describe(self) -> str:
        return "make the user namespace"

    def run(self, setup: Setup) -> None:
        setup.ids = self.ids
        setup.outside = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        setup.user = self._find(setup)
        act_for(self.ids)

    def _find(self, setup: Setup) -> int:
        if self.path:
            return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        assert isinstance(setup.request, ContainerStart)
        if setup.request.netns_fd is not None:
            found = namespaces.owner(setup.request.netns_fd)
            if not os.path.samestat(os.fstat(found), os.stat("/proc/self/ns/user")):
                return found
            os.close(found)
        return idmap.namespace(self.ids.uids, self.ids.gids, forked)


@dataclass(slots=True)
class EnterHostMounts(Operation):
    """Go to the mount namespace in which the paths of bind mounts have their meaning."""

    phase: ClassVar[str] = "namespaces"

    def describe(self) -> str:
        return "enter the mount namespace of the host"

    def run(self, setup: Setup) -> None:
        engine = selfprotect.engine_mounts()
        if engine is not None:
            os.close(setup.outside)
            setup.outside = engine
        namespaces.setns(setup.outside, const.CLONE_NEWNS)


@dataclass(slots=True)
class OwnNamespaces(Operation):
    """Make the new namespaces, which belong to the container's user namespace."""

    phase: ClassVar[str] = "namespaces"
    kinds: tuple[str, ...]

    def describe(self) -> str:
        return "make new namespaces " + ", ".join(self.kinds)

    def run(self, setup: Setup) -> None:
        namespaces.enter_new(setup.user, namespaces.flags_of(self.kinds))


@dataclass(slots=True)
class MapOwners(Operation):
    """Map the ids of sources that are open: (key, path, words)."""

    phase: ClassVar[str] = "volume"
    mapped: tuple[tuple[int, str, str], ...]

    def describe(self) -> str:
        return "map the owners of mounts"

    def run(self, setup: Setup) -> None:
        for key, path, text in self.mapped:
            try:
                if setup.ids is not None and text == setup.ids.words:
                    apply(setup.sources[key], path, setup.user)
                else:
                    map_owners(setup.sources[key], path, text, forked)
            except OSError as error:
                message = f"cannot map the owners of {path}: {reason(error)}"
                raise SetupError(message, error.errno or 0, path) from error


@dataclass(slots=True)
class MakeMappedRoot(Operation):
    """Make a root file system whose layers are seen through idmapped mounts; it is mounted nowhere yet.

    The calling process is left in a mount namespace that nobody else is in, where those mounts lie over the layers.
    """

    fstype: str
    source: str
    options: Options

    def describe(self) -> str:
        return f"make the root file system ({self.fstype}) with the owners of the user namespace"

    def run(self, setup: Setup) -> None:
        if self.options.layers:
            enter_layers()
        setup.tree = make_mapped(self.fstype, self.source, self.options, setup.user)


def make_mapped(fstype: str, source: str, options: Options, user: int) -> int:
    """Return a root file system, detached, with the owners of a user namespace. Raises OSError.

    Of layers (5.19, Documentation/filesystems/overlayfs.rst) it is made in a new mount namespace, which the calling
    process, of one thread, does not leave again.
    """
    if options.bind or fstype == "bind":
        tree = bound_root(source, options)
        apply(tree, source, user)
        return tree
    namespaces.unshare(const.CLONE_NEWNS)
    mountapi.mount("", "/", "", const.MS_REC | const.MS_PRIVATE)
    for place in dict.fromkeys(_folders(source, options.data)):
        _cover(place, user)
    return made_root(fstype, source, options)


def _folders(source: str, data: tuple[str, ...]) -> Iterator[str]:
    """Yield the folders of an overlay; the one with the upper directory has its work directory too."""
    for key, value in settings("overlay", data):
        if key in _LAYERS:
            path = os.path.realpath(os.path.join(source, value or ""))
            yield os.path.dirname(path) if key == "upperdir" else path


def _cover(place: str, user: int) -> None:
    """Mount what is at a place once more on itself, with other owners."""
    target = os.open(place, const.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        tree = mountapi.clone_fd(target)
        try:
            apply(tree, place, user)
            mountapi.move_mount(tree, target, place)
        finally:
            os.close(tree)
    finally:
        os.close(target)
