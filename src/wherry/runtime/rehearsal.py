"""Go through the code of a start without effect, ahead of time.

In the zygote: the interpreter adapts code that has run some times, and all supervisors share the result. In a spare
supervisor and its stem: the pages that a start writes to, were it only a reference count, are copied before they are
needed.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable
from typing import Any

from wherry.kernel import caps, const, namespaces
from wherry.runtime import channel
from wherry.runtime.cgroups import Cgroup, MountSources
from wherry.runtime.logdrivers.containerlog import ContainerLog
from wherry.runtime.mounts import Mount
from wherry.runtime.ops_mounts import BindMount, MountCgroups, MountFilesystem
from wherry.runtime.ops_namespaces import OpenProcfs, StopPropagation
from wherry.runtime.ops_process import ChangeDirectory, FindProgram, Identify, InstallStdio
from wherry.runtime.ops_root import MountRoot, Pivot
from wherry.runtime.ops_rootfs import MakeDevices, MakeWorkingDirectory, MaskPaths, ReadonlyPaths
from wherry.runtime.phases import Marks
from wherry.runtime.plan import plan_container, plan_exec
from wherry.runtime.poller import Poller
from wherry.runtime.session import Session
from wherry.runtime.setup import ContainerStart, ExecStart, Operation, Setup, SetupError
from wherry.runtime.sources import OpenSources
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
        "user": {"uid": 0, "gid": 0, "username": ""},
        "args": ["/proc/self/exe"],
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
        "maskedPaths": ["/proc/kcore", "/proc/keys", "/sys/firmware"],
        "readonlyPaths": ["/proc/sys"],
    },
}
_HARMLESS = (
    OpenProcfs, OpenSources, StopPropagation, MountRoot, Pivot, MountFilesystem, BindMount, MountCgroups, MakeDevices,
    MakeWorkingDirectory, ReadonlyPaths, MaskPaths, Identify, ChangeDirectory, FindProgram,
)  # fmt: skip
_HARMLESS_EXEC = (OpenProcfs, InstallStdio, Identify, ChangeDirectory, FindProgram)
_LAUNCH = Launch(
    id="rehearsal",
    run_dir="/",
    spec=_SPEC,
    rootfs=(Mount("tmpfs", "rehearsal", "", ("size=64k",)),),
    attaches=(AttachOptions(),),
)


def plan() -> None:
    """What the child does before its first effect."""
    launch = _decoded()
    cgroup = Cgroup.open(launch.spec["linux"]["cgroupsPath"])
    plan_container(
        launch.spec, launch.rootfs, cgroup.mount_sources(), given_network=True, session="_ses.x", hooks=False
    )


def container() -> None:
    """The steps of a start that stay within a mount namespace, in one that is thrown away again.

    Takes some 5 ms of a spare's idle time, and saves as much of the time of a start: half of that is page faults.
    """
    launch = _decoded()
    group = Cgroup.open(launch.spec["linux"]["cgroupsPath"])
    ours, theirs = channel.pair()
    request = ContainerStart(launch.spec, launch.rootfs, None, None, theirs, group, None)
    setup = Setup(request, launch.spec["process"], theirs)
    steps = plan_container(
        launch.spec, launch.rootfs, _tops(group), given_network=True, session="_ses.x", hooks=False
    )
    own = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    namespaces.unshare(const.CLONE_NEWNS)
    try:
        _go_through(steps, _HARMLESS, setup)
    finally:
        namespaces.setns(own, const.CLONE_NEWNS)
        os.close(own)
        ours.close()
        theirs.close()


def execute() -> None:
    """The steps of an exec that have no effect."""
    launch = _decoded()
    ours, theirs = channel.pair()
    process = launch.spec["process"]
    group = Cgroup.open(launch.spec["linux"]["cgroupsPath"])
    request = ExecStart(process, launch.spec, 0, -1, None, theirs, group, None, spawn=True)
    setup = Setup(request, process, theirs)
    setup.root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    _go_through(plan_exec(process, launch.spec, session="_ses.x", spawn=True), _HARMLESS_EXEC, setup)
    caps.get()
    channel.send(ours, {"spawned": 1})
    ours.close()
    theirs.close()


def _go_through(steps: Iterable[Operation], harmless: tuple[type[Operation], ...], setup: Setup) -> None:
    umask = os.umask(0)
    try:
        for step in steps:
            if isinstance(step, harmless):
                step.run(setup)
    except (OSError, SetupError):
        pass  # what this kernel cannot do is told by the container that asks for it; here it only costs speed
    finally:
        channel.close_all([fd for fd in {setup.root, setup.procfs, setup.dev, setup.devpts} if fd >= 0])
        os.umask(umask)


def _tops(group: Cgroup) -> MountSources:
    """The mount points of the hierarchies in place of the group's directories, which are not made."""
    sources = group.mount_sources()
    binds = tuple((name, directory.removesuffix(group.path)) for name, directory in sources.binds)
    return MountSources(sources.version, binds, sources.links)


def supervise() -> None:
    """A supervisor's streams, log and messages, on pipes and sockets of its own."""
    launch = _decoded()
    Cgroup.open(launch.spec["linux"]["cgroupsPath"])
    poller = Poller()
    log = ContainerLog(LogTarget("json-file", "/dev/null"))
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
    marks = Marks()
    marks.begin("rehearsal")
    marks.read()
    marks.close()
    one, other = channel.pair()
    channel.send(one, {"type": "exited", **Exit(0, 0, 0).to_wire()}, [one.fileno()])
    channel.close_all(channel.receive(other)[1])
    one.close()
    other.close()


def _decoded() -> Launch:
    return Launch.from_wire(json.loads(json.dumps(_LAUNCH.to_wire())))
