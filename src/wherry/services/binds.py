"""Mounts that the client and the image ask for: -v, --mount, VOLUME and --volumes-from, to resolved records.

"-v SRC:DST[:OPTIONS]" makes a missing source directory, "--mount type=bind" refuses it, as dockerd does. Where two say
something about one place, -v and --mount go before what comes from another container, and that before VOLUME.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from msgspec import structs

from wherry.containers.record import MountRecord
from wherry.errors import InvalidArgument, SystemFailure
from wherry.models.container import (
    BindOptions,
    ContainerConfig,
    DriverConfig,
    HostConfig,
    MountPoint,
    TmpfsOptions,
    VolumeOptions,
)
from wherry.runtime.idmaps import Ids
from wherry.services import owners
from wherry.volumes import backing, names
from wherry.volumes.records import LOCAL, invent_name

PROPAGATIONS = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})
KINDS_OF_MODE = (
    frozenset({"rw", "ro"}),
    frozenset({"z", "Z"}),
    frozenset({"nocopy"}),
    frozenset({"cached", "consistent", "delegated"}),
    PROPAGATIONS,
)
"""The words after the second colon of -v: at most one of each kind."""

OPTIONS_OF = {"bind": "BindOptions", "volume": "VolumeOptions", "tmpfs": "TmpfsOptions", "image": "ImageOptions"}
TMPFS_WORDS = frozenset({"exec", "noexec"})
MODES = range(1 << 32)


@dataclass(frozen=True, slots=True)
class Wanted:
    """One mount, and what its volume is to have if it has to be made. options: of the driver."""

    record: MountRecord
    options: Mapping[str, str] | None = None
    labels: Mapping[str, str] | None = None


def clean_destination(text: str, spec: str) -> str:
    """Return the normal form of an absolute container path that is not the root; raises InvalidArgument."""
    if not text.startswith("/"):
        raise InvalidArgument(f"{spec}invalid mount path: '{text}' mount path must be absolute")
    if "\0" in text:
        raise InvalidArgument(f"{spec}invalid mount path: '{text}' has a NUL byte in it")
    path = "/" + os.path.normpath(text).lstrip("/")
    if path == "/":
        raise InvalidArgument(f"{spec}invalid specification: destination can't be '/'")
    return path


def _check_mode(mode: str) -> set[str]:
    words = mode.split(",") if mode else []
    mapped = [word for word in words if owners.asked(word)]
    if len(mapped) > 1:
        raise InvalidArgument(f"invalid mode: {mode}")
    words = [word for word in words if word not in mapped]
    for word in words:
        if not any(word in kind for kind in KINDS_OF_MODE):
            raise InvalidArgument(f"invalid mode: {mode}")
    if any(sum(word in kind for word in words) > 1 for kind in KINDS_OF_MODE):
        raise InvalidArgument(f"invalid mode: {mode}")
    return set(words)


def parse_bind(spec: str, driver: str = "") -> Wanted:
    """Return what one -v asks for; raises InvalidArgument or NotFound with dockerd's text."""
    parts = spec.split(":")
    if len(parts) > 3 or not parts[0] or "\0" in spec:
        raise InvalidArgument(f"invalid volume specification: '{spec}'")
    kind = "bind" if len(parts) > 1 and parts[0].startswith("/") else "volume"
    where = f"invalid volume specification: '{spec}': invalid mount config for type \"{kind}\": "
    if len(parts) == 1:
        return anonymous(clean_destination(spec, where), driver, mode="z")
    mode = parts[2] if len(parts) == 3 else ""
    words = _check_mode(mode)
    idmap = owners.of_words(mode.split(","))
    destination = clean_destination(parts[1], where)
    writable = "ro" not in words
    if kind == "volume":
        if words & PROPAGATIONS:
            raise InvalidArgument(f"{where}field BindOptions must not be specified")
        record = _volume(parts[0], destination, driver, rw=writable, copy="nocopy" not in words)
        return Wanted(structs.replace(record, mode=mode or "z", idmap=idmap))
    if "nocopy" in words:
        raise InvalidArgument(f"{where}field VolumeOptions must not be specified")
    propagation = next(iter(words & PROPAGATIONS), "rprivate")
    record = MountRecord(
        type="bind",
        source=os.path.normpath(parts[0]),
        destination=destination,
        mode=mode,
        rw=writable,
        propagation=propagation,
        options=("rbind", propagation, *(() if writable else ("rro",))),
        make_source=True,
        idmap=idmap,
    )
    return Wanted(record)


def _volume(name: str, destination: str, driver: str, *, rw: bool, copy: bool) -> MountRecord:
    options = ("rbind", "rprivate", *(() if rw else ("rro",)))
    return MountRecord(
        type="volume",
        source="",
        destination=destination,
        mode="z",
        rw=rw,
        options=options,
        name=names.check(name),
        copy=copy,
        driver=driver,
    )


def anonymous(destination: str, driver: str = "", *, mode: str = "") -> Wanted:
    """Return a mount of a volume that nobody named."""
    record = _volume(invent_name(), destination, driver, rw=True, copy=True)
    return Wanted(structs.replace(record, mode=mode, anonymous=True))


