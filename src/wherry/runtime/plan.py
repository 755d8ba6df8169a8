"""From an OCI runtime spec to the ordered steps that carry it out. Pure: nothing here touches the kernel.

    container   cgroup, namespaces, private procfs (sysctls, labels), sources of the host, root file system,
                pivot, mounts in the spec's order, devices, terminal, read-only and masked paths, then the process
    exec        cgroup, namespaces of the container, terminal, then the process
    process     streams, limits, user, working directory, capabilities, program, seccomp, execve

The root is changed early: from then on no path of the container can lead to the host, whatever links it holds. Only
when hooks are to run that want to see the mounts from outside is it changed after the mounts.
"""

from __future__ import annotations

import os
import resource
import stat
from dataclasses import dataclass
from typing import Any

from wherry.kernel import caps, const
from wherry.runtime.cgroups import MountSources
from wherry.runtime.idmaps import Ids
from wherry.runtime.mountoptions import parse
from wherry.runtime.mounts import Mount
from wherry.runtime.ops_mounts import BindMount, MountCgroups, MountFilesystem
from wherry.runtime.ops_namespaces import (
    AwaitHooks,
    EnterContainer,
    JoinCgroup,
    JoinGivenNetwork,
    JoinKeyring,
    JoinNamespaces,
    KeepMounts,
    NewNamespaces,
    OpenProcfs,
    SetLabels,
    SetNames,
    SetOomScore,
    StopPropagation,
    WriteSysctls,
)
from wherry.runtime.ops_process import (
    BecomeUser,
    ChangeDirectory,
    Execute,
    FindProgram,
    Identify,
    InstallStdio,
    SetRlimits,
    Spawn,
    Stay,
    WaitForStart,
)
from wherry.runtime.ops_root import MakeRoot, MountRoot, Pivot
from wherry.runtime.ops_rootfs import (
    Device,
    FinishRoot,
    MakeDevices,
    MakeTerminal,
    MakeWorkingDirectory,
    MaskPaths,
    ReadonlyPaths,
)
from wherry.runtime.ops_users import EnterHostMounts, MakeMappedRoot, MapOwners, OpenUserNamespace, OwnNamespaces
from wherry.runtime.ops_volumes import OpenParts
from wherry.runtime.setup import Operation, SetupError
from wherry.runtime.sources import OpenSources

Spec = dict[str, Any]

