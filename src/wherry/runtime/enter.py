"""One more process in a running container, for the stand-alone runtime's exec."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Any

from wherry.kernel import process as kernel
from wherry.kernel.seccomp_bpf import compile_filter
from wherry.runtime import channel
from wherry.runtime.bundle import check_process, read_json
from wherry.runtime.console import send_descriptor
from wherry.runtime.faults import Refused
from wherry.runtime.filters import can_spawn
from wherry.runtime.init import ExecStart, enter_exec_parent, run_exec
from wherry.runtime.options import Options
from wherry.runtime.plan import namespaces
from wherry.runtime.state import Container

Spec = dict[str, Any]


@dataclass(slots=True)
class Entered:
    """A process that runs in the container, and the master side of its terminal when it stays with us."""

    pid: int
    master: int | None


def process_of(spec: Spec, options: Options) -> dict[str, Any]:
    """Return the OCI process object that an exec command line asks for."""
    if options.text("process"):
        process = read_json(options.text("process"), f"process file {options.text('process')} not found")
        check_process(process)
        return process
    args = options.words[1:]
    if not args:
        raise Refused("exec args cannot be empty")
    process = {key: value for key, value in spec["process"].items() if key != "consoleSize"}
    process["args"] = args
    process["terminal"] = options.given("tty")
    process["cwd"] = options.text("cwd") or process["cwd"]
    process["env"] = [*(process.get("env") or ()), *options.every("env")]
    process["user"] = _user(options, process.get("user") or {})
    if options.given("no-new-privs"):
        process["noNewPrivileges"] = True
    for flag, key in (("apparmor", "apparmorProfile"), ("process-label", "selinuxLabel")):
        if options.text(flag):
            process[key] = options.text(flag)
    if options.every("cap"):
        process["capabilities"] = _capabilities(process.get("capabilities") or {}, options.every("cap"))
    return process


def _user(options: Options, given: dict[str, Any]) -> dict[str, Any]:
    user = dict(given)
    if options.text("user"):
        name, _, group = options.text("user").partition(":")
        if name.isdigit() and (not group or group.isdigit()):
            user = {"uid": int(name), "gid": int(group or 0)}
        else:
            user = {"uid": 0, "gid": 0, "username": options.text("user")}
    if options.every("additional-gids"):
        try:
            user["additionalGids"] = [int(gid) for gid in options.every("additional-gids")]
        except ValueError:
            raise Refused("additional gids must be numbers") from None
    return user


def _capabilities(given: dict[str, list[str]], extra: list[str]) -> dict[str, list[str]]:
    """Add to all sets but the ambient one, which needs the inheritable one (CVE-2022-24769: both stay as given)."""
    sets = dict(given)
    for name in ("bounding", "effective", "permitted"):
        sets[name] = [*(sets.get(name) or ()), *extra]
    return sets


def enter(container: Container, spec: Spec, process: dict[str, Any], options: Options) -> Entered:
    """Start `process` in the container and return when its program runs."""
    linux = spec.get("linux") or {}
    pidfd = container.pidfd()
    sync, theirs = channel.pair()
    seccomp = compile_filter(linux["seccomp"]) if linux.get("seccomp") else None
    spawn = "pid" in namespaces(spec) and (seccomp is None or can_spawn(seccomp))
    try:
        if spawn:
            kernel.set_child_subreaper(True)
        else:
            enter_exec_parent(spec, pidfd)
        group = container.cgroup()
        pid = group.fork()
        if pid == 0:
            sync.close()
            run_exec(
                ExecStart(
                    process=process, spec=spec, init_pid=container.record.pid, init_pidfd=pidfd,
                    stdio=None if process.get("terminal") else (0, 1, 2), sync=theirs, cgroup=group,
                    seccomp=seccomp, spawn=spawn, preserve_fds=options.number("preserve-fds"), id=container.record.id,
                    keyring=container.record.keyring,
                )
            )  # fmt: skip
        theirs.close()
        return _follow(sync, pid, spawn, options.text("console-socket"))
    finally:
        os.close(pidfd)
        sync.close()


def _follow(sync: socket.socket, child: int, spawn: bool, console_socket: str) -> Entered:
    """Wait until the program runs. spawn: the child forks it and ends, see `execspare`."""
    master, pid = None, 0 if spawn else child
    failure = ""
    while True:
        try:
            message, descriptors = channel.receive(sync)
        except EOFError:
            break
        if "failed" in message:
            failure = message["failed"]["message"]
        elif message.get("spawned"):
            pid = message["spawned"]
        elif message.get("console"):
            master = descriptors[0]
            if console_socket:
                send_descriptor(console_socket, master, "/dev/ptmx")
                os.close(master)
                master = None
    if spawn:
        os.waitpid(child, 0)
    if failure or not pid:
        if pid:
            os.waitpid(pid, 0)
        raise Refused(f"unable to start container process: {failure or 'the process that was to start it was killed'}")
    return Entered(pid, master)
