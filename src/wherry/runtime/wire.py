"""The messages between wherryd, the zygote and the supervisors: tables and their meaning.

All sockets are AF_UNIX SOCK_SEQPACKET; a message is one JSON object with a "type", descriptors ride along
(SCM_RIGHTS) in the order that the message's "fds" list names; `channel` carries them.

    wherryd                       zygote                    supervisor               container
       | -- launch {spec, fds} ---> |                            |
       |    (fds: "control", ...)   | -- fork ------------------> |  owns "control" from here
       |                            |                            | -- fork, plan, execve --> |
       | <------------ running {pid, start_time, at, ...} ------ |   (sync socket EOF)
       |           or  failed {phase, operation, errno, ...} --- |   then the supervisor ends
       | -- attach | exec | resize | signal | hold | ... ------>  |
       | <------------ reply {seq, ok | error} ----------------- |
       | <------------ exec-exited {exec, code, signal, at} ---- |
       | <------------ exited {code, signal, oom, at} ---------- |   exit.json is on disk before this is sent
       | <------------ EOF ------------------------------------- |   no process and no cgroup of it is left

After a restart wherryd connects to RUN_DIR/supervisor.sock (0600), and gets a "state" message first. One
control connection is live at a time; the newest wins.

Daemon to zygote
    launch   the fields of `Launch`; fds: "control", then optionally "netns", "attach0".."attachN"
    seccomp  {key, profile: OCI linux.seccomp}   compiled once, kept under the key, before a launch names it
    forget   {key}                               drops a compiled filter
    EOF      the zygote ends; supervisors go on

Zygote to daemon
    ready    {}                                  preloaded, launches may come

Daemon to supervisor: every message has "seq" (int, from 1), answered by one reply over the same connection
    attach       the fields of `AttachOptions`, early in base64                               fds: "stream"
    exec         the fields of `ExecLaunch`                                                   fds: optionally "stream"
                 reply ok carries {pid, at}; error carries the fields of `SetupFailure`
    check        {process: OCI process or null, timeout: seconds, limit: bytes}   run the health check; null: as before
                 reply ok, at its end, carries {code, late, begin, end: Unix ns, output: base64}, or {unable: true} when
                 it has to be an exec (see `checks`); code is -1 when it had to be killed for being late and hung on
    resize       {exec: id or "", height, width}     rows and columns, TIOCSWINSZ
    stdin-close  {exec: id or ""}
    hold         {keys: [text]}                      keep descriptors open until the end: ports   fds: one per key
    release      {keys: [text]}                      close them; what is not held needs no closing
    signal       {exec: id or "", signal: int}       to the exec's process, or to the container's first process

Supervisor to daemon, unasked
    running, failed, exited, exec-exited as drawn above
    state        {pid, start_time, at, phases, root, execs: {id: {pid, exit: null or the fields of `Exit`}}}
                 root: st_dev of the root file system that the container was started with, 0 = not known
    detached     {exec: id or ""}                    a client has left by its detach keys
    replaced     {}                                  another connection took over; this one ends
    log-failed   {errno, message}                    output was lost: the log could not be written or sent

RUN_DIR holds (written by the supervisor, each by rename, so that a reader sees all or nothing)
    task.json        {pid, start_time, at, cgroup}: from the fork on
    exit.json        the fields of `Exit`: when the container is over and its log complete
    supervisor.sock  as above
    supervisor.log   only when the supervisor itself failed: the traceback

An attach stream is a connected stream socket. Output is framed as the Engine API frames it
([stream, 0, 0, 0, len32be] + bytes, stream 1 = stdout, 2 = stderr) unless the process has a terminal: then
raw. Input is raw. The supervisor holds the first output byte until SIOCOUTQ is 0 (at most 1 s), so that a
client which reads the HTTP head through a buffer does not lose it; it shuts its side down for writing when the
output is drained. The peer's half-close ends stdin (with stdin_once, or on an exec); where it must not end
stdin, or with a terminal, it detaches that client, as with dockerd.
A client of a container that does not read is given up to 4 MiB of backlog; then the output waits for it as long
as it goes on reading, and after 10 s without a byte read it is dropped: `docker run ... | slow` loses nothing, and
a client that hangs cannot stop a container. An exec's output belongs to its one client and waits without limit.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from dataclasses import dataclass, field
from typing import Any

from wherry.runtime.mounts import Mount, VolumeMount

NOBODY = 0
"""The seq of no request: what is answered to it is passed over."""


@dataclass(frozen=True, slots=True)
class LogTarget:
    """Where a container's output is logged.

    driver: "none", "json-file", "local", "syslog", "journald", "gelf" or "fluentd". path: the file; of a driver that
    sends, the copy in the format of local that docker logs reads, "" for none. max_size in bytes, 0 = any; max_age: of
    a file's first record, in ns, 0 = any; max_file: the current file and the older ones. compress: the older ones.
    buffer: bytes that may wait in memory for the driver before output is dropped, 0 = the output waits (blocking).
    attrs: of each record of json-file. options: what the driver's module wants to know.
    """

    driver: str = "none"
    path: str = ""
    max_size: int = 0
    max_file: int = 1
    max_age: int = 0
    compress: bool = False
    buffer: int = 0
    attrs: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    def to_wire(self) -> dict[str, Any]:
        """Return the message's fields."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class AttachOptions:
    """Which streams one attached client takes part in. early: input bytes that came with the HTTP request."""

    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    detach_keys: str = "ctrl-p,ctrl-q"
    early: bytes = b""

    def to_wire(self) -> dict[str, Any]:
        """Return the message's fields."""
        return {
            "stdin": self.stdin,
            "stdout": self.stdout,
            "stderr": self.stderr,
            "detach_keys": self.detach_keys,
            "early": b2a_base64(self.early, newline=False).decode("ascii"),
        }

    @classmethod
    def from_wire(cls, fields: dict[str, Any]) -> AttachOptions:
        """Build from the message's fields."""
        return cls(
            fields["stdin"], fields["stdout"], fields["stderr"], fields["detach_keys"], a2b_base64(fields["early"])
        )


