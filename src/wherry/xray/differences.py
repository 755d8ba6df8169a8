"""Where the kernel has something else than the engine was asked for: a limit changed by hand, a route that is gone.

Only what says that the container has more, less or other than it was given is told. A program may limit itself further
(drop capabilities, add a seccomp filter, set no_new_privs); that is its right and no difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from wherry.models.xray import ControlGroup, Devices, Difference, Mounts, Namespaces, Network, Security
from wherry.runtime import cgroups_v1, cgroups_v2
from wherry.runtime.cgroups_devices import permissions
from wherry.xray import limits
from wherry.xray.subject import Connection, Subject

Spec = Mapping[str, Any]
_NO_LIMIT_V1 = (1 << 63) - 1
_PAGE = 4096


def of_namespaces(found: Namespaces, subject: Subject) -> Iterator[Difference]:
    """Compare who shares each namespace with who should."""
    for each in found.entries:
        asked = subject.modes.get(each.kind, "")
        has = "host" if each.shared_with_host else "private"
        if asked.startswith("container:"):
            name = asked.removeprefix("container:")
            right = name in each.shared_with
            has = has if each.shared_with_host else f"shared with {', '.join(each.shared_with) or 'nobody'}"
        else:
            right = not asked or asked == has
        if not right:
            yield Difference(section="namespaces", what=f"{each.kind} namespace", asked=asked, found=has)


def of_groups(found: ControlGroup, subject: Subject, spec: Spec) -> Iterator[Difference]:
    """Compare where the first process is, and what stands in the files that the engine wrote."""
    for path in found.paths:
        if path.version == found.version and path.path != subject.cgroup_path:
            what = f"control group ({', '.join(path.controllers) or 'version 2'})"
            yield Difference(section="cgroup", what=what, asked=subject.cgroup_path, found=path.path)
    resources = (spec.get("linux") or {}).get("resources") or {}
    places = {(each.controller, each.file.rpartition("/")[2]): each.file for each in found.limits}
    for controller, file, asked in _writes(resources, found.version):
        path_of = places.get((controller, file))
        content = limits.text(path_of) if path_of else None
        if path_of is None or content is None or _equal(asked, content, file):
            continue
        name = next(each.name for each in found.limits if each.file == path_of)
        shown = content.replace("\n", "; ") or "nothing"
        yield Difference(section="cgroup", what=name, asked=asked, found=shown, where=path_of)
    for file, asked in _cpusets(resources, found.version):
        path_of = places.get(("cpuset", file))
        content = limits.text(path_of) if path_of else None
        if path_of and content is not None and content != asked:
            yield Difference(section="cgroup", what=file, asked=asked, found=content, where=path_of)


def _writes(resources: Mapping[str, Any], version: int) -> list[tuple[str, str, str]]:
    if version == 1:
        return [each for each in cgroups_v1.writes(resources) if each[1] != "cpu.cfs_period_us"]
    return [(file.partition(".")[0], file, text) for file, text in cgroups_v2.writes(resources)]


def _cpusets(resources: Mapping[str, Any], version: int) -> list[tuple[str, str]]:
    cpu = resources.get("cpu") or {}
    names = ("cpus", "mems") if version == 1 else ()
    return [(f"cpuset.{name}", cpu[name]) for name in names if cpu.get(name)]


def _equal(asked: str, content: str, file: str) -> bool:
    """Whether a file holds what was written to it: the kernel rounds bytes to pages and keeps a line per device."""
    lines = content.splitlines()
    if asked in lines or " ".join(asked.split()) in lines:
        return True
    if "throttle" in file:
        return asked.endswith(" 0") and not any(line.startswith(f"{asked.split()[0]} ") for line in lines)
    if file in ("io.max", "io.weight"):
        device, _, setting = asked.partition(" ")
        return any(line.startswith(f"{device} ") and setting in line.split() for line in lines)
    first = lines[0] if lines else ""
    if asked in ("-1", "max") and first.isdigit() and file.startswith("memory"):
        return int(first) >= _NO_LIMIT_V1 // _PAGE * _PAGE // 2
    if asked.isdigit() and first.isdigit() and file.startswith(("memory", "hugetlb")):
        return int(asked) // _PAGE == int(first) // _PAGE
    return False


def of_devices(found: Devices, spec: Spec) -> Iterator[Difference]:
    """Compare the rules of version 1 with those asked for; a program of version 2 says only that it is there."""
    rules = ((spec.get("linux") or {}).get("resources") or {}).get("devices") or ()
    if found.version == 2:
        if not found.programs:
            yield Difference(section="devices", what="device filter", asked="a program", found="none")
        return
    asked = permissions(rules)
    wanted = {"a *:* rwm"} if asked.allow_all else set(asked.texts()[1])
    has = {f"{_text(each.type, each.major, each.minor)} {each.access}" for each in found.rules}
    for rule in sorted(has - wanted):
        yield Difference(section="devices", what="device", asked="not allowed", found=f"{rule} is allowed")
    if not (asked.allow_all and asked.entries):
        for rule in sorted(wanted - has):
            yield Difference(section="devices", what="device", asked=f"{rule} allowed", found="not allowed")


def _text(kind: str, major: int, minor: int) -> str:
    return f"{kind} {'*' if major < 0 else major}:{'*' if minor < 0 else minor}"


def of_security(found: Security, spec: Spec) -> Iterator[Difference]:
    """Compare rights with those given; less than given is the program's own doing, but for limits of resources."""
    process = spec.get("process") or {}
    given = set((process.get("capabilities") or {}).get("bounding") or ())
    for name in ("bounding", "effective", "permitted"):
        more = sorted(set(getattr(found.capabilities, name)) - given)
        if more:
            yield Difference(section="security", what=f"{name} capabilities", asked="not given", found=", ".join(more))
    if process.get("noNewPrivileges") and not found.no_new_privileges:
        yield Difference(section="security", what="no new privileges", asked="yes", found="no")
    if (spec.get("linux") or {}).get("seccomp") and found.seccomp.mode != "filter":
        yield Difference(section="security", what="seccomp", asked="a filter", found=found.seccomp.mode)
    adjust = process.get("oomScoreAdj")
    if adjust is not None and adjust != found.oom_score_adjust:
        yield Difference(section="security", what="oom_score_adj", asked=str(adjust), found=str(found.oom_score_adjust))
    yield from _rlimits(found, process)