def make_source(record: MountRecord, ids: Ids | None = None) -> None:
    """Make the missing host directory of a bind mount, or refuse it. ids: of the container, whose root gets it.

    Raises SystemFailure, InvalidArgument.
    """
    if record.type != "bind" or os.path.exists(record.source):
        return
    if not record.make_source:
        raise InvalidArgument(f'invalid mount config for type "bind": bind source path does not exist: {record.source}')
    try:
        _make_folders(record.source, (0, 0) if ids is None or record.idmap else ids.host(0, 0))
    except OSError as error:
        if os.path.exists(record.source):
            return  # somebody has put a file or a socket there meanwhile: bound as it is
        why = (error.strerror or "").lower()
        raise SystemFailure(
            f"error while creating mount source path '{record.source}': mkdir {error.filename}: {why}"
        ) from error


def _make_folders(path: str, owner: tuple[int, int]) -> None:
    """Make a directory and those above that are missing, all of them somebody's. Raises OSError."""
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for each in reversed(missing):
        try:
            os.mkdir(each)
        except FileExistsError:
            if not os.path.isdir(each):
                raise
        else:
            os.chown(each, *owner, follow_symlinks=False)


def parse_mount(mount: MountPoint) -> Wanted:
    """Return what one --mount asks for; raises InvalidArgument or NotFound with dockerd's text."""
    given = {"bind": mount.bind_options, "volume": mount.volume_options, "tmpfs": mount.tmpfs_options}
    for kind, options in {**given, "image": mount.image_options}.items():
        if kind != mount.type and options is not None:
            raise InvalidArgument(f'{OPTIONS_OF[kind]} must not be specified on mount type "{mount.type}"')
    where = f'invalid mount config for type "{mount.type}": '
    if not mount.target:
        raise InvalidArgument(f"{where}field Target must not be empty")
    target = clean_destination(mount.target, where)
    parse = _PARSERS.get(mount.type)
    if parse is None:
        raise InvalidArgument(f"{where}mount type unknown")
    return parse(mount, target, where)


def _bind_mount(mount: MountPoint, target: str, where: str) -> Wanted:
    options = mount.bind_options or BindOptions()
    if not mount.source:
        raise InvalidArgument(f"{where}field Source must not be empty")
    if not mount.source.startswith("/"):
        raise InvalidArgument(f"{where}invalid mount path: '{mount.source}' mount path must be absolute")
    _check_source(mount.source, where, create=options.create_mountpoint)
    propagation = options.propagation or "rprivate"
    if propagation not in PROPAGATIONS:
        raise InvalidArgument(f"{where}invalid propagation mode: {propagation}")
    record = MountRecord(
        type="bind",
        source=os.path.normpath(mount.source),
        destination=target,
        rw=not mount.read_only,
        propagation=propagation,
        options=("bind" if options.non_recursive else "rbind", propagation, *_access(mount, options)),
        make_source=options.create_mountpoint,
        idmap=owners.of_options(options.idmap),
    )
    return Wanted(record)


def _check_source(source: str, where: str, *, create: bool) -> None:
    """Raise InvalidArgument unless there is something at a path of the host; create: or could be."""
    try:
        os.stat(source)
    except FileNotFoundError:
        if not create:
            raise InvalidArgument(f"{where}bind source path does not exist: {source}") from None
    except OSError as error:
        raise InvalidArgument(f"{where}stat {source}: {(error.strerror or '').lower()}") from error
    except ValueError as error:  # a NUL in it
        raise InvalidArgument(f"{where}stat {source}: invalid argument") from error


def _access(mount: MountPoint, options: BindOptions) -> tuple[str, ...]:
    flat, deep = options.read_only_non_recursive, options.read_only_force_recursive
    if not mount.read_only:
        for asked, name in ((flat, "ReadOnlyNonRecursive"), (deep, "ReadOnlyForceRecursive")):
            if asked:
                raise InvalidArgument(f"mount options conflict: !ReadOnly && BindOptions.{name}")
        return ()
    if flat and deep:
        raise InvalidArgument("mount options conflict: ReadOnlyNonRecursive && BindOptions.ReadOnlyForceRecursive")
    return ("ro",) if flat else ("rro",)


def _volume_mount(mount: MountPoint, target: str, where: str) -> Wanted:
    options = mount.volume_options or VolumeOptions()
    driver = options.driver_config or DriverConfig()
    idmap = owners.of_options(options.idmap)
    if not mount.source:
        if mount.read_only:
            raise InvalidArgument(f"{where}must not set ReadOnly mode when using anonymous volumes")
        if options.subpath:
            raise InvalidArgument(f"{where}must not set Subpath when using anonymous volumes")
        wanted = anonymous(target, driver.name, mode="z")
        record = structs.replace(wanted.record, copy=not options.no_copy, idmap=idmap)
        return Wanted(record, driver.options, options.labels)
    _check_subpath(options.subpath, where)
    record = _volume(mount.source, target, driver.name, rw=not mount.read_only, copy=not options.no_copy)
    return Wanted(structs.replace(record, subpath=options.subpath, idmap=idmap), driver.options, options.labels)


