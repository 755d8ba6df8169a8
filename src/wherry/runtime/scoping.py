"""A control group that is systemd's: what `cgroups` asks for, in systemd's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wherry.kernel import cgroup
from wherry.runtime import systemd
from wherry.runtime.scope_properties import limits
from wherry.runtime.scopes import Scope

Resources = Mapping[str, Any]

_ACCOUNTING = {
    1: ("CPUAccounting", "MemoryAccounting", "BlockIOAccounting", "TasksAccounting"),
    2: ("CPUAccounting", "MemoryAccounting", "IOAccounting", "TasksAccounting"),
}


def start(scope: Scope, resources: Resources, *, version: int, bfq: bool) -> None:
    """Put the calling process into a new scope with the limits that systemd has to know; raises OSError."""
    found = limits(resources, version=version, bfq=bfq, groups=cgroup.read("/proc/devices"))
    systemd.start(scope, found, accounting=_ACCOUNTING[version])


def change(scope: Scope, resources: Resources, *, version: int, bfq: bool) -> None:
    """Change these limits as systemd has them; raises OSError."""
    systemd.change(scope, limits(resources, version=version, bfq=bfq, groups=cgroup.read("/proc/devices")))


def stop(scope: Scope) -> None:
    """Have systemd forget the scope."""
    try:
        systemd.stop(scope)
    except OSError:
        # The bus is down or busy: a scope in whose group nobody is any more ends by itself (systemd.scope(5)).
        pass
