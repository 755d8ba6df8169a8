"""The commands on containers that are there, each as a function of what was given on its command line."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from collections.abc import Callable
from typing import Any

from wherry.runtime import bundle, lifecycle
from wherry.runtime.context import Context
from wherry.runtime.faults import Refused
from wherry.runtime.options import Options
from wherry.runtime.state import Container

KILL_SECONDS = 10.0


def start(context: Context, options: Options) -> int:
    """Let a created container run its program."""
    container = context.container(options)
    status = container.status()
    if status != "created":
        if status == "stopped":
            raise Refused("cannot start a container that has stopped")
        raise Refused("cannot start an already running container")
    context.warn(lifecycle.start(container))
    return 0


def state(context: Context, options: Options) -> int:
    """Print a container's state as the specification words it, and what runc adds to it."""
    print(json.dumps(_described(context.container(options)), indent=2))
    return 0


def _described(container: Container) -> dict[str, Any]:
    record = container.record
    return {**container.oci(), "rootfs": record.rootfs, "created": record.created, "owner": _owner(record.owner)}


def _owner(uid: int) -> str:
    return "root" if uid == 0 else str(uid)


def list_all(context: Context, options: Options) -> int:
    """Print the containers below the root."""
    if options.given("quiet"):
        for container_id in context.store.ids():
            print(container_id)
        return 0
    found = [_described(context.store.load(container_id)) for container_id in context.store.ids()]
    if options.text("format") == "json":
        print(json.dumps(found))
        return 0
    columns = ("id", "pid", "status", "bundle", "created", "owner")
    _print_table([[name.upper() for name in columns], *([str(row[name]) for name in columns] for row in found)])
    return 0


def _print_table(rows: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("   ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def kill(context: Context, options: Options) -> int:
    """Send a signal to the first process, or to all of them."""
    number = _signal_number(options.words[1] if len(options.words) > 1 else "SIGTERM")
    container = context.container(options)
    if options.given("all"):
        for pid in container.cgroup().pids():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue  # ended since it was listed
        return 0
    pidfd = container.pidfd()
    try:
        signal.pidfd_send_signal(pidfd, number)
    finally:
        os.close(pidfd)
    if number == signal.SIGKILL and container.status() == "paused":
        container.cgroup().thaw()  # on version 1 a frozen process dies when it is thawed
    return 0


def _signal_number(text: str) -> int:
    if text.isdigit() and int(text) in signal.valid_signals():
        return int(text)
    try:
        return signal.Signals[text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"].value
    except KeyError:
        raise Refused(f'unknown signal "{text}"') from None


def delete(context: Context, options: Options) -> int:
    """Remove a container that is not running, or with force any."""
    force = options.given("force")
    try:
        container = context.container(options)
    except Refused:
        if force:
            return 0
        raise
    status = container.status()
    if status not in ("created", "stopped") and not force:
        raise Refused(f"cannot delete container {container.record.id} that is not stopped: {status}")
    if status not in ("stopped", "creating"):
        _kill_and_wait(container)
    context.warn(lifecycle.remove(container, container.spec()))
    return 0


def _kill_and_wait(container: Container) -> None:
    """End the first process and wait until it has; its parent may be slow to reap it, which does not matter."""
    try:
        pidfd = container.pidfd()
    except Refused:
        return  # it has just ended
    try:
        container.cgroup().kill()
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        if not select.select([pidfd], [], [], KILL_SECONDS)[0]:
            raise Refused(f"process {container.record.pid} did not end {KILL_SECONDS:.0f} s after SIGKILL")
    except ProcessLookupError:
        return  # ended and reaped in between
    finally:
        os.close(pidfd)


def pause(context: Context, options: Options) -> int:
    """Freeze all processes of a container."""
    container = context.container(options)
    if container.status() not in ("running", "created"):
        raise Refused("container not running")
    container.cgroup().freeze()
    return 0


def resume(context: Context, options: Options) -> int:
    """Let the processes of a paused container go on."""
    container = context.container(options)
    if not container.alive() or not container.cgroup().frozen():
        raise Refused("container not paused")
    container.cgroup().thaw()
    return 0


def processes(context: Context, options: Options) -> int:
    """Print the processes of a container by their numbers outside."""
    pids = context.container(options).cgroup().pids()
    if options.text("format") == "json":
        print(json.dumps(pids))
        return 0
    _print_table([["UID", "PID", "PPID", "CMD"], *filter(None, map(_process_row, pids))])
    return 0


def _process_row(pid: int) -> list[str] | None:
    """Return what ps(1) would say of a process, or None when it has ended meanwhile."""
    try:
        with open(f"/proc/{pid}/status") as file:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        with open(f"/proc/{pid}/cmdline", "rb") as command:
            words = command.read(4096).rstrip(b"\0").split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return None
    text = b" ".join(words).decode(errors="replace") or f"[{status['Name']}]"
    return [status["Uid"].split()[0], str(pid), status["PPid"].strip(), text.replace("\n", " ")]


_LIMITS = {
    "memory": ("memory", "limit"), "memory-reservation": ("memory", "reservation"), "memory-swap": ("memory", "swap"),
    "cpu-period": ("cpu", "period"), "cpu-quota": ("cpu", "quota"), "cpu-burst": ("cpu", "burst"),
    "cpu-share": ("cpu", "shares"), "pids-limit": ("pids", "limit"), "blkio-weight": ("blockIO", "weight"),
}  # fmt: skip
_SETS = {"cpuset-cpus": "cpus", "cpuset-mems": "mems"}


def update(context: Context, options: Options) -> int:
    """Change the limits of a container: from a JSON file of OCI resources ("-": stdin), or as options."""
    container = context.container(options)
    source = options.text("resources")
    if source:
        resources = bundle.read_json("/proc/self/fd/0" if source == "-" else source, f"{source} not found")
    else:
        resources = {}
        for name, (group, key) in _LIMITS.items():
            if options.text(name):
                resources.setdefault(group, {})[key] = options.number(name)
        for name, key in _SETS.items():
            if options.text(name):
                resources.setdefault("cpu", {})[key] = options.text(name)
    if container.status() == "stopped":
        raise Refused("container not running")
    container.cgroup().update(resources)
    return 0


def spec(context: Context, options: Options) -> int:
    """Write an example config.json into the bundle."""
    from wherry.runtime.example import EXAMPLE  # only here: nobody waits for it elsewhere

    path = os.path.join(options.text("bundle", "."), bundle.CONFIG)
    try:
        with open(path, "x") as file:
            json.dump(EXAMPLE, file, indent="\t")
    except FileExistsError:
        raise Refused(f"File {bundle.CONFIG} exists. Remove it first") from None
    return 0


def features(context: Context, options: Options) -> int:
    """Print what this runtime can do, as the specification's features.md words it."""
    from wherry.runtime.example import features as described

    json.dump(described(), sys.stdout, indent=4)
    print()
    return 0


BY_NAME: dict[str, Callable[[Context, Options], int]] = {
    "start": start, "state": state, "kill": kill, "delete": delete, "list": list_all, "ps": processes, "pause": pause,
    "resume": resume, "update": update, "spec": spec, "features": features,
}  # fmt: skip
