"""Read a bundle's config.json and refuse what cannot be carried out, before anything is made.

A list of small checks, each of which raises `Refused` with the sentence for the user. What the runtime would have
to ignore to go on (id-mapped mounts, Intel RDT) is refused as well: a container that is confined
less than its configuration says is worse than none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from wherry.runtime.faults import Refused
from wherry.runtime.idmaps import Ids

CONFIG = "config.json"
LIMIT = 16 * 1024 * 1024
HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
NAMESPACES = ("cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts")
DEFAULT_PARENT = "/wherry"

_IPC_SYSCTLS = frozenset(
    f"kernel.{name}" for name in
    ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
)  # fmt: skip
_UTS_SYSCTLS = frozenset(("kernel.domainname", "kernel.hostname"))

Spec = dict[str, Any]


def load(bundle: str) -> Spec:
    """Return the checked configuration of a bundle; `root.path` in it is absolute."""
    spec = read_json(f"{bundle}/{CONFIG}", f"JSON specification file {CONFIG} not found")
    for check in CHECKS:
        try:
            check(spec)
        except (AttributeError, TypeError, KeyError) as error:
            raise Refused(f"{CONFIG} is malformed: {check.__name__[7:]}: {type(error).__name__}: {error}") from error
    _place_root(spec, bundle)
    return spec


def read_json(path: str, missing: str) -> dict[str, Any]:
    """Return the JSON object in a file of bounded size."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Refused(missing) from None
    with os.fdopen(descriptor, "rb") as file:
        text = file.read(LIMIT + 1)
    if len(text) > LIMIT:
        raise Refused(f"{path} is larger than {LIMIT} bytes")
    try:
        value = json.loads(text)
    except ValueError as error:
        raise Refused(f"{path} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise Refused(f"{path} does not hold a JSON object")
    return value


def _place_root(spec: Spec, bundle: str) -> None:
    path = os.path.join(bundle, spec["root"]["path"])
    try:
        path = os.path.realpath(path, strict=True)
    except OSError as error:
        raise Refused(f"invalid rootfs: stat {path}: {os.strerror(error.errno or 0).lower()}") from None
    if not os.path.isdir(path):
        raise Refused(f"invalid rootfs: {path} is not a directory")
    if path == "/":
        raise Refused("invalid rootfs: it is the root directory of the host")
    spec["root"]["path"] = path


def _check_version(spec: Spec) -> None:
    version = spec.get("ociVersion")
    if not isinstance(version, str) or version.partition(".")[0] != "1":
        raise Refused(f"ociVersion must be a version 1 of the runtime specification, not {version!r}")


def _check_process(spec: Spec) -> None:
    if not spec.get("process"):
        raise Refused("process property must not be empty")
    check_process(spec["process"])


def check_process(process: dict[str, Any]) -> None:
    """Refuse a process object that names no program or no directory to run it in."""
    if not process.get("cwd"):
        raise Refused("Cwd property must not be empty")
    if not process["cwd"].startswith("/"):
        raise Refused("Cwd must be an absolute path")
    if not process.get("args"):
        raise Refused("args must not be empty")
    for text in (*process["args"], *(process.get("env") or ())):
        if not isinstance(text, str) or "\0" in text:
            raise Refused(f"args and env must be strings without a zero byte, not {text!r}")


def _check_root(spec: Spec) -> None:
    if not (spec.get("root") or {}).get("path"):
        raise Refused("root.path must not be empty: the runtime makes containers from a directory")


def _check_mounts(spec: Spec) -> None:
    for mount in spec.get("mounts") or ():
        if not mount.get("destination"):
            raise Refused("a mount has no destination")
        if mount.get("uidMappings") or mount.get("gidMappings"):
            raise Refused(f"id-mapped mounts belong to a later version: {mount['destination']}")
        if not mount["destination"].startswith("/"):  # deprecated since 1.0.0-rc; the meaning is fixed by the spec
            mount["destination"] = "/" + mount["destination"]


def _check_namespaces(spec: Spec) -> None:
    seen = set()
    for entry in (spec.get("linux") or {}).get("namespaces") or ():
        kind, path = entry.get("type"), entry.get("path") or ""
        if kind not in NAMESPACES:
            raise Refused(f'namespace {{"{kind}" "{path}"}} does not exist')
        if kind in seen:
            raise Refused(f'malformed spec file: duplicated ns {{"{kind}" "{path}"}}')
        if path and not path.startswith("/"):
            raise Refused(f"the path of the {kind} namespace must be absolute, not {path}")
        seen.add(kind)
    if "mount" not in seen:
        raise Refused("a mount namespace is needed: add one of type mount to linux.namespaces")


def _check_ids(spec: Spec) -> None:
    """A user namespace has its mappings with it, a new one and one that is joined."""
    linux = spec.get("linux") or {}
    user = any(entry.get("type") == "user" for entry in linux.get("namespaces") or ())
    if not user and (linux.get("uidMappings") or linux.get("gidMappings")):
        raise Refused("linux.uidMappings and linux.gidMappings need a namespace of type user")
    try:
        if user:
            Ids.of_spec(linux).host(0, 0)
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise Refused(f"user namespace: {error}") from error


def _check_unsupported(spec: Spec) -> None:
    linux = spec.get("linux") or {}
    for key in ("intelRdt", "netDevices"):
        if linux.get(key):
            raise Refused(f"linux.{key} belongs to a later version")
    for key in ("solaris", "windows", "vm", "zos", "freebsd"):
        if spec.get(key):
            raise Refused(f"{key} is not for this platform")


def _check_names(spec: Spec) -> None:
    private = _private(spec)
    for key in ("hostname", "domainname"):
        if spec.get(key) and "uts" not in private:
            raise Refused(f"unable to set {key} without a private UTS namespace")


def _check_sysctls(spec: Spec) -> None:
    """A sysctl that belongs to no namespace of the container would change the host."""
    private = _private(spec)
    for key in (spec.get("linux") or {}).get("sysctl") or ():
        name = key.replace("/", ".")
        if name in _IPC_SYSCTLS or name.startswith("fs.mqueue."):
            needed = "ipc"
        elif name.startswith("net."):
            needed = "network"
        else:
            needed = "uts" if name in _UTS_SYSCTLS else ""
        if needed not in private:
            raise Refused(f'sysctl "{key}" is not in a separate kernel namespace')


def _private(spec: Spec) -> set[str]:
    """The kinds of namespaces the container does not share with us."""
    private = set()
    for entry in (spec.get("linux") or {}).get("namespaces") or ():
        name = {"network": "net", "mount": "mnt"}.get(entry["type"], entry["type"])
        path = entry.get("path")
        if not path or not _same(path, f"/proc/self/ns/{name}"):
            private.add(entry["type"])
    return private


def _same(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError as error:
        raise Refused(f"namespace {path}: {os.strerror(error.errno or 0).lower()}") from None


def _check_hooks(spec: Spec) -> None:
    for kind, hooks in (spec.get("hooks") or {}).items():
        if kind not in HOOKS:
            raise Refused(f"hooks.{kind} is unknown; there are {', '.join(HOOKS)}")
        for hook in hooks or ():
            if not str(hook.get("path") or "").startswith("/"):
                raise Refused(f"hooks.{kind}: the path must be absolute, not {hook.get('path')!r}")
            if hook.get("timeout") is not None and hook["timeout"] <= 0:
                raise Refused(f"hooks.{kind}: the timeout must be above zero")


def _check_cgroup(spec: Spec) -> None:
    path = (spec.get("linux") or {}).get("cgroupsPath") or ""
    if ".." in path.split("/"):
        raise Refused(f"cgroupsPath {path} leaves its parent")


def cgroup_path(spec: Spec, container_id: str, *, systemd: bool) -> str:
    """Return where the control group goes: as configured, or below our own parent. systemd: SLICE:PREFIX:NAME.

    Raises Refused for a path of one kind where the other is asked for.
    """
    path = (spec.get("linux") or {}).get("cgroupsPath") or ""
    named = path.count(":") == 2 and "/" not in path
    if systemd:
        if path and not named:
            raise Refused(f"cgroupsPath {path} is not SLICE:PREFIX:NAME, as --systemd-cgroup wants it")
        return path or f":{DEFAULT_PARENT.strip('/')}:{container_id}"
    if named:
        raise Refused(f"cgroupsPath {path} is for systemd's cgroup driver: give --systemd-cgroup")
    return os.path.normpath("/" + (path or f"{DEFAULT_PARENT}/{container_id}").lstrip("/"))


CHECKS: tuple[Callable[[Spec], None], ...] = (
    _check_version,
    _check_process,
    _check_root,
    _check_namespaces,
    _check_mounts,
    _check_ids,
    _check_unsupported,
    _check_names,
    _check_sysctls,
    _check_hooks,
    _check_cgroup,
)
