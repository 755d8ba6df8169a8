"""The mounts of a container: the kernel's file systems, then what the user asks for, parents first. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from wherry.errors import InvalidArgument
from wherry.models.container import HostConfig
from wherry.runtime.mounts import Mount

SHM_SIZE = 64 << 20
INIT_TARGET = "/sbin/docker-init"
STAYS_WRITABLE = frozenset({"/proc", "/dev/pts", "/dev/shm", "/dev/mqueue", "/dev"})
"""Under a read-only root: the memory file systems that programs need."""

TMPFS_FLAGS = frozenset(
    {"rw", "ro", "exec", "noexec", "suid", "nosuid", "dev", "nodev", "sync", "async", "dirsync", "remount", "mand"}
    | {"nomand", "atime", "noatime", "diratime", "nodiratime", "bind", "rbind", "unbindable", "runbindable"}
    | {"private", "rprivate", "shared", "rshared", "slave", "rslave", "relatime", "norelatime", "strictatime"}
    | {"nostrictatime", "defaults"}
)
TMPFS_VALUES = frozenset({"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"})


def mounts(
    host: HostConfig, extra: Iterable[Mount], joined: Mapping[str, str], *, writable_cgroups: bool
) -> list[Mount]:
    """Return all mounts in order. joined: /proc/PID/ns/X by namespace, for those shared with another container."""
    asked = sorted([*_tmpfs(host), *extra], key=lambda each: each.target.count("/"))
    taken = {each.target for each in asked}
    kept = [
        _read_only(each) if host.readonly_rootfs else each
        for each in [*_system(host, writable_cgroups=writable_cgroups), *_shm(host, joined)]
        if each.target not in taken and not (each.target.startswith("/dev/") and "/dev" in taken)
    ]
    return [*kept, *asked]


def _system(host: HostConfig, *, writable_cgroups: bool) -> list[Mount]:
    usual = ("nosuid", "noexec", "nodev")
    sysfs = usual if host.privileged else (*usual, "ro")
    cgroup = usual if host.privileged or writable_cgroups else ("ro", *usual)
    return [
        Mount("proc", "proc", "/proc", usual),
        Mount("tmpfs", "tmpfs", "/dev", ("nosuid", "strictatime", "mode=755", "size=65536k")),
        Mount(
            "devpts",
            "devpts",
            "/dev/pts",
            ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
        ),
        Mount("sysfs", "sysfs", "/sys", sysfs),
        Mount("cgroup", "cgroup", "/sys/fs/cgroup", cgroup),
        Mount("mqueue", "mqueue", "/dev/mqueue", usual),
    ]


def _shm(host: HostConfig, joined: Mapping[str, str]) -> list[Mount]:
    """Shared memory of POSIX goes with the IPC namespace: whose namespace, his /dev/shm."""
    if host.ipc_mode == "none":
        return []
    if host.ipc_mode == "host":
        return [Mount("bind", "/dev/shm", "/dev/shm", ("rbind", "rprivate"))]
    if "ipc" in joined:
        process = joined["ipc"].rsplit("/ns/", 1)[0]
        return [Mount("bind", f"{process}/root/dev/shm", "/dev/shm", ("rbind", "rprivate"))]
    options = ("nosuid", "noexec", "nodev", "mode=1777", f"size={host.shm_size or SHM_SIZE}")
    return [Mount("tmpfs", "shm", "/dev/shm", options)]


def _read_only(mount: Mount) -> Mount:
    if mount.target in STAYS_WRITABLE or "ro" in mount.options:
        return mount
    return Mount(mount.type, mount.source, mount.target, (*mount.options, "ro"))


def _tmpfs(host: HostConfig) -> list[Mount]:
    found = []
    for target, text in (host.tmpfs or {}).items():
        options = tmpfs_options(text)
        found.append(Mount("tmpfs", "tmpfs", target, ("noexec", "nosuid", "nodev", "rprivate", *options)))
    return found


def tmpfs_options(text: str) -> tuple[str, ...]:
    """Return the options of one --tmpfs; raises InvalidArgument for one that is not tmpfs's."""
    options = tuple(each for each in text.split(",") if each)
    for option in options:
        name, equals, value = option.partition("=")
        if name not in (TMPFS_VALUES if equals else TMPFS_FLAGS) or (equals and not value):
            raise InvalidArgument(f'invalid tmpfs option "{option}"')
    return options