@dataclass(frozen=True, slots=True)
class Launch:
    """Everything a supervisor needs to make and run one container.

    spec: OCI runtime spec (config.json); root.path is the place, inside the container's own mount namespace, where
    `rootfs` is mounted before pivot_root. rootfs: the mounts that make the root (from a Snapshotter), the first
    with target "". run_dir: exists, 0700; the supervisor writes pid, supervisor.sock and exit.json there.
    open_stdin: keep a stdin pipe open for attachers; stdin_once: close it when the first attacher that had it goes.
    netns: a descriptor "netns" comes along and is joined; otherwise the spec's namespaces decide.
    seccomp: key of the compiled filter in the zygote; Supervision moves spec.linux.seccomp there.
    phases: the start so far, see `runtime.phases`; the supervisor adds its own and tells them all with "running".
    volumes: mounted by the supervisor for the spec's mounts of type "volume", see runtime/volumes.py.
    runtime: program and arguments of another OCI runtime that makes the container, see `foreign`; empty for ours.
    private_mounts: nothing in its mount namespace is anybody else's, so it may be unmounted after the end was told.
    netns_file: the file on which the engine mounts the network namespace; unlinked at the end. "": there is none.
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
    seccomp: str = ""
    phases: tuple[tuple[str, int], ...] = ()
    volumes: tuple[VolumeMount, ...] = ()
    runtime: tuple[str, ...] = ()
    private_mounts: bool = False
    netns_file: str = ""

    def to_wire(self) -> dict[str, Any]:
        """Return the message's fields."""
        return {
            "id": self.id,
            "run_dir": self.run_dir,
            "spec": self.spec,
            "rootfs": [[mount.type, mount.source, mount.target, mount.options] for mount in self.rootfs],
            "log": self.log.to_wire(),
            "open_stdin": self.open_stdin,
            "stdin_once": self.stdin_once,
            "netns": self.netns,
            "attaches": [attach.to_wire() for attach in self.attaches],
            "init_path": self.init_path,
            "seccomp": self.seccomp,
            "phases": self.phases,
            "volumes": [volume.to_wire() for volume in self.volumes],
            "runtime": self.runtime,
            "private_mounts": self.private_mounts,
            "netns_file": self.netns_file,
        }

    @classmethod
    def from_wire(cls, fields: dict[str, Any]) -> Launch:
        """Build from the message's fields."""
        return cls(
            id=fields["id"],
            run_dir=fields["run_dir"],
            spec=fields["spec"],
            rootfs=tuple(Mount(each[0], each[1], each[2], tuple(each[3])) for each in fields["rootfs"]),
            log=LogTarget(**fields["log"]),
            open_stdin=fields["open_stdin"],
            stdin_once=fields["stdin_once"],
            netns=fields["netns"],
            attaches=tuple(AttachOptions.from_wire(attach) for attach in fields["attaches"]),
            init_path=fields["init_path"],
            seccomp=fields["seccomp"],
            phases=tuple((each[0], each[1]) for each in fields["phases"]),
            volumes=tuple(VolumeMount(*each) for each in fields["volumes"]),
            runtime=tuple(fields["runtime"]),
            private_mounts=fields["private_mounts"],
            netns_file=fields["netns_file"],
        )


