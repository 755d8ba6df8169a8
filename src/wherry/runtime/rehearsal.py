"""Go through the code of a start without effect, ahead of time.

In the zygote: the interpreter adapts code that has run some times, and all supervisors share the result. In a spare
supervisor and its stem: the pages that a start writes to, were it only a reference count, are copied before they are
needed.
"""

from __future__ import annotations

import json
import os
import socket
from typing import Any

from wherry.runtime import channel
from wherry.runtime.cgroups import Cgroup
from wherry.runtime.logfile import JsonFileLog
from wherry.runtime.mounts import Mount
from wherry.runtime.plan import plan_container
from wherry.runtime.poller import Poller
from wherry.runtime.session import Session
from wherry.runtime.wire import AttachOptions, Exit, Launch, LogTarget

_SAFE = ("nosuid", "noexec", "nodev")
_MOUNTS = (
    Mount("proc", "proc", "/proc", _SAFE),
    Mount("tmpfs", "tmpfs", "/dev", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    Mount("devpts", "devpts", "/dev/pts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")),
    Mount("sysfs", "sysfs", "/sys", ("ro", *_SAFE)),
    Mount("cgroup", "cgroup", "/sys/fs/cgroup", ("ro", *_SAFE)),
    Mount("tmpfs", "shm", "/dev/shm", (*_SAFE, "mode=1777", "size=65536k")),
    Mount("bind", "/etc/hosts", "/etc/hosts", ("rbind", "rprivate")),
)
_CAPABILITIES = ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID"]
_SPEC: dict[str, Any] = {
    "process": {
        "user": {"uid": 0, "gid": 0},
        "args": ["/bin/true"],
        "env": ["PATH=/bin"],
        "cwd": "/",
        "capabilities": {"bounding": _CAPABILITIES, "effective": _CAPABILITIES, "permitted": _CAPABILITIES},
        "oomScoreAdj": 0,
    },
    "root": {"path": "/"},
    "hostname": "rehearsal",
    "mounts": [mount.to_oci() for mount in _MOUNTS],
    "linux": {
        "cgroupsPath": "/wherry/rehearsal",
        "namespaces": [{"type": kind} for kind in ("mount", "uts", "ipc", "network", "pid", "cgroup", "time")],
        "resources": {"memory": {"limit": 1}, "devices": [{"allow": False, "access": "rwm"}]},
        "maskedPaths": ["/proc/kcore", "/proc/keys"],
        "readonlyPaths": ["/proc/sys"],
    },
}
_LAUNCH = Launch(
    id="rehearsal",
    run_dir="/",
    spec=_SPEC,
    rootfs=(Mount("overlay", "overlay", "", ("lowerdir=/a:/b", "upperdir=/c", "workdir=/d")),),
    attaches=(AttachOptions(),),
)


def plan() -> None:
    """What the child does before its first effect."""
    launch = _decoded()
    cgroup = Cgroup.open(launch.spec["linux"]["cgroupsPath"])
    plan_container(
        launch.spec, launch.rootfs, cgroup.mount_sources(), given_network=True, session="_ses.x", hooks=False
    )


def supervise() -> None:
    """A supervisor's streams, log and messages, on pipes and sockets of its own."""
    launch = _decoded()
    Cgroup.open(launch.spec["linux"]["cgroupsPath"])
    poller = Poller()
    log = JsonFileLog(LogTarget("json-file", "/dev/null"))
    session = Session(poller, terminal=False, log=log, stdin=False, once=False, patient=False)
    ours, theirs = socket.socketpair()
    stdio = session.make_pipes(output=True)
    session.attach(theirs.detach(), launch.attaches[0])
    os.write(stdio[1], b"rehearsal\n")
    poller.run_once()
    channel.close_all(stdio)
    session.drain()
    session.finish()
    ours.close()
    poller.close()
    one, other = channel.pair()
    channel.send(one, {"type": "exited", **Exit(0, 0, 0).to_wire()}, [one.fileno()])
    channel.close_all(channel.receive(other)[1])
    one.close()
    other.close()


def _decoded() -> Launch:
    return Launch.from_wire(json.loads(json.dumps(_LAUNCH.to_wire())))
