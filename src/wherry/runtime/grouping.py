"""Who makes a container's control group, and when.

    cgroupfs    the supervisor, before it forks: of version 2 the process is then born in it
    systemd     the first process itself, after the fork: a scope cannot be without a process
    either      a stem (see `stem`), which was forked before anybody knew of the container
"""

from __future__ import annotations

import socket
from typing import Any

from wherry.runtime import channel
from wherry.runtime.cgroups import Cgroup
from wherry.runtime.wire import SetupFailure

PLACE = ("cgroup", "make the control group")
"""Phase and operation of a failure."""

Linux = dict[str, Any]


def make_before(linux: Linux) -> Cgroup:
    """Return the group of a spec's linux object, made unless its first process has to do that. Raises OSError."""
    group = Cgroup.open(linux["cgroupsPath"])
    return group if group.scope else Cgroup.create(linux["cgroupsPath"], linux.get("resources") or {})


def make_within(group: Cgroup, linux: Linux, sync: socket.socket) -> Cgroup | None:
    """Return the group that `make_before` returned, made by now; None when that failed, which `sync` is told."""
    return make(linux, sync) if group.scope else group


def make(linux: Linux, sync: socket.socket) -> Cgroup | None:
    """Make the group in the process that is to be its first, and tell `sync` when that fails.

    What is left of a scope is the supervisor's to remove: only then is this process out of it.
    """
    try:
        return Cgroup.create(linux["cgroupsPath"], linux.get("resources") or {})
    except OSError as error:
        failure = SetupFailure.from_oserror(*PLACE, error)
        left = ":" in linux["cgroupsPath"]
        channel.send(sync, {"failed": failure.to_wire(), "cgroup": left})
        return None
