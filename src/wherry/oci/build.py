"""From a container to its OCI runtime spec. Pure: the same request gives the same spec.

`process.user` carries two fields of ours beside the numeric ids, which the runtime resolves inside the container's
root file system: "username" ("name-or-id[:group]") and "additionalGroups" (names or ids).
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wherry.errors import InvalidArgument
from wherry.models.container import ContainerConfig, ExecConfig, HostConfig, Ulimit
from wherry.oci import apparmor, capabilities, devices, security
from wherry.oci.host import HostFacts, stat_device, walk_devices
from wherry.oci.mounts import INIT_TARGET, mounts
from wherry.oci.resources import resources
from wherry.oci.seccomp import default_profile, profile_for
from wherry.runtime.idmaps import Ids
from wherry.runtime.mounts import Mount
from wherry.runtime.scopes import is_slice

Json = dict[str, Any]

OCI_VERSION = "1.2.1"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TERM = "TERM=xterm"
SCOPE_PREFIX = "wherry"
MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
DEFAULT_SYSCTLS = {
    "net.ipv4.ip_unprivileged_port_start": "0",
    "net.ipv4.ping_group_range": "0 2147483647",
}
"""In a network namespace of its own a container may use low ports and ping without capabilities."""


@dataclass(frozen=True, slots=True)
class SpecRequest:
    """All that a spec is made from.

    config: already merged with the image's. mounts: binds and tmpfs of the user, and the engine's files in /etc.
    namespace_paths: by OCI name, those joined ("network": "/proc/12/ns/net"). own_network: the network namespace is
    the container's own. systemd_cgroup: systemd makes the control group, cgroup_parent is a slice.
    init_path: host path of what --init puts before the command. look, walk: how device nodes of the host are found.
    seccomp_profile: the engine's default profile as JSON, "" for ours. linked: variables of linked containers.
    ids: of its own user namespace, None for the host's.
    """

    id: str
    config: ContainerConfig
    host_config: HostConfig
    facts: HostFacts
    mounts: tuple[Mount, ...] = ()
    rootfs_path: str = ""
    cgroup_parent: str = "/wherry"
    systemd_cgroup: bool = False
    namespace_paths: Mapping[str, str] = field(default_factory=dict)
    own_network: bool = True
    ulimits: tuple[Ulimit, ...] = ()
    no_new_privileges: bool = False
    init_path: str = ""
    look: devices.Look = stat_device
    walk: devices.Walk = walk_devices
    seccomp_profile: str = ""
    linked: tuple[str, ...] = ()
    ids: Ids | None = None


def build_spec(request: SpecRequest) -> Json:
    """Return the spec; raises InvalidArgument or SystemFailure for what cannot be had on this host."""
    host, config = request.host_config, request.config
    options = security.parse(host.security_opt or ())
    spec: Json = {
        "ociVersion": OCI_VERSION,
        "process": _process(request, options),
        "root": {"path": request.rootfs_path, **({"readonly": True} if host.readonly_rootfs else {})},
        "mounts": [each.to_oci() for each in _mounts(request, options)],
        "linux": _linux(request, options),
    }
    if host.uts_mode != "host" and config.hostname:
        spec["hostname"] = config.hostname
    if host.annotations:
        spec["annotations"] = dict(host.annotations)
    return spec


def build_process(request: SpecRequest) -> Json:
    """Return the spec's process alone: all that an exec needs, and independent of devices and of other containers."""
    return _process(request, security.parse(request.host_config.security_opt or ()))


def _mounts(request: SpecRequest, options: security.SecurityOptions) -> list[Mount]:
    host, extra = request.host_config, list(request.mounts)
    if _has_init(request):
        extra.insert(0, Mount("bind", request.init_path, INIT_TARGET, ("bind", "ro")))
    return mounts(host, extra, request.namespace_paths, writable_cgroups=options.writable_cgroups)


def _has_init(request: SpecRequest) -> bool:
    """Whether a PID 1 of ours goes before the command; pointless when PID 1 is another's."""
    return bool(request.host_config.init) and not request.host_config.pid_mode