_BY_PARENT = ("pid", "time")  # unshare(2) and setns(2) put the next child there, not the caller
_DEVICES = tuple(
    Device(f"/dev/{name}", stat.S_IFCHR | 0o666, os.makedev(major, minor))
    for name, major, minor in (
        ("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0),
    )
)  # fmt: skip
_DEFAULT_PATHS = {device.path for device in _DEVICES} | {"/dev/console", "/dev/ptmx"}
_LINKS = (
    ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"), ("ptmx", "pts/ptmx"),
)  # fmt: skip
_NODE_TYPES = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
_PROPAGATION = {
    "private": const.MS_PRIVATE, "slave": const.MS_SLAVE, "shared": const.MS_SHARED, "unbindable": const.MS_UNBINDABLE,
}  # fmt: skip
_IPC_SYSCTLS = {
    "kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem", "kernel/shmall", "kernel/shmmax",
    "kernel/shmmni", "kernel/shm_rmid_forced",
}  # fmt: skip


def namespaces(spec: Spec) -> dict[str, str]:
    """Return the spec's namespaces: type to path, "" for a new one."""
    return {entry["type"]: entry.get("path") or "" for entry in _linux(spec).get("namespaces") or ()}


def _linux(spec: Spec) -> dict[str, Any]:
    linux: dict[str, Any] = spec.get("linux") or {}
    return linux


def clean(path: str) -> str:
    """Return an absolute path without "." and "..", as a path inside the container."""
    result = os.path.normpath("/" + path)
    return "/" + result.lstrip("/")


def plan_container(
    spec: Spec, rootfs: tuple[Mount, ...], cgroups: MountSources, *, given_network: bool, session: str, hooks: bool
) -> tuple[Operation, ...]:
    """Return the steps that make a container. session: the name of its session keyring, "" for the caller's."""
    linux = _linux(spec)
    process = spec["process"]
    mounts, sources = _mounts(spec, cgroups)
    held, others = ([each for each in sources if each.held is wanted] for wanted in (True, False))
    user = "user" in namespaces(spec)
    steps: list[Operation] = [JoinCgroup(), *(_user_steps(spec) if user else ()), *_opening(held)]
    steps += layer_steps(rootfs)
    steps += _joining_steps(spec, given_network)
    if user:
        steps += [EnterHostMounts(), OpenProcfs(), *_new_steps(spec, given_network, OwnNamespaces)]
    else:
        steps += [*_new_steps(spec, given_network, NewNamespaces), OpenProcfs()]
    steps += [KeepMounts(), *_procfs_steps(spec, process), *_opening(others)]
    steps += [StopPropagation(), *root_steps(spec, rootfs)]
    pivot: list[Operation] = [AwaitHooks(), Pivot()] if hooks else [Pivot()]
    steps += [] if hooks else pivot
    steps += mounts
    if not _dev_is_bound(spec):
        steps.append(MakeDevices(_devices(linux), _LINKS))
    if process.get("terminal"):
        steps.append(_terminal(process, console=True))
    if process.get("cwd"):
        steps.append(MakeWorkingDirectory(clean(process["cwd"])))
    steps += pivot if hooks else []
    steps += _closing_steps(spec)
    steps += [JoinKeyring(session)] if session else []
    return (*steps, *_process_steps(process, Execute, hold=True))


def plan_exec(
    process: dict[str, Any],
    spec: Spec,
    *,
    session: str,
    spawn: bool = False,
    oom_score: int | None = None,
    stay: bool = False,
) -> tuple[Operation, ...]:
    """Return the steps of one more process in a container that runs; spawn, oom_score: see `ExecStart`.

    stay: with spawn, become a starter of the program.
    """
    process = {**_inherited(spec["process"]), **process}
    if oom_score is not None and process.get("oomScoreAdj") == oom_score:
        del process["oomScoreAdj"]
    kinds = tuple(kind for kind in namespaces(spec) if kind != "user" and (spawn or kind != "pid"))
    ids = Ids.of_spec(_linux(spec)) if "user" in namespaces(spec) else None
    steps: list[Operation] = [JoinCgroup(), EnterContainer(kinds, ids)]
    written = _process_writes(process)
    if written:
        steps += [OpenProcfs(), *written]
    if process.get("terminal"):
        steps.append(_terminal(process, console=False))
    steps += [JoinKeyring(session)] if session else []
    last = Stay if stay else Spawn if spawn else Execute
    return (*steps, *_process_steps(process, last, hold=False))


def _inherited(process: dict[str, Any]) -> dict[str, Any]:
    """What an exec takes over from the container's process when it does not say otherwise."""
    keys = ("capabilities", "rlimits", "noNewPrivileges", "apparmorProfile", "selinuxLabel", "oomScoreAdj")
    return {"cwd": "/", **{key: process[key] for key in keys if key in process}}


def _user_steps(spec: Spec) -> list[Operation]:
    try:
        return [OpenUserNamespace(Ids.of_spec(_linux(spec)), namespaces(spec)["user"])]
    except ValueError as error:
        raise SetupError(str(error)) from error


def _wanted(spec: Spec, given_network: bool) -> list[tuple[str, str]]:
    """The namespaces that the first process enters itself, and has not been given."""
    wanted = namespaces(spec)
    if wanted.get("mount") != "":
        raise SetupError("a container needs a mount namespace of its own")
    if given_network:
        wanted.pop("network", None)
    return [(kind, path) for kind, path in wanted.items() if kind not in (*_BY_PARENT, "user")]


def _joining_steps(spec: Spec, given_network: bool) -> list[Operation]:
    steps: list[Operation] = [JoinGivenNetwork()] if given_network else []
    paths = tuple((kind, path) for kind, path in _wanted(spec, given_network) if path)
    return [*steps, JoinNamespaces(paths)] if paths else steps


def _new_steps(
    spec: Spec, given_network: bool, make: type[NewNamespaces] | type[OwnNamespaces]
) -> list[Operation]:
    steps: list[Operation] = [make(tuple(kind for kind, path in _wanted(spec, given_network) if not path))]
    host, domain = spec.get("hostname") or "", spec.get("domainname") or ""
    if namespaces(spec).get("uts") == "" and (host or domain):
        steps.append(SetNames(host, domain))
    return steps


def _procfs_steps(spec: Spec, process: dict[str, Any]) -> list[Operation]:
    sysctls = _linux(spec).get("sysctl") or {}
    separate = {kind for kind, path in namespaces(spec).items() if path != "/proc/1/ns/" + kind}
    for key in sysctls:
        if not _is_namespaced(sysctl_path(key), separate):
            raise SetupError(f'sysctl "{key}" is not in a separate kernel namespace', 0, key)
    steps: list[Operation] = []
    if sysctls:
        values = ((key, sysctl_path(key), str(value)) for key, value in sysctls.items())
        steps.append(WriteSysctls(tuple(values)))
    return steps + _process_writes(process)


def sysctl_path(key: str) -> str:
    """The path of a sysctl below /proc/sys: the first separator decides which of "." and "/" separates, sysctl.d(5)."""
    dot, slash = key.find("."), key.find("/")
    if slash >= 0 and (dot < 0 or slash < dot):
        return key
    return key.replace("/", "\0").replace(".", "/").replace("\0", ".")


def _is_namespaced(path: str, separate: set[str]) -> bool:
    """Whether a sysctl belongs to the container: all others would be the host's. "net/../kernel/x" is one of those."""
    if any(part in ("", ".", "..") for part in path.split("/")):
        return False
    if path in _IPC_SYSCTLS or path.startswith("fs/mqueue/"):
        return "ipc" in separate
    if path.startswith("net/"):
        return "network" in separate
    return path == "kernel/domainname" and "uts" in separate


def _process_writes(process: dict[str, Any]) -> list[Operation]:
    steps: list[Operation] = []
    if process.get("oomScoreAdj") is not None:
        steps.append(SetOomScore(int(process["oomScoreAdj"])))
    apparmor, selinux = process.get("apparmorProfile") or "", process.get("selinuxLabel") or ""
    if apparmor or selinux:
        steps.append(SetLabels(apparmor, selinux))
    return steps


def layer_steps(rootfs: tuple[Mount, ...]) -> list[Operation]:
    """Return the step that makes a root which needs another mount namespace, before this one is left."""
    first = rootfs[0] if rootfs else None
    options = parse(first.options) if first else parse(())
    if first and options.idmap:
        return [MakeMappedRoot(first.type, first.source, options)]
    return [MakeRoot(first.type, first.source, options)] if first and options.layers else []


def root_steps(spec: Spec, rootfs: tuple[Mount, ...]) -> list[Operation]:
    """Return the steps that mount the root file system at root.path of the spec."""
    place = spec["root"]["path"]
    if not rootfs:
        return [MountRoot("bind", place, parse(()), place)]
    first, *others = rootfs
    steps: list[Operation] = [MountRoot(first.type, first.source, parse(first.options), place)]
    for mount in others:
        if parse(mount.options).bind or mount.type == "bind":
            raise SetupError(f"a bind mount below the root file system belongs into mounts: {mount.target}")
        steps.append(MountFilesystem(mount.type, mount.source, clean(mount.target), parse(mount.options)))
    return steps


@dataclass(slots=True)
class _Source:
    """What has to be opened for a mount. held: it is in the parent's mount namespace (`volumes`), not the host's."""

    key: int
    path: str
    target: str
    recursive: bool = False
    subpath: str = ""
    held: bool = False
    idmap: str = ""


def _opening(sources: list[_Source]) -> list[Operation]:
    whole = tuple((each.key, each.path, each.target, each.recursive) for each in sources if not each.subpath)
    parts = tuple((each.key, each.path, each.subpath) for each in sources if each.subpath)
    steps: list[Operation] = [OpenSources(whole)] if whole else []
    if parts:
        steps.append(OpenParts(parts))
    mapped = tuple((each.key, each.path, each.idmap) for each in sources if each.idmap)
    return [*steps, MapOwners(mapped)] if mapped else steps


def _mounts(spec: Spec, cgroups: MountSources) -> tuple[list[Operation], list[_Source]]:
    """The steps of the spec's mounts in order, and what has to be opened for them: numbered sources.

    Beside the types of the OCI specification there is "volume": a bind of what the supervisor has mounted.
    """
    steps: list[Operation] = []
    sources: list[_Source] = []
    own_cgroups = namespaces(spec).get("cgroup") == ""
    for entry in spec.get("mounts") or ():
        options = parse(entry.get("options") or ())
        target, kind, source = clean(entry["destination"]), entry.get("type") or "", entry.get("source") or ""
        key = len(sources)
        if kind in ("cgroup", "cgroup2"):
            steps.append(MountCgroups(cgroups, key, target, options, own_cgroups))
            if cgroups.version == 1 or not own_cgroups:
                sources += [_Source(key + index, path, target) for index, (_, path) in enumerate(cgroups.binds)]
        elif options.bind or kind in ("bind", "volume"):
            steps.append(BindMount(key, source, target, options))
            held = kind == "volume"
            sources.append(_Source(key, source, target, options.recursive, options.subpath, held, options.idmap))
        else:
            steps.append(MountFilesystem(kind, source, target, options))
    return steps, sources


def _dev_is_bound(spec: Spec) -> bool:
    """Whether /dev is the host's: then nothing is made in it."""
    at_dev = [entry for entry in spec.get("mounts") or () if clean(entry["destination"]) == "/dev"]
    return any(entry.get("type") == "bind" or parse(entry.get("options") or ()).bind for entry in at_dev)


def _devices(linux: dict[str, Any]) -> tuple[Device, ...]:
    extra = []
    for entry in linux.get("devices") or ():
        kind = _NODE_TYPES.get(entry["type"])
        if kind is None:
            raise SetupError(f"{entry['path']}: no such type of device: {entry['type']}", 0, entry["path"])
        path = clean(entry["path"])
        if path in _DEFAULT_PATHS or path.startswith("/dev/pts/"):
            continue  # those that every container has; ptmx and console are made another way
        mode = entry.get("fileMode")
        number = os.makedev(int(entry.get("major") or 0), int(entry.get("minor") or 0))
        permissions = 0o666 if mode is None else int(mode) & 0o7777
        extra.append(Device(path, kind | permissions, number, int(entry.get("uid") or 0), int(entry.get("gid") or 0)))
    return _DEVICES + tuple(extra)


def _terminal(process: dict[str, Any], *, console: bool) -> MakeTerminal:
    size = process.get("consoleSize") or {}
    return MakeTerminal(int(size.get("height") or 0), int(size.get("width") or 0), console)


def _closing_steps(spec: Spec) -> list[Operation]:
    linux = _linux(spec)
    steps: list[Operation] = []
    if linux.get("readonlyPaths"):
        steps.append(ReadonlyPaths(tuple(map(clean, linux["readonlyPaths"]))))
    if linux.get("maskedPaths"):
        steps.append(MaskPaths(tuple(map(clean, linux["maskedPaths"]))))
    word = linux.get("rootfsPropagation") or ""
    propagation = _PROPAGATION.get(word[1:] if word.startswith("r") else word, 0)
    readonly = bool(spec["root"].get("readonly"))
    if readonly or propagation:
        steps.append(FinishRoot(readonly, propagation))
    return steps


def _process_steps(process: dict[str, Any], last: type[Execute], *, hold: bool) -> list[Operation]:
    """The steps that all processes have; last: how the program comes to be executed."""
    arguments = tuple(process.get("args") or ())
    if not arguments:
        raise SetupError("args must not be empty")
    limits = tuple(
        (_rlimit(entry["type"]), int(entry["soft"]), int(entry["hard"])) for entry in process.get("rlimits") or ()
    )
    sets = process.get("capabilities") or {}
    bounding, effective, permitted, inheritable, ambient = (
        caps.mask(sets.get(name) or ()) for name in ("bounding", "effective", "permitted", "inheritable", "ambient")
    )
    spawns = issubclass(last, Spawn)
    late = tuple(limit for limit in limits if spawns and limit[0] == resource.RLIMIT_NPROC)
    limits = tuple(limit for limit in limits if limit not in late)
    cwd = ChangeDirectory(clean(process.get("cwd") or "/"))
    steps: list[Operation] = [InstallStdio()]
    steps += [SetRlimits(limits)] if limits else []
    steps += [Identify(), cwd, BecomeUser(bounding, cwd), FindProgram(arguments[0])]
    steps += [WaitForStart()] if hold else []
    no_new = bool(process.get("noNewPrivileges"))
    flags = tuple(process.get("seccompFlags") or ())
    wanted = (arguments, effective, permitted, inheritable, ambient, no_new, flags)
    return [*steps, last(*wanted, SetRlimits(late)) if issubclass(last, Spawn) else last(*wanted)]


def _rlimit(name: str) -> int:
    number = getattr(resource, name, None) if name.startswith("RLIMIT_") else None
    if number is None:
        raise SetupError(f"invalid rlimit type: {name}")
    return int(number)
