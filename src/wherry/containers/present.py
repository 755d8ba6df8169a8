"""How containers look to clients: the shapes of docker ps and docker inspect. Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import to_builtins

from wherry.containers.health import Health
from wherry.containers.record import MountRecord, Record
from wherry.models.times import human, rfc3339
from wherry.oci.build import MASKED_PATHS, READONLY_PATHS

Json = dict[str, Any]

HIDDEN_WHEN_UNSET = {
    "Config": (
        *("ExposedPorts", "Healthcheck", "ArgsEscaped", "NetworkDisabled"),
        *("MacAddress", "StopSignal", "StopTimeout", "Shell"),
    ),
    "HostConfig": ("Annotations", "Mounts", "Tmpfs", "StorageOpt", "Sysctls", "Init", "KernelMemory"),
}
"""Fields that dockerd leaves out when they are unset (Go's omitempty)."""

EMPTY_LISTS = (
    *("Dns", "DnsOptions", "DnsSearch", "Devices", "Ulimits", "BlkioWeightDevice"),
    *("BlkioDeviceReadBps", "BlkioDeviceWriteBps", "BlkioDeviceReadIOps", "BlkioDeviceWriteIOps"),
)
"""HostConfig fields that the docker CLI sends as [] and docker inspect shows so."""


def command(record: Record) -> str:
    """Return the command line of docker ps, words with spaces quoted."""
    words = [f"'{word}'" if " " in word else word for word in record.args]
    return " ".join([record.path, *words])


def status(record: Record, now: int, health: Health | None = None) -> str:
    """Return the STATUS column: "Up 5 minutes (healthy)", "Exited (0) 3 hours ago"."""
    state = record.state
    if state.status == "paused":
        return f"Up {human(now - state.started_at)} (Paused)"
    if state.status == "running":
        word = "" if health is None else "health: starting" if health.status == "starting" else health.status
        return f"Up {human(now - state.started_at)}" + (f" ({word})" if word else "")
    if state.status == "restarting":
        return f"Restarting ({state.exit_code}) {human(now - state.finished_at)} ago"
    words = {"created": "Created", "removing": "Removal In Progress", "dead": "Dead"}
    if state.status in words:
        return words[state.status]
    return f"Exited ({state.exit_code}) {human(now - state.finished_at)} ago"


def mount(record: MountRecord) -> Json:
    """Return one entry of Mounts."""
    named = {"volume": record.name, "image": record.image}.get(record.type)
    volume = {} if named is None else {"Name": named}
    driver = {"Driver": record.driver} if record.type == "volume" else {}
    entry = {"Type": record.type, **volume, "Source": record.source, "Destination": record.destination}
    return entry | driver | {"Mode": record.mode, "RW": record.rw, "Propagation": record.propagation}


def summary(
    record: Record, *, image: str, networks: Mapping[str, Json], ports: Sequence[Json], health: Health | None = None
) -> Json:
    """Return the entry of GET /containers/json."""
    return {
        "Id": record.id,
        "Names": [f"/{record.name}"],
        "Image": image,
        "ImageID": record.image_id,
        "Command": command(record),
        "Created": record.created // 1_000_000_000,
        "Ports": list(ports),
        "Labels": record.config.labels or {},
        "State": record.state.status,
        "Status": status(record, time.time_ns(), health),
        "HostConfig": {"NetworkMode": record.host_config.network_mode},
        "NetworkSettings": {"Networks": dict(networks)},
        "Mounts": [mount(each) for each in record.mounts],
    }


def state(record: Record, health: Health | None = None) -> Json:
    """Return the State object of docker inspect."""
    current = record.state
    return {
        **({} if health is None else {"Health": health.to_wire()}),
        "Status": current.status,
        "Running": current.active,
        "Paused": current.status == "paused",
        "Restarting": current.status == "restarting",
        "OOMKilled": current.oom_killed,
        "Dead": current.status == "dead",
        "Pid": current.pid,
        "ExitCode": current.exit_code,
        "Error": current.error,
        "StartedAt": rfc3339(current.started_at),
        "FinishedAt": rfc3339(current.finished_at),
    }


def _section(value: Any, name: str) -> Json:
    wire: Json = to_builtins(value)
    for field in HIDDEN_WHEN_UNSET[name]:
        if not wire.get(field):
            wire.pop(field, None)
    return wire


def host_config(record: Record) -> Json:
    """Return HostConfig as dockerd shows it."""
    wire = _section(record.host_config, "HostConfig")
    for field in EMPTY_LISTS:
        wire[field] = wire[field] or []
    wire["PortBindings"] = wire["PortBindings"] or {}
    wire["LogConfig"]["Config"] = wire["LogConfig"]["Config"] or {}
    wire["OomKillDisable"] = bool(wire["OomKillDisable"])
    wire["PidsLimit"] = wire["PidsLimit"] or None
    if wire["MemorySwappiness"] == -1:
        wire["MemorySwappiness"] = None
    if not record.host_config.privileged:
        for name, default in (("MaskedPaths", MASKED_PATHS), ("ReadonlyPaths", READONLY_PATHS)):
            wire[name] = list(default) if wire[name] is None else wire[name]
    return wire


def network_settings(networks: Mapping[str, Json], *, ports: Mapping[str, Any], sandbox: str, key: str) -> Json:
    """Return NetworkSettings with the top-level fields that end at API 1.51, taken from the default bridge."""
    bridge = networks.get("bridge", {})
    settings = {
        "Bridge": "",
        "SandboxID": sandbox,
        "SandboxKey": key,
        "Ports": dict(ports),
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
    }
    for field in ("EndpointID", "Gateway", "GlobalIPv6Address", "IPAddress", "IPv6Gateway", "MacAddress"):
        settings[field] = bridge.get(field, "")
    for field in ("GlobalIPv6PrefixLen", "IPPrefixLen"):
        settings[field] = bridge.get(field, 0)
    settings["Networks"] = dict(networks)
    return settings


def inspect(
    record: Record,
    *,
    root: Path,
    network: Json,
    graph: Mapping[str, str],
    exec_ids: Sequence[str],
) -> Json:
    """Return the answer of GET /containers/ID/json. root: the container's folder; network: from `network_settings`."""
    config = _section(record.config, "Config")
    config["Labels"] = config["Labels"] or {}
    return {
        "Id": record.id,
        "Created": rfc3339(record.created),
        "Path": record.path,
        "Args": list(record.args),
        "State": state(record),
        "Image": record.image_id,
        "ResolvConfPath": str(root / "resolv.conf"),
        "HostnamePath": str(root / "hostname"),
        "HostsPath": str(root / "hosts"),
        "LogPath": str(root / f"{record.id}-json.log") if record.host_config.log_config.type == "json-file" else "",
        "Name": f"/{record.name}",
        "RestartCount": record.state.restart_count,
        "Driver": record.driver,
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": list(exec_ids) or None,
        "HostConfig": host_config(record),
        "GraphDriver": {"Data": {"ID": record.id, **graph}, "Name": record.driver},
        "Mounts": [mount(each) for each in record.mounts],
        "Config": config,
        "NetworkSettings": network,
    }
