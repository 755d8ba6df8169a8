"""The commands that fork into a container: create, run and exec."""

from __future__ import annotations

import os
from typing import Any

from wherry.runtime import bundle, launch, lifecycle
from wherry.runtime.console import Foreground, hold_signals
from wherry.runtime.context import Context
from wherry.runtime.enter import enter, process_of
from wherry.runtime.faults import Refused
from wherry.runtime.options import Options
from wherry.runtime.state import Container, Record, now


def create(context: Context, options: Options) -> int:
    """Make a container that waits for start."""
    _make(context, options, hold=True, detach=True)
    return 0


def run(context: Context, options: Options) -> int:
    """Make a container and run its program; in the foreground until it ends."""
    detach = options.given("detach")
    if not detach:
        hold_signals()
    container, made, spec = _make(context, options, hold=False, detach=detach)
    context.warn(lifecycle.poststart(container, spec))
    if detach:
        return 0
    code = _wait(made.pid, made.master)
    if not options.given("keep"):
        context.warn(lifecycle.remove(container, spec))
    return code


def _make(
    context: Context, options: Options, *, hold: bool, detach: bool
) -> tuple[Container, launch.Launch, dict[str, Any]]:
    folder = os.path.abspath(options.text("bundle", "."))
    if not os.path.isdir(folder):
        raise Refused(f"chdir {folder}: no such file or directory")
    spec = bundle.load(folder)
    _check_terminal(spec["process"], options, detach)
    wishes = launch.Wishes(
        console_socket=options.text("console-socket"),
        pidfd_socket=options.text("pidfd-socket"),
        pid_file=options.text("pid-file"),
        preserve_fds=options.number("preserve-fds") + _listen_fds(spec["process"]),
        hold=hold,
    )
    record = Record(
        id=options.words[0],
        bundle=folder,
        rootfs=spec["root"]["path"],
        created=now(),
        cgroup=bundle.cgroup_path(spec, options.words[0], systemd=context.systemd_cgroup),
        owner=os.geteuid(),
        keyring=not options.given("no-new-keyring"),
        annotations=spec.get("annotations") or {},
    )
    container = context.store.create(record, spec)
    made = launch.Launch(container, spec, wishes)
    made.run()
    return container, made, spec


def _check_terminal(process: dict[str, Any], options: Options, detach: bool) -> None:
    console = options.text("console-socket")
    if process.get("terminal"):
        if detach and not console:
            raise Refused("cannot allocate tty if the runtime will detach without setting console socket")
    elif console:
        raise Refused("cannot use console socket if the runtime will not detach or allocate tty")


def _listen_fds(process: dict[str, Any]) -> int:
    """Pass on the sockets of sd_listen_fds(3): they come first among the descriptors that are kept."""
    count = os.environ.get("LISTEN_FDS", "")
    if not count.isdigit():
        return 0
    process["env"] = [*(process.get("env") or ()), f"LISTEN_FDS={count}", "LISTEN_PID=1"]
    return int(count)


def _wait(pid: int, master: int | None) -> int:
    """Stay in the foreground until the process has ended; return its exit code, 128 + signal when killed."""
    pidfd = os.pidfd_open(pid)
    try:
        Foreground(pidfd, master).wait()
    finally:
        os.close(pidfd)
        if master is not None:
            os.close(master)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return 128 - code if code < 0 else code


def execute(context: Context, options: Options) -> int:
    """Run one more process in a container."""
    container = context.container(options)
    status = container.status()
    if status in ("stopped", "creating"):
        raise Refused("cannot exec in a stopped container")
    if status == "paused" and not options.given("ignore-paused"):
        raise Refused("cannot exec in a paused container (use --ignore-paused to override)")
    spec = container.spec()
    process = process_of(spec, options)
    _check_terminal(process, options, options.given("detach"))
    if not options.given("detach"):
        hold_signals()
    entered = enter(container, spec, process, options)
    lifecycle.tell_pid(entered.pid, options.text("pidfd-socket"), options.text("pid-file"))
    return 0 if options.given("detach") else _wait(entered.pid, entered.master)
