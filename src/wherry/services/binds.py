"""Mounts that the client asks for: -v, --mount and --tmpfs, to resolved records. Named volumes come later.

"-v SRC:DST[:OPTIONS]" makes a missing source directory, "--mount type=bind" refuses it, as dockerd does.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from wherry.containers.record import BindRecord
from wherry.errors import InvalidArgument, NotImplementedHere, SystemFailure
from wherry.models.container import HostConfig, MountPoint

PROPAGATIONS = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})
ACCESS = frozenset({"rw", "ro", "rro", "z", "Z", "nocopy", "cached", "consistent", "delegated"})


def clean_destination(text: str, spec: str) -> str:
    """Return the normal form of an absolute container path that is not the root; raises InvalidArgument."""
    if not text.startswith("/"):
        raise InvalidArgument(f"invalid volume specification: '{spec}': mount path must be absolute")
    path = os.path.normpath(text)
    if path in ("/", "//"):
        raise InvalidArgument(
            f"invalid volume specification: '{spec}': invalid specification: destination can't be '/'"
        )
    return path


def _parse_mode(mode: str, spec: str) -> tuple[bool, str]:
    """Return (writable, propagation)."""
    writable, propagation = True, "rprivate"
    for word in filter(None, mode.split(",")):
        if word in PROPAGATIONS:
            propagation = word
        elif word not in ACCESS:
            raise InvalidArgument(f"invalid volume specification: '{spec}': invalid mode: {mode}")
        elif word in ("ro", "rro"):
            writable = False
    return writable, propagation


def parse_bind(spec: str) -> BindRecord:
    """Return the record of one -v; raises InvalidArgument with dockerd's text."""
    parts = spec.split(":")
    if len(parts) == 1 or not parts[0].startswith("/"):
        clean_destination(parts[-1] if len(parts) == 1 else parts[1], spec)
        raise NotImplementedHere(
            f"volume {parts[0]!r}: named and anonymous volumes are not there yet; "
            f"give a host directory, as in -v /path:{parts[-1]}"
        )
    if len(parts) > 3:
        raise InvalidArgument(f"invalid volume specification: '{spec}'")
    source, target = parts[0], parts[1]
    mode = parts[2] if len(parts) == 3 else ""
    writable, propagation = _parse_mode(mode, spec)
    return BindRecord(
        type="bind",
        source=os.path.normpath(source),
        destination=clean_destination(target, spec),
        mode=mode,
        rw=writable,
        propagation=propagation,
        options=("rbind", propagation, *(() if writable else ("rro",))),
    )


def make_source(bind: BindRecord) -> None:
    """Make the missing host directory of a bind mount; raises SystemFailure with dockerd's words."""
    if bind.type != "bind" or os.path.lexists(bind.source):
        return
    try:
        os.makedirs(bind.source, exist_ok=True)
    except FileExistsError:
        return  # a file, a socket: bound as it is
    except OSError as error:
        raise SystemFailure(
            f"error while creating mount source path '{bind.source}': mkdir {error.filename}: {error.strerror}"
        ) from error


def parse_mount(mount: MountPoint) -> BindRecord:
    """Return the record of one --mount; raises InvalidArgument with dockerd's text."""
    if not mount.target:
        raise InvalidArgument(f'invalid mount config for type "{mount.type}": field Target must not be empty')
    target = clean_destination(mount.target, mount.target)
    if mount.type == "tmpfs":
        return _tmpfs_mount(mount, target)
    if mount.type in ("volume", "image"):
        raise NotImplementedHere(f"mounts of type {mount.type} are not there yet; use type=bind or type=tmpfs")
    if mount.type != "bind":
        raise InvalidArgument(f'invalid mount config: unknown mount type "{mount.type}"')
    options = mount.bind_options or {}
    if not mount.source:
        raise InvalidArgument('invalid mount config for type "bind": field Source must not be empty')
    if not mount.source.startswith("/"):
        raise InvalidArgument(
            f"invalid mount config for type \"bind\": invalid mount path: '{mount.source}' mount path must be absolute"
        )
    if not os.path.lexists(mount.source) and not options.get("CreateMountpoint"):
        raise InvalidArgument(f'invalid mount config for type "bind": bind source path does not exist: {mount.source}')
    propagation = str(options.get("Propagation") or "rprivate")
    if propagation not in PROPAGATIONS:
        raise InvalidArgument(f'invalid mount config for type "bind": invalid propagation mode: {propagation}')
    access = () if not mount.read_only else ("ro",) if options.get("ReadOnlyNonRecursive") else ("rro",)
    return BindRecord(
        type="bind",
        source=os.path.normpath(mount.source),
        destination=target,
        rw=not mount.read_only,
        propagation=propagation,
        options=("bind" if options.get("NonRecursive") else "rbind", propagation, *access),
    )


def _tmpfs_mount(mount: MountPoint, target: str) -> BindRecord:
    if mount.source:
        raise InvalidArgument('invalid mount config for type "tmpfs": field Source must not be specified')
    wanted = mount.tmpfs_options or {}
    options = ["noexec", "nosuid", "nodev", "rprivate"]
    if size := wanted.get("SizeBytes"):
        options.append(f"size={int(size)}")
    if mode := wanted.get("Mode"):
        options.append(f"mode={int(mode):o}")
    if mount.read_only:
        options.append("ro")
    return BindRecord(type="tmpfs", source="", destination=target, rw=not mount.read_only, options=tuple(options))


def resolve(host: HostConfig) -> tuple[BindRecord, ...]:
    """Return all mounts of a container, parents first; raises InvalidArgument for a bad form or a place used twice."""
    found = [*map(parse_bind, host.binds or ()), *map(parse_mount, host.mounts or ())]
    _check_unique(found)
    return tuple(sorted(found, key=lambda bind: bind.destination.count("/")))


def _check_unique(found: Iterable[BindRecord]) -> None:
    seen = set()
    for bind in found:
        if bind.destination in seen:
            raise InvalidArgument(f"Duplicate mount point: {bind.destination}")
        seen.add(bind.destination)