@dataclass(frozen=True, slots=True)
class ExecLaunch:
    """One more process in a running container. process: the OCI spec's ``process`` object."""

    exec_id: str
    process: dict[str, Any]
    attach: AttachOptions | None = None

    def to_wire(self) -> dict[str, Any]:
        """Return the message's fields."""
        attach = self.attach.to_wire() if self.attach else None
        return {"exec_id": self.exec_id, "process": self.process, "attach": attach}

    @classmethod
    def from_wire(cls, fields: dict[str, Any]) -> ExecLaunch:
        """Build from the message's fields."""
        attach = AttachOptions.from_wire(fields["attach"]) if fields["attach"] else None
        return cls(fields["exec_id"], fields["process"], attach)


@dataclass(frozen=True, slots=True)
class SetupFailure:
    """Why a container or exec did not start.

    phase: "log", "cgroup", "namespaces", "volume", "rootfs", "process", "user", "exec". operation: what was done, in
    words, e.g. "mount overlay on /". errno: 0 when no system call failed. path: the object, "" when there is none.
    message: the whole sentence for the user.
    """

    phase: str
    operation: str
    errno: int
    path: str
    message: str

    def to_wire(self) -> dict[str, Any]:
        """Return the message's fields."""
        return {
            "phase": self.phase,
            "operation": self.operation,
            "errno": self.errno,
            "path": self.path,
            "message": self.message,
        }

    @classmethod
    def from_wire(cls, fields: dict[str, Any]) -> SetupFailure:
        """Build from the message's fields."""
        return cls(fields["phase"], fields["operation"], fields["errno"], fields["path"], fields["message"])

    @classmethod
    def from_oserror(cls, phase: str, operation: str, error: OSError) -> SetupFailure:
        """Describe a system call's failure."""
        path = str(error.filename or "")
        where = f" [{path}]" if path else ""
        return cls(phase, operation, error.errno or 0, path, f"{operation}: {error.strerror or error}{where}")


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended. code: exit status, or 128 + signal. at: Unix time in ns. oom: the OOM killer struck."""

    code: int
    signal: int
    at: int
    oom: bool = False

    def to_wire(self) -> dict[str, Any]:
        """Return the message's fields."""
        return {"code": self.code, "signal": self.signal, "at": self.at, "oom": self.oom}

    @classmethod
    def from_wire(cls, fields: dict[str, Any]) -> Exit:
        """Build from the message's fields; raises KeyError, TypeError or ValueError when they are not an exit's."""
        return cls(int(fields["code"]), int(fields["signal"]), int(fields["at"]), bool(fields.get("oom", False)))