_RLIMITS = {
    "CPU": "cpu time", "FSIZE": "file size", "DATA": "data size", "STACK": "stack size", "CORE": "core file size",
    "RSS": "resident set", "NPROC": "processes", "NOFILE": "open files", "MEMLOCK": "locked memory",
    "AS": "address space", "LOCKS": "file locks", "SIGPENDING": "pending signals", "MSGQUEUE": "msgqueue size",
    "NICE": "nice priority", "RTPRIO": "realtime priority", "RTTIME": "realtime timeout",
}  # fmt: skip


def _rlimits(found: Security, process: Mapping[str, Any]) -> Iterator[Difference]:
    has = {each.name: each for each in found.resource_limits}
    for limit in process.get("rlimits") or ():
        name = _RLIMITS.get(limit["type"].removeprefix("RLIMIT_"), "")
        if name not in has:
            continue
        asked = tuple("unlimited" if each == (1 << 64) - 1 else str(each) for each in (limit["soft"], limit["hard"]))
        shown = (has[name].soft, has[name].hard)
        if asked != shown:
            yield Difference(
                section="security", what=f"limit of {name}", asked=" / ".join(asked), found=" / ".join(shown)
            )


def of_mounts(found: Mounts, subject: Subject, spec: Spec) -> Iterator[Difference]:
    """Compare the mounts: each that was asked for is there, and read-only is read-only."""
    by_target = {each.target: each for each in found.entries}
    if (spec.get("root") or {}).get("readonly") and found.writable:
        yield Difference(section="mounts", what="root file system", asked="read-only", found="writable")
    asked = [(each["destination"], "ro" in (each.get("options") or ())) for each in spec.get("mounts") or ()]
    asked += [(target, False) for target in subject.files]
    for target, read_only in asked:
        mount = by_target.get(target)
        if mount is None and not found.left_out and not _below_cgroup(target, by_target):
            yield Difference(section="mounts", what=f"mount at {target}", asked="there", found="not there")
        elif mount is not None and read_only and mount.writable and target != "/sys/fs/cgroup":
            yield Difference(section="mounts", what=f"mount at {target}", asked="read-only", found="writable")


def _below_cgroup(target: str, by_target: Iterable[str]) -> bool:
    return any(each.startswith(f"{target}/") for each in by_target) and target == "/sys/fs/cgroup"


def of_masks(found: Mounts, spec: Spec, exists: Iterable[str]) -> Iterator[Difference]:
    """Compare hidden and read-only paths. exists: those that this kernel has at all."""
    by_target = {each.target: each for each in found.entries}
    linux = spec.get("linux") or {}
    there = set(exists) if not found.left_out else set(exists) & set(by_target)
    for path in linux.get("maskedPaths") or ():
        if path in there and (path not in by_target or by_target[path].kind != "masked"):
            yield Difference(section="mounts", what=path, asked="hidden", found="visible")
    for path in linux.get("readonlyPaths") or ():
        if path in there and (path not in by_target or by_target[path].writable):
            yield Difference(section="mounts", what=path, asked="read-only", found="writable")


def of_network(found: Network, connections: Iterable[Connection]) -> Iterator[Difference]:
    """Compare links, addresses, gateway and rules with what each endpoint was given."""
    links = {each.name: each for each in found.links}
    for asked in connections:
        if not asked.interface:
            continue
        own = links.get(asked.interface)
        if own is None:
            yield _network(f"link {asked.interface}", f"in network {asked.network}", "not there")
            continue
        for address in (asked.ipv4, asked.ipv6):
            if address and address not in own.addresses:
                yield _network(f"address of {own.name}", address, ", ".join(own.addresses) or "none")
        if asked.mac and asked.mac != own.mac:
            yield _network(f"MAC of {own.name}", asked.mac, own.mac)
        if not own.up:
            yield _network(f"link {own.name}", "up", "down")
        if own.kind == "veth" and own.peer and not own.peer_up:
            yield _network(f"link {own.peer} on the host", "up", "down")
        if own.kind == "veth" and not own.bridge:
            yield _network(f"other end of {own.name}", "port of a bridge", "no port of a bridge")
        if asked.firewall_table and not any(each.table == asked.firewall_table for each in found.rules):
            yield _network("firewall rules", f"table {asked.firewall_table}", "none that concern it")
    gateways = [each.gateway for each in connections if each.gateway]
    has = [each.via for each in found.routes if each.destination == "default"]
    if gateways and gateways[0] not in has:
        yield _network("default route", f"via {gateways[0]}", f"via {', '.join(has)}" if has else "none")


def _network(what: str, asked: str, found: str) -> Difference:
    return Difference(section="network", what=what, asked=asked, found=found)