def _words(value: list[str] | str | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def _process(request: SpecRequest, options: security.SecurityOptions) -> Json:
    host, config = request.host_config, request.config
    command = [*_words(config.entrypoint), *_words(config.cmd)]
    process: Json = {
        "user": _user(config.user or "0", host.group_add or ()),
        "args": [INIT_TARGET, "--", *command] if _has_init(request) else command,
        "env": _environment(config, request.linked),
        "cwd": posixpath.normpath(config.working_dir or "/"),
        "capabilities": _capabilities(_bounding(request)),
        "oomScoreAdj": host.oom_score_adj,
    }
    if config.tty:
        process["terminal"] = True
        _set_console_size(process, host.console_size)
    if limits := _limits(request.ulimits, host.ulimits or ()):
        process["rlimits"] = limits
    asked = options.no_new_privileges
    if asked or (asked is None and request.no_new_privileges):
        process["noNewPrivileges"] = True
    if (profile := apparmor.profile_for(host, request.facts)) not in ("", security.UNCONFINED):
        process["apparmorProfile"] = profile
    return process


def _user(name: str, groups: Iterable[str]) -> Json:
    user: Json = {"uid": 0, "gid": 0, "username": name}
    if extra := list(groups):
        user["additionalGroups"] = extra
    return user


def _environment(config: ContainerConfig, linked: Iterable[str]) -> list[str]:
    base = [PATH, f"HOSTNAME={config.hostname}", *([TERM] if config.tty else []), *linked]
    return replace_variables(base, config.env or ())


def replace_variables(base: Iterable[str], over: Iterable[str]) -> list[str]:
    """Return base with the variables of over in place of its own or after them; a name without "=" is removed."""
    merged: dict[str, str | None] = {}
    for entry in [*base, *over]:
        name, equals, value = entry.partition("=")
        merged[name] = value if equals else None
    return [f"{name}={value}" for name, value in merged.items() if value is not None]


def _bounding(request: SpecRequest) -> tuple[str, ...]:
    host = request.host_config
    return capabilities.tweak(
        host.cap_add or (), host.cap_drop or (), request.facts.capabilities, privileged=host.privileged
    )


def _capabilities(names: Sequence[str]) -> Json:
    """Inheritable and ambient stay empty: a set user would keep them through execve (CVE-2022-24769)."""
    return {kind: list(names) for kind in ("bounding", "effective", "permitted")}


def _limits(defaults: Iterable[Ulimit], own: Iterable[Ulimit]) -> list[Json]:
    merged = {limit.name.upper(): limit for limit in [*defaults, *own]}
    return [
        {"type": f"RLIMIT_{name}", "soft": _limit(limit.soft), "hard": _limit(limit.hard)}
        for name, limit in merged.items()
    ]


def _limit(value: int) -> int:
    """The spec has unsigned numbers: RLIM_INFINITY stands for -1."""
    return value & 0xFFFFFFFFFFFFFFFF


def _set_console_size(process: Json, size: Sequence[int] | None) -> None:
    if size and len(size) == 2 and all(size):
        process["consoleSize"] = {"height": size[0], "width": size[1]}


def _linux(request: SpecRequest, options: security.SecurityOptions) -> Json:
    host = request.host_config
    found = devices.plan(host, request.look, request.walk)
    linux: Json = {
        "cgroupsPath": cgroups_path(
            host.cgroup_parent or request.cgroup_parent, request.id, systemd=request.systemd_cgroup
        ),
        "namespaces": _namespaces(request),
        "resources": {"devices": found.rules, **resources(host, request.facts, request.look)},
    }
    if request.ids is not None:
        linux |= request.ids.to_spec()
    if found.nodes:
        linux["devices"] = found.nodes
    if sysctls := _sysctls(request):
        linux["sysctl"] = sysctls
    if not host.privileged:
        masked = [*MASKED_PATHS, *request.facts.thermal_throttle] if host.masked_paths is None else host.masked_paths
        linux["maskedPaths"] = list(masked)
        linux["readonlyPaths"] = list(READONLY_PATHS if host.readonly_paths is None else host.readonly_paths)
    profile = _seccomp(request, options)
    if profile is not None:
        linux["seccomp"] = profile
    return linux


def cgroups_path(parent: str, container_id: str, *, systemd: bool = False) -> str:
    """Return the OCI cgroupsPath: a path, or SLICE:PREFIX:NAME where systemd makes the groups.

    Raises InvalidArgument for a parent outside of the hierarchy, or, with dockerd's words, one that is no slice.
    """
    if systemd:
        if not is_slice(parent):
            raise InvalidArgument('cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"')
        return f"{parent}:{SCOPE_PREFIX}:{container_id}"
    if ".." in parent.split("/") or ":" in parent or "\0" in parent:
        raise InvalidArgument(f"invalid cgroup parent '{parent}': use a path such as /group")
    return posixpath.normpath(f"/{parent}/{container_id}").replace("//", "/")


def _namespaces(request: SpecRequest) -> list[Json]:
    host, paths = request.host_config, request.namespace_paths
    shared = {
        "network": not request.own_network and "network" not in paths,
        "uts": host.uts_mode == "host",
        "pid": host.pid_mode == "host",
        "ipc": host.ipc_mode == "host",
        "cgroup": (host.cgroupns_mode or ("private" if request.facts.cgroup_version == 2 else "host")) == "host",
        "time": not request.facts.time_namespace,
        "user": request.ids is None,
    }
    own = [kind for kind, with_host in shared.items() if not with_host]
    return [{"type": "mount"}, *({"type": kind, **({"path": paths[kind]} if kind in paths else {})} for kind in own)]


def _sysctls(request: SpecRequest) -> dict[str, str]:
    host, config = request.host_config, request.config
    found = dict(DEFAULT_SYSCTLS) if host.own_network else {}
    if config.domainname and host.uts_mode != "host":
        found["kernel.domainname"] = config.domainname
    found |= host.sysctls or {}
    return found if request.ids is None else {name: request.ids.sysctl(name, value) for name, value in found.items()}


def _seccomp(request: SpecRequest, options: security.SecurityOptions) -> Json | None:
    """A profile that was asked for holds for a privileged container too; the default one does not."""
    wanted = options.seccomp
    if wanted == security.UNCONFINED or (not wanted and request.host_config.privileged):
        return None
    if not request.facts.seccomp:
        if wanted:
            raise InvalidArgument("seccomp is not enabled in your kernel, cannot run a custom seccomp profile")
        return None
    if not wanted:
        wanted = request.seccomp_profile
        if wanted == security.UNCONFINED:
            return None
    text = default_profile() if wanted in ("", security.BUILTIN) else wanted
    return profile_for(text, frozenset(_bounding(request)), request.facts.machine, request.facts.kernel)


def exec_process(
    process: Mapping[str, Any],
    config: ExecConfig,
    *,
    console_size: Sequence[int] | None = None,
    privileged: bool = False,
    available: Sequence[str] = capabilities.ALL,
) -> Json:
    """Return the OCI process of an exec: the container's own, with what the exec says in place of it."""
    base = list(process["env"])
    if config.tty and not any(entry.startswith("TERM=") for entry in base):
        base.append(TERM)
    elif not config.tty and process.get("terminal") and TERM in base:
        base.remove(TERM)  # it came with the container's terminal, which this process does not have
    result: Json = {
        **process,
        "args": list(config.cmd or ()),
        "env": replace_variables(base, config.env or ()),
        "cwd": posixpath.normpath(config.working_dir) if config.working_dir else process["cwd"],
        "terminal": config.tty,
    }
    result.pop("consoleSize", None)
    if config.tty:
        _set_console_size(result, console_size)
    if config.user:
        result["user"] = _user(config.user, ())
    if privileged:
        result["capabilities"] = _capabilities(available)
    return result
