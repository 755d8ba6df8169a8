"""Device nodes and device rules of a container. Pure: the caller's functions look the host's nodes up."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from wherry.errors import InvalidArgument, SystemFailure
from wherry.models.container import DeviceMapping, DeviceRequest, HostConfig
from wherry.oci.host import Device

Json = dict[str, Any]
Look = Callable[[str], Device | None]
Walk = Callable[[str], Iterable[Device]]

DEFAULT_RULES: tuple[Json, ...] = (
    {"allow": False, "access": "rwm"},
    *(
        {"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"}
        for major, minor in ((1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1))
    ),
    {"allow": False, "type": "c", "major": 10, "minor": 229, "access": "rwm"},
)
"""zero, null, urandom, random, tty, console; not fuse. The runtime appends what no container can be without."""

_RULE = re.compile(r"([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})", re.ASCII)


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """linux.devices and linux.resources.devices of a spec."""

    nodes: list[Json]
    rules: list[Json]


def check_requests(requests: Iterable[DeviceRequest]) -> None:
    """Raise InvalidArgument for a device request: this engine has no device driver that could serve one."""
    for request in requests:
        if request.driver == "cdi":
            unknown = ", ".join(request.device_ids or ())
            raise InvalidArgument(f"CDI device injection failed: unresolvable CDI devices {unknown}")
        wanted = " ".join(f"[{' '.join(group)}]" for group in request.capabilities or ())
        raise InvalidArgument(f'could not select device driver "{request.driver}" with capabilities: [{wanted}]')


def plan(host: HostConfig, look: Look, walk: Walk) -> DevicePlan:
    """Return nodes and rules; raises InvalidArgument or SystemFailure with dockerd's words."""
    if host.privileged:
        found = {device.path: device for device in walk("/dev")}
        for mapping in host.devices or ():
            for device in _mapped(mapping, look, walk):
                found.setdefault(device.path, device)
        return DevicePlan([_node(each) for each in found.values()], [*DEFAULT_RULES, {"allow": True, "access": "rwm"}])
    nodes, rules = [], list(DEFAULT_RULES)
    for mapping in host.devices or ():
        for device in _mapped(mapping, look, walk):
            nodes.append(_node(device))
            rules.append(_allow(device.kind, device.major, device.minor, mapping.cgroup_permissions or "rwm"))
    return DevicePlan(nodes, [*rules, *(parse_rule(rule) for rule in host.device_cgroup_rules or ())])


def _mapped(mapping: DeviceMapping, look: Look, walk: Walk) -> list[Device]:
    """Return the nodes of one --device under their names in the container; a folder stands for all in it."""
    source, target = mapping.path_on_host, mapping.path_in_container or mapping.path_on_host
    try:
        device = look(source)
        if device is not None:
            return [_renamed(device, target)]
        inside = list(walk(source))
    except OSError as error:
        why = os.strerror(error.errno or errno.EIO).lower()
        raise SystemFailure(
            f'error gathering device information while adding custom device "{source}": {why}'
        ) from error
    if not inside:
        raise SystemFailure(
            f'error gathering device information while adding custom device "{source}": not a device node'
        )
    return [_renamed(each, target + each.path.removeprefix(source.rstrip("/"))) for each in inside]


def _renamed(device: Device, path: str) -> Device:
    return Device(path, device.kind, device.major, device.minor, device.mode, device.uid, device.gid)


def _node(device: Device) -> Json:
    return {
        "path": device.path,
        "type": device.kind,
        "major": device.major,
        "minor": device.minor,
        "fileMode": device.mode,
        "uid": device.uid,
        "gid": device.gid,
    }


def _allow(kind: str, major: int, minor: int, access: str) -> Json:
    if not set(access) <= set("rwm"):
        raise InvalidArgument(f"invalid device cgroup permissions '{access}': use letters out of rwm")
    return {"allow": True, "type": kind, "major": major, "minor": minor, "access": access}


def parse_rule(text: str) -> Json:
    """Return one --device-cgroup-rule as an OCI rule; raises InvalidArgument."""
    match = _RULE.fullmatch(text)
    if match is None:
        raise InvalidArgument(f"invalid device cgroup rule format: '{text}'")
    kind, major, minor, access = match.groups()
    return _allow(kind, _number(major), _number(minor), access)


def _number(text: str) -> int:
    return -1 if text == "*" else int(text)
