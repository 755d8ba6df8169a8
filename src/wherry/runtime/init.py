"""The child's side of making a container or an exec: run the plan, become the program, or tell why not.

    child                                        parent (supervisor or runtime command)
      | -- {"await": "hooks"} -----------------> |   only with ContainerStart.hooks; answered {"state": ...}
      | -- {"console": true} + master fd ------> |   process.terminal
      | -- {"ready": true} --------------------> |   only with ContainerStart.hold; goes on over a new connection
      | -- {"spawned": PID} -----------------> |   only with ExecStart.spawn, before EOF
      | -- {"failed": {phase, operation, ...}} > |   told once, then the child ends
      | -- EOF --------------------------------> |   execve has closed the socket: the program runs

The child is forked from a process that has opened all kinds of things, so the first thing it does is close them: an
exec is born inside the container's pid namespace, in sight of processes that may be allowed to trace it.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import Any, NoReturn

from wherry.kernel import const, fds, process, signals
from wherry.kernel import namespaces as kernel
from wherry.runtime import channel, selfprotect, starter
from wherry.runtime.phases import Marks
from wherry.runtime.plan import namespaces, plan_container, plan_exec
from wherry.runtime.setup import ContainerStart, ExecStart, Operation, Setup, SetupError

__all__ = [
    "ContainerStart", "ExecStart", "enter_exec_parent", "enter_parent", "leave_parent", "run_container", "run_exec",
]  # fmt: skip

_BY_PARENT = {"pid": const.CLONE_NEWPID, "time": const.CLONE_NEWTIME}
_SIGKILL = 9
_FAILED = 1


def enter_parent(spec: dict[str, Any]) -> None:
    """Have the next children born into the spec's pid and time namespaces; call it once, before the fork.

    Raises OSError. The calling process cannot be traced or read through /proc from then on, nor can the children.
    """
    process.set_dumpable(False)
    flags = 0
    for kind, path in namespaces(spec).items():
        if kind not in _BY_PARENT:
            continue
        if not path:
            flags |= _BY_PARENT[kind]
            continue
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            kernel.setns(fd, _BY_PARENT[kind])
        finally:
            os.close(fd)
    if flags:
        kernel.unshare(flags)


def leave_parent(spec: dict[str, Any]) -> None:
    """Have the next children born where we are again; undoes `enter_parent`. Raises OSError."""
    opened = [
        (os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC), flag)
        for kind, flag in _BY_PARENT.items()
        if kind in namespaces(spec)
    ]
    for fd, flag in opened:
        kernel.setns(fd, flag)
        os.close(fd)


def enter_exec_parent(spec: dict[str, Any], init_pidfd: int) -> None:
    """Have the next children born into the pid and time namespaces of a running container; for `run_exec`.

    Not needed in the process that called `enter_parent` for the container. Raises OSError: ESRCH.
    """
    process.set_dumpable(False)
    flags = 0
    for kind in namespaces(spec):
        flags |= _BY_PARENT.get(kind, 0)
    if flags:
        kernel.setns(init_pidfd, flags)


def run_container(request: ContainerStart) -> NoReturn:
    """Make the container in this process and become its program. Never returns."""
    keep = [] if request.netns_fd is None else [request.netns_fd]
    keep += [] if request.hold is None else [request.hold.fileno()]
    keep += [] if request.keeper is None else [request.keeper.fileno()]
    keep += selfprotect.kept()
    _isolate(request, keep)
    if request.hold is None:
        process.set_parent_death_signal(_SIGKILL)
    setup = Setup(request, request.spec.get("process") or {}, request.sync)
    _carry_out(
        setup,
        lambda: plan_container(
            request.spec,
            request.rootfs,
            request.cgroup.mount_sources(),
            given_network=request.netns_fd is not None,
            session=_session(request),
            hooks=request.hooks,
        ),
        request.marks,
    )


def run_exec(request: ExecStart) -> NoReturn:
    """Enter the container with this process and become the program. Never returns."""
    program = starter.program()
    keep = [] if request.requests < 0 or program is None else [request.requests, program]
    _isolate(request, [request.init_pidfd, *keep])
    process.set_parent_death_signal(_SIGKILL)
    setup = Setup(request, request.process, request.sync)
    _carry_out(setup, lambda: _plan_exec(request))


def _plan_exec(request: ExecStart) -> tuple[Operation, ...]:
    return plan_exec(
        request.process,
        request.spec,
        session=_session(request),
        spawn=request.spawn,
        oom_score=request.oom_score,
        stay=request.requests >= 0,
    )


def _session(request: ContainerStart | ExecStart) -> str:
    """The session keyring's name, "" for none; the id is the last part of the cgroup's path unless it is given."""
    if not request.keyring:
        return ""
    return "_ses." + (request.id or request.cgroup.path.rpartition("/")[2])


def _isolate(request: ContainerStart | ExecStart, keep: list[int]) -> None:
    """Cut what ties this process to the one it was forked from: descriptors, signal handlers, inspection."""
    gc.disable()  # a collection could close descriptors whose numbers are somebody else's by now
    process.set_dumpable(False)
    signals.block_all()
    os.umask(0)
    stdio = request.stdio or ()
    fds.close_except({0, 1, 2, *stdio, request.sync.fileno(), *keep, *range(3, 3 + request.preserve_fds)})


def _carry_out(setup: Setup, make_plan: Callable[[], tuple[Operation, ...]], marks: Marks | None = None) -> NoReturn:
    operation = Operation()
    try:
        for operation in make_plan():
            if marks is not None:
                marks.begin(operation.phase)
            operation.run(setup)
            if marks is not None and setup.root >= 0 and not marks.root:
                marks.root = os.fstat(setup.root).st_dev
    except SetupError as error:
        _report(setup, operation, error.message, error.number, error.path)
    except OSError as error:
        path = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
        _report(setup, operation, operation.explain(error), error.errno or 0, path)
    except Exception as error:
        _report(setup, operation, f"{type(error).__name__}: {error}", 0, "")
    finally:
        os._exit(_FAILED)


def _report(setup: Setup, operation: Operation, message: str, number: int, path: str) -> None:
    planned = type(operation) is not Operation
    fields = {
        "phase": operation.phase if planned else "process",
        "operation": operation.describe() if planned else "read the configuration",
        "errno": number,
        "path": path,
        "message": message,
    }
    channel.send(setup.sync, {"failed": fields})
