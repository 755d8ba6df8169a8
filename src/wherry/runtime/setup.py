"""What the steps of a set-up work on, and how one of them fails.

`Setup` is the child's scratch pad: descriptors that one step opens and a later one uses. Nothing is looked up twice:
the root, procfs, /dev/null and every bind source are found once and used through their descriptor.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from typing import Any, ClassVar

from wherry.runtime.cgroups import Cgroup
from wherry.runtime.idmaps import Ids
from wherry.runtime.mounts import Mount
from wherry.runtime.phases import Marks


@dataclass(slots=True)
class ContainerStart:
    """One container to make in the calling process.

    rootfs: empty when root.path of the spec is the root file system already. netns_fd: joined in place of what the
    spec says of the network namespace. stdio: None when process.terminal is set. hold: a listening socket; the
    program starts when "start" comes over a connection to it. preserve_fds: so many from 3 on are inherited.
    hooks: ask on `sync` for the state, and run the hooks that belong into the container. keyring: give it a session
    keyring of its own. marks: where to note when each phase began. keeper: where to leave the mount namespace, see
    `keeping`.
    """

    spec: dict[str, Any]
    rootfs: tuple[Mount, ...]
    netns_fd: int | None
    stdio: tuple[int, int, int] | None
    sync: socket.socket
    cgroup: Cgroup
    seccomp: bytes | None
    init_path: str = ""
    hold: socket.socket | None = None
    preserve_fds: int = 0
    hooks: bool = False
    id: str = ""
    keyring: bool = True
    marks: Marks | None = None
    keeper: socket.socket | None = None


@dataclass(slots=True)
class ExecStart:
    """One more process in the container whose first process is `init_pid`; see `ContainerStart`.

    spawn: the calling process stays outside of the pid namespace and forks the program into it; see `execspare`.
    oom_score: the calling process's oom_score_adj, which need not be written again; None when it is not known.
    requests: with spawn, the descriptor over which a starter is told to execute the program; -1 to execute it once.
    """

    process: dict[str, Any]
    spec: dict[str, Any]
    init_pid: int
    init_pidfd: int
    stdio: tuple[int, int, int] | None
    sync: socket.socket
    cgroup: Cgroup
    seccomp: bytes | None
    preserve_fds: int = 0
    id: str = ""
    keyring: bool = True
    spawn: bool = False
    oom_score: int | None = None
    requests: int = -1


@dataclass(slots=True)
class Identity:
    """What setresuid, setresgid and setgroups are given, and HOME ("" when the files do not say)."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


class SetupError(Exception):
    """A step cannot be done; the text is the whole sentence for the user, in runc's words where clients match."""

    def __init__(self, message: str, number: int = 0, path: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.number = number
        self.path = path


@dataclass(slots=True)
class Setup:
    """Descriptors and facts that pass from step to step. -1: not there (yet).

    tree: the root file system before it is mounted. left: steps that the process which is spawned has to do again.
    spawned: this is that process. user: of the container's own user namespace, or of a process in it; ids: its ids.
    outside: the mount namespace before the container's, where one is that such a user namespace owns.
    """

    request: ContainerStart | ExecStart
    process: dict[str, Any]
    sync: socket.socket
    tree: int = -1
    root: int = -1
    user: int = -1
    ids: Ids | None = None
    outside: int = -1
    procfs: int = -1
    dev: int = -1
    devpts: int = -1
    terminal: int = -1
    sources: dict[int, int] = field(default_factory=dict)
    state: dict[str, Any] | None = None
    identity: Identity | None = None
    environment: dict[str, str] = field(default_factory=dict)
    program: str = ""
    cwd_refused: bool = False
    left: list[Operation] = field(default_factory=list)
    spawned: bool = False


class Operation:
    """One step. Its text is for the error message; running it changes the calling process or its namespaces."""

    __slots__ = ()
    phase: ClassVar[str] = "rootfs"

    def describe(self) -> str:
        """Return what the step does, in words that follow "cannot"."""
        raise NotImplementedError

    def run(self, setup: Setup) -> None:
        """Do it; raises OSError or `SetupError`."""
        raise NotImplementedError

    def explain(self, error: OSError) -> str:
        """Return the sentence for the user when `run` failed with `error`."""
        return f"{self.describe()}: {reason(error)}"


def reason(error: OSError) -> str:
    """Return why in the words of other runtimes: the errno's text in lower case, after what the kernel added."""
    number = error.errno or 0
    text = os.strerror(number)
    added = str(error.strerror or "").partition(" (")[2]
    return (text[:1].lower() + text[1:]) + (f" ({added}" if added else "")


def close(fd: int) -> None:
    """Close a descriptor that may not be there."""
    if fd >= 0:
        os.close(fd)
