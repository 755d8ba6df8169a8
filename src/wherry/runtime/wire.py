"""The messages between wherryd, the zygote and the supervisors: tables and their meaning.

All sockets are AF_UNIX SOCK_SEQPACKET; a message is one JSON object, descriptors ride along (SCM_RIGHTS) in
the order that the message's "fds" list names. A message over 64 KiB travels in a memfd, named "@memfd" and
sent as the last descriptor; the receiver maps it back before anyone sees it.

    wherryd                       zygote                    supervisor               container
       | -- launch {spec, fds} ---> |                            |
       |    (fds: "control", ...)   | -- fork ------------------> |  owns "control" from here
       |                            |                            | -- fork, plan, execve --> |
       | <------------ running {pid, start_time} --------------- |   (sync pipe EOF)
       |           or  failed {phase, operation, errno, ...} --- |   then the supervisor ends
       | -- attach | exec | resize | stdin-close | signal ----->  |
       | <------------ reply {seq, ok | error} ----------------- |
       | <------------ exec-exited {exec, code} ---------------- |
       | <------------ exited {code, signal, oom, at} ---------- |   exit.json is on disk before this is sent
       | <------------ EOF ------------------------------------- |   everything of the container is gone

After a restart wherryd connects to RUN_DIR/supervisor.sock (0600), and gets a "state" message first. One
control connection is live at a time; the newest wins.

Daemon to zygote
    launch   the fields of `Launch`; fds: "control", then optionally "netns", "attach0".."attachN"
    EOF      the zygote ends; supervisors go on

Daemon to supervisor: every message has "seq" (int), answered by one reply
    attach       {stdin, stdout, stderr: bool, detach_keys: "ctrl-p,ctrl-q", early: base64}   fds: "stream"
    exec         the fields of `ExecLaunch`                                                   fds: optionally "stream"
                 reply ok carries {pid}; error carries the fields of `SetupFailure`
    resize       {exec: id or "", height, width}     rows and columns, TIOCSWINSZ
    stdin-close  {exec: id or ""}
    signal       {exec: id or "", signal: int}       to the exec's process, or to the container's first process
    state        {} -> {pid, start_time, execs: {id: {pid, running, code}}}

Supervisor to daemon, unasked
    running, failed, exited, exec-exited as drawn above

An attach stream is a connected stream socket. Output is framed as the Engine API frames it
([stream, 0, 0, 0, len32be] + bytes, stream 1 = stdout, 2 = stderr) unless the container has a terminal: then
raw. Input is raw. The supervisor holds the first output byte until SIOCOUTQ is 0 (at most 50 ms), so that a
client which reads the HTTP head through a buffer does not lose it; it shuts its side down for writing when the
output is drained, and treats the peer's half-close as end of stdin (with stdin_once, or on an exec).
A client that does not read is given up to 4 MiB of backlog and then dropped; it never blocks the container.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from wherry.runtime.mounts import Mount


@dataclass(frozen=True, slots=True)
class LogTarget:
    """Where the supervisor writes the log. driver: "json-file" or "none". max_size in bytes, 0 = no rotation."""

    driver: str = "none"
    path: str = ""
    max_size: int = 0
    max_file: int = 1
    attrs: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AttachOptions:
    """Which streams one attached client takes part in. early: input bytes that came with the HTTP request."""

    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    detach_keys: str = "ctrl-p,ctrl-q"
    early: bytes = b""


@dataclass(frozen=True, slots=True)
class Launch:
    """Everything a supervisor needs to make and run one container.

    spec: OCI runtime spec (config.json); root.path is the place, inside the container's own mount namespace, where
    `rootfs` is mounted before pivot_root. rootfs: the mounts that make the root (from a Snapshotter), the first
    with target "". run_dir: exists, 0700; the supervisor writes pid, supervisor.sock and exit.json there.
    open_stdin: keep a stdin pipe open for attachers; stdin_once: close it when the first attacher that had it goes.
    netns: a descriptor "netns" comes along and is joined; otherwise the spec's namespaces decide.
    """

    id: str
    run_dir: str
    spec: dict[str, Any]
    rootfs: tuple[Mount, ...]
    log: LogTarget = LogTarget()
    open_stdin: bool = False
    stdin_once: bool = False
    netns: bool = False
    attaches: tuple[AttachOptions, ...] = ()
    init_path: str = ""


@dataclass(frozen=True, slots=True)
class ExecLaunch:
    """One more process in a running container. process: the OCI spec's ``process`` object."""

    exec_id: str
    process: dict[str, Any]
    attach: AttachOptions | None = None


@dataclass(frozen=True, slots=True)
class SetupFailure:
    """Why a container or exec did not start.

    phase: "cgroup", "namespaces", "rootfs", "process", "exec". operation: what was done, in words, e.g.
    "mount overlay on /". errno: 0 when no system call failed. path: the object, "" when there is none.
    message: the whole sentence for the user.
    """

    phase: str
    operation: str
    errno: int
    path: str
    message: str


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended. code: exit status, or 128 + signal. at: Unix time in ns. oom: the OOM killer struck."""

    code: int
    signal: int
    at: int
    oom: bool = False
