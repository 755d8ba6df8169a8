"""Mounts of type image: the tree of an image, for reading only.

The supervisor of a container mounts it where only its container sees it, as it does with volumes that are file systems;
an image that a container mounts is not removed before the container.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from msgspec import structs

from wherry.containers.record import MountRecord, Record
from wherry.errors import InvalidArgument, SystemFailure
from wherry.images.images import Images
from wherry.kernel import const, idmap, mountapi, pathsafe
from wherry.kernel.aside import aside
from wherry.kernel.namespaces import setns, unshare
from wherry.runtime import idholder, mountoptions
from wherry.runtime.idmaps import Ids
from wherry.runtime.mounts import Mount, VolumeMount
from wherry.runtime.ops_mounts import apply_options
from wherry.runtime.ops_root import attach_root
from wherry.runtime.ops_users import make_mapped
from wherry.runtime.roots import make_root
from wherry.services import owners
from wherry.snapshots.api import Snapshotter

PLACES = "images"
"""The folder, in that of a container, of the mount points of its images."""

_WITHIN = const.RESOLVE_BENEATH | const.RESOLVE_NO_MAGICLINKS


def located(record: MountRecord, root: Path, images: Images) -> MountRecord:
    """Return a mount with the image that it names now. root: the folder of the container. Raises NotFound."""
    if record.type != "image":
        return record
    image = images.resolve(record.image)
    place = root / PLACES / hashlib.sha256(record.destination.encode()).hexdigest()[:16]
    return structs.replace(record, image_id=image.id, chain_id=image.chain_id, source=str(place))


def to_mount(record: Record, snapshotter: Snapshotter, ids: Ids | None) -> tuple[VolumeMount, ...]:
    """Return what the supervisor has to mount, whose mount points are made. ids: of the container.

    Blocks; raises SystemFailure, NotFound.
    """
    found = []
    for each in record.mounts:
        if each.type != "image":
            continue
        try:
            os.makedirs(each.source, mode=0o700, exist_ok=True)
        except OSError as error:
            raise SystemFailure(f"cannot make the mount point of image {each.image}: {error}") from error
        view = _protected(snapshotter.view(each.chain_id), may_mount=record.may_mount)
        complaint, options = f"error while mounting image '{each.image}': ", (*view.options, *owners.of_engine(ids))
        found.append(VolumeMount(each.source, view.type, view.source, complaint=complaint, options=options))
    return tuple(found)


def _protected(view: Mount, *, may_mount: bool) -> Mount:
    """Refuse what a container could make writable: raises InvalidArgument."""
    if view.type == "bind" and may_mount:
        raise InvalidArgument(
            "the storage driver vfs mounts an image as the folder that it is kept in, which a container that may mount "
            "(--privileged, CAP_SYS_ADMIN) could write to"
        )
    return view


def opened(
    record: MountRecord, snapshotter: Snapshotter, place: Path, ids: Ids | None, *, may_mount: bool = False
) -> int:
    """Return a detached mount of the image, or of its part. place: any directory. ids: of the container.

    may_mount: whether that may mount file systems. Raises SystemFailure, NotFound; InvalidArgument when the part leads
    out of the image or is not there.
    """
    view = _protected(snapshotter.view(record.chain_id), may_mount=may_mount)

    def job() -> int:
        unshare(const.CLONE_FS | const.CLONE_NEWNS)
        top = os.open("/", const.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            mountapi.mount_setattr(top, 0, propagation=const.MS_PRIVATE, recursive=True)
        finally:
            os.close(top)
        if ids is not None:
            root = _mapped(view, snapshotter.mount_namespace, ids)
        elif view.type == "bind":
            root = mountapi.open_tree(const.AT_FDCWD, view.source, const.OPEN_TREE_CLONE)
        else:
            root = make_root(view, snapshotter.mount_namespace)
        try:
            attach_root(root, str(place))
            part = pathsafe.openat2(root, record.subpath or ".", const.O_PATH, resolve=_WITHIN)
            try:
                return mountapi.clone_fd(part)
            finally:
                os.close(part)
        finally:
            os.close(root)

    try:
        tree = aside(job)
    except OSError as error:
        kind = InvalidArgument if record.subpath else SystemFailure
        raise kind(f"cannot mount image {record.image}, part {record.subpath or '/'}: {error}") from error
    try:
        apply_options(tree, mountoptions.parse(record.options))
    except OSError as error:
        os.close(tree)
        raise SystemFailure(f"cannot mount image {record.image}: {error}") from error
    return tree


def _mapped(view: Mount, layers: int, ids: Ids) -> int:
    """Return the tree with the owners of a container."""
    here = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    user = idmap.namespace(ids.uids, ids.gids, idholder.spawned)
    try:
        options = mountoptions.parse(view.options)
        if options.layers:
            setns(layers, const.CLONE_NEWNS)
        tree = make_mapped(view.type, view.source, options, user)
        setns(here, const.CLONE_NEWNS)
        return tree
    finally:
        os.close(user)
        os.close(here)
