"""What the engine knows of a container that is looked at: names for what the kernel has, and what was asked for.

Nothing of this is shown as a fact: it finds the way (a pid), gives names (layers, other containers), and is compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wherry.models.xray import Layer


@dataclass(frozen=True, slots=True)
class Other:
    """Another running container."""

    name: str
    pid: int


@dataclass(frozen=True, slots=True)
class Connection:
    """What one endpoint was given. Addresses are text, "" where there is none; ipv4, ipv6 with the prefix length."""

    network: str
    interface: str
    mac: str
    ipv4: str
    ipv6: str
    gateway: str
    firewall_table: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """A running container.

    pid, start_time: of the first process, which together name it for good. spec: the OCI spec that its record makes
    today, None when that cannot be made; refused says why then. modes: "private", "host" or "container:NAME" by
    namespace, in the kernel's names. layers: by chain ID. files: those that the engine mounts into it, host path by
    target. execs: exec id by pid. has_init: the first process is what --init put before the command.
    """

    id: str
    pid: int
    start_time: int
    cgroup_path: str
    spec: Mapping[str, Any] | None = None
    refused: str = ""
    modes: Mapping[str, str] = field(default_factory=dict)
    others: tuple[Other, ...] = ()
    layers: Mapping[str, Layer] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    execs: Mapping[int, str] = field(default_factory=dict)
    connections: tuple[Connection, ...] = ()
    has_init: bool = False
