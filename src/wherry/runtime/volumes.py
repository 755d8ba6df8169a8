"""Volumes that are file systems of their own: mounted in the supervisor's mount namespace, and nowhere else.

    supervisor of A                       supervisor of B                 containers
      own mount namespace                   own mount namespace
      mount(2) at the volume's place  --->  a copy of that mount    --->  copies, put in their places by `init`
                                            (setns, open_tree, setns)

The first supervisor mounts, the next one copies from one that has it, so all see the same file system, a tmpfs too. The
kernel unmounts it with the last of them, whoever dies first, and the host's mount table never has it. It is mounted
from the host's network namespace, as NFS needs.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

from wherry.kernel import cachedstat, const, idmap, loop, mountapi, namespaces
from wherry.runtime import idmaps, selfprotect
from wherry.runtime.mountoptions import Options, parse
from wherry.runtime.mounts import VolumeMount
from wherry.runtime.ops_mounts import make_filesystem
from wherry.runtime.ops_root import attach_root, mount_root
from wherry.runtime.ops_users import make_mapped
from wherry.runtime.setup import reason
from wherry.runtime.wire import SetupFailure


def mount_volumes(volumes: Iterable[VolumeMount]) -> SetupFailure | None:
    """Move the calling process, which has one thread, to a mount namespace of its own and mount there."""
    try:
        namespaces.unshare(const.CLONE_NEWNS)
    except OSError as error:
        return SetupFailure.from_oserror("volume", "make a mount namespace for volumes", error)
    for volume in volumes:
        try:
            _mount_image(volume) if volume.options else mount_volume(volume)
        except OSError as error:
            message = volume.complaint + reason(error)
            return SetupFailure("volume", "mount a volume", error.errno or 0, volume.place, message)
    return None


def mount_volume(volume: VolumeMount) -> None:
    """Mount a volume in the mount namespace of the calling thread: a copy where its holder has it. Raises OSError."""
    tree = _taken(volume)
    if tree < 0:
        try:
            mountapi.mount(volume.device, volume.place, volume.fstype, volume.flags, volume.data)
        except OSError as error:
            if error.errno != errno.ENOTBLK:
                raise
            _mount_file(volume)
        return
    place = os.open(volume.place, const.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        mountapi.move_mount(tree, place, volume.place)
    finally:
        os.close(place)
        os.close(tree)


def _mount_file(volume: VolumeMount) -> None:
    """Mount an image of a file system, by a loop device that is gone with its last mount."""
    writable = not volume.flags & const.MS_RDONLY
    file = os.open(volume.device, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
    try:
        device, name = loop.attach(file, writable=writable)
    finally:
        os.close(file)
    try:
        mountapi.mount(name, volume.place, volume.fstype, volume.flags, volume.data)
    finally:
        os.close(device)


def _mount_image(volume: VolumeMount) -> None:
    """Mount what a storage driver describes: of layers that are mounted elsewhere, or of folders."""
    options = parse(volume.options)
    if options.idmap:
        _mount_mapped(volume, options)
        return
    layers = selfprotect.layer_mounts()
    if options.layers and layers is not None:
        with namespaces.visiting_mounts(layers):
            tree = make_filesystem(volume.fstype, volume.device, options.data, options.attributes)
        attach_root(tree, volume.place)
    else:
        tree = mount_root(volume.fstype, volume.device, options, volume.place)
    os.close(tree)


def _mount_mapped(volume: VolumeMount, options: Options) -> None:
    """Mount what a storage driver describes with the owners of a container; see `ops_users`."""
    user = idmap.namespace(*idmaps.parse(options.idmap), idmap.forked)
    here = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        layers = selfprotect.layer_mounts()
        if options.layers and layers is not None:
            namespaces.setns(layers, const.CLONE_NEWNS)
        tree = make_mapped(volume.fstype, volume.device, options, user)
        namespaces.setns(here, const.CLONE_NEWNS)
        attach_root(tree, volume.place)
        os.close(tree)
    finally:
        os.close(here)
        os.close(user)


def _taken(volume: VolumeMount) -> int:
    """Return a detached copy of the mount that the holder has, -1 when it is gone or has none."""
    if not volume.holder:
        return -1
    try:
        other = os.open(volume.holder, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1
    try:
        with namespaces.visiting_mounts(other):
            if not is_mounted(volume.place):
                return -1
            return mountapi.open_tree(const.AT_FDCWD, volume.place, const.OPEN_TREE_CLONE)
    except (FileNotFoundError, ProcessLookupError):
        return -1
    finally:
        os.close(other)


def is_mounted(place: str) -> bool:
    """Whether something is mounted at the place of a volume: it is on another device than its folder.

    The server of a network file system is not asked: it may be dead, and who asks could be the engine.
    """
    return _device(place) != _device(os.path.dirname(place))


def _device(path: str) -> int:
    fd = os.open(path, const.O_PATH | os.O_CLOEXEC)
    try:
        return cachedstat.state_of(fd)[0]
    finally:
        os.close(fd)