def _check_subpath(subpath: str, where: str) -> None:
    if subpath.startswith("/") or os.path.normpath(subpath).split("/")[0] == "..":
        raise InvalidArgument(f"{where}subpath must be a relative path within the volume")


def _image_mount(mount: MountPoint, target: str, where: str) -> Wanted:
    subpath = mount.image_options.subpath if mount.image_options else ""
    if not mount.source:
        raise InvalidArgument(f"{where}field Source must not be empty")
    _check_subpath(subpath, where)
    record = MountRecord(
        type="image",
        source="",
        destination=target,
        rw=False,
        propagation="rprivate",
        options=("rbind", "rprivate", "rro"),
        subpath=subpath,
        image=mount.source,
    )
    return Wanted(record)


def _tmpfs_mount(mount: MountPoint, target: str, where: str) -> Wanted:
    if mount.source:
        raise InvalidArgument(f"{where}field Source must not be specified")
    wanted = mount.tmpfs_options or TmpfsOptions()
    options = ["noexec", "nosuid", "nodev", "rprivate"]
    for entry in wanted.options or ():
        if len(entry) not in (1, 2):
            raise InvalidArgument(f"{where}invalid option array length")
        if entry[0] not in TMPFS_WORDS:
            raise InvalidArgument(f"{where}invalid option: {entry[0]}")
        options.append(entry[0])
    if wanted.size_bytes < 0:
        raise InvalidArgument(f"{where}SizeBytes must not be negative")
    if wanted.size_bytes:
        options.append(f"size={wanted.size_bytes}")
    if wanted.mode not in MODES:
        raise InvalidArgument(f"{where}Mode must be a number of 32 bits")
    if wanted.mode:
        options.append(f"mode={wanted.mode:o}")
    if mount.read_only:
        options.append("ro")
    return Wanted(
        MountRecord(type="tmpfs", source="", destination=target, rw=not mount.read_only, options=tuple(options))
    )


_PARSERS = {"bind": _bind_mount, "volume": _volume_mount, "tmpfs": _tmpfs_mount, "image": _image_mount}


def parse_volumes_from(spec: str) -> tuple[str, bool]:
    """Return the container that "NAME[:ro|rw|z|Z]" names and whether its mounts stay writable."""
    if not spec:
        raise InvalidArgument("volumes-from specification cannot be an empty string")
    name, _, mode = spec.partition(":")
    words = _check_mode(mode)
    if not name:
        raise InvalidArgument('invalid name or ID supplied: ""')
    if words & (PROPAGATIONS | {"nocopy"}) or any(owners.asked(word) for word in mode.split(",")):
        raise InvalidArgument(f"invalid mode: {mode}")
    return name, "ro" not in words


def inherit(record: MountRecord, *, writable: bool) -> Wanted:
    """Return a mount of another container as it is taken over. What is in a volume by now is not added to."""
    rw = record.rw and writable
    access = () if rw or not record.rw else ("ro",) if record.type == "tmpfs" else ("rro",)
    return Wanted(structs.replace(record, rw=rw, mode="", copy=False, options=(*record.options, *access)))


def resolve(host: HostConfig, config: ContainerConfig, inherited: Iterable[Wanted] = ()) -> tuple[Wanted, ...]:
    """Return all mounts of a container but --tmpfs, parents first; raises InvalidArgument or NotFound."""
    short = [parse_bind(spec, host.volume_driver) for spec in host.binds or ()]
    long = [parse_mount(mount) for mount in host.mounts or ()]
    asked = [*short, *long]
    tmpfs = [clean_destination(path, "") for path in host.tmpfs or ()]
    targets = [mount.target for mount in host.mounts or ()]
    shown = [*tmpfs, *(each.record.destination for each in short), *targets]
    _check_unique(zip([*tmpfs, *(each.record.destination for each in asked)], shown, strict=True))
    found = {each.record.destination: each for each in inherited if each.record.destination not in tmpfs}
    found |= {each.record.destination: each for each in asked}
    for path in config.volumes or ():
        destination = clean_destination(path if path.startswith("/") else f"/{path}", "")
        if destination not in found and destination not in tmpfs:
            found[destination] = anonymous(destination, host.volume_driver)
    for each in found.values():
        if each.options and names.driver(each.record.driver) == LOCAL:
            backing.check(each.record.name, each.options)
    settled = [replace(each, record=owners.settled(each.record, config.user)) for each in found.values()]
    return tuple(sorted(settled, key=lambda each: each.record.destination.count("/")))


def _check_unique(destinations: Iterable[tuple[str, str]]) -> None:
    """destinations: in normal form, and as the refusal shows them."""
    seen = set()
    for destination, shown in destinations:
        if destination in seen:
            raise InvalidArgument(f"Duplicate mount point: {shown}")
        seen.add(destination)
