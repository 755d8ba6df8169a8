"""The mounts of a container: its root with the layers below it, what is hidden, and what comes from the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wherry.kernel.procfs import Mounted, Process
from wherry.models.xray import Layer, Mount, Mounts

MOST = 1000
SYSTEM = frozenset({"proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2", "securityfs", "bpf", "devtmpfs"})
HIDDEN_BELOW = ("/proc/", "/sys/")


def read(process: Process, layers: Mapping[str, Layer], files: Mapping[str, str]) -> Mounts:
    """Return the mounts of a process; raises OSError. layers: by chain ID. files: the engine's, by target."""
    found = process.mounts()
    root = _top(found)
    options = root.super_options if root and root.type == "overlay" else ()
    entries = [_entry(each, files, root) for each in found[:MOST]]
    return Mounts(
        storage=root.type if root else "",
        writable=root is not None and writable(root),
        layers=tuple(name_layer(directory, layers) for directory in lower(options)),
        upper=_option(options, "upperdir"),
        work=_option(options, "workdir"),
        entries=tuple(sorted(entries, key=lambda each: (each.target != "/", each.target, each.id))),
        left_out=max(0, len(found) - MOST),
    )


def _top(found: Sequence[Mounted]) -> Mounted | None:
    roots = [each for each in found if each.target == "/"]
    return roots[-1] if roots else None


def writable(mount: Mounted) -> bool:
    """Whether both the mount and its file system may be written to."""
    return "rw" in mount.options and "ro" not in mount.super_options


def _option(options: Sequence[str], name: str) -> str:
    return next((each.partition("=")[2] for each in options if each.startswith(f"{name}=")), "")


def lower(options: Sequence[str]) -> list[str]:
    """Return the lower directories of an overlay's options, topmost first: one by one (6.8), or in one list."""
    single = [each.partition("=")[2] for each in options if each.startswith("lowerdir+=")]
    return single or [each for each in _option(options, "lowerdir").split(":") if each]


def name_layer(directory: str, layers: Mapping[str, Layer]) -> Layer:
    """Return a directory with the name of the image layer whose chain ID, or the start of it, is in its path."""
    for part in directory.split("/"):
        for chain, layer in layers.items():
            if len(part) >= 24 and chain.startswith(part):
                return Layer(directory=directory, name=layer.name, digest=layer.digest)
    return Layer(directory=directory)


def _entry(mount: Mounted, files: Mapping[str, str], root: Mounted | None) -> Mount:
    return Mount(
        id=mount.id,
        parent=mount.parent,
        target=mount.target,
        kind=kind(mount, files, root),
        type=mount.type,
        source=mount.source,
        root=mount.root,
        device=mount.device,
        options=mount.options,
        super_options=mount.super_options if mount.type != "overlay" else (),
        propagation=mount.propagation,
        writable=writable(mount),
    )


def kind(mount: Mounted, files: Mapping[str, str], root: Mounted | None) -> str:
    """Return what a mount is for, from what it looks like."""
    if mount is root:
        return "root"
    if mount.target in files and mount.root.endswith(files[mount.target]):
        return "engine-file"
    below = mount.target.startswith(HIDDEN_BELOW)
    if below and mount.root == "/null":
        return "masked"
    if below and mount.type == "tmpfs" and "ro" in mount.super_options and "ro" in mount.options:
        return "masked"
    if below and mount.type in ("proc", "sysfs") and mount.root == mount.target.removeprefix("/proc"):
        return "read-only" if "ro" in mount.options else "system"
    if mount.type in SYSTEM or mount.target in ("/dev", "/dev/shm", "/sys/fs/cgroup"):
        return "system"
    return "tmpfs" if mount.type == "tmpfs" and mount.root == "/" else "bind"
