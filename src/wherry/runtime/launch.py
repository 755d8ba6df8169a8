"""Make a container without a supervisor: the caller of the runtime is the parent, as with runc.

    wherry-runtime create                    container                     wherry-runtime start
       | -- fork, in the new namespaces -------> |
       | <--- await hooks --------------------- |  namespaces and rootfs are made
       |      prestart, createRuntime           |
       | ---- state --------------------------> |  createContainer hooks, pivot_root ...
       | <--- console {fd} -------------------- |  to the console socket
       | <--- ready --------------------------- |  accept() on start.sock
       ends                                     | <------------ connect, start ---- |  (start.sock is removed first)
                                                |  startContainer hooks, execve     |
                                                | ------------- EOF, or failed ---> |  poststart hooks

`run` does both at once: the container does not wait, and EOF on the first socket means that it runs.
Whatever fails undoes all of it: process, control group, files.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from dataclasses import dataclass
from typing import Any, NoReturn

from wherry.kernel.namespaces import setns
from wherry.kernel.seccomp_bpf import compile_filter
from wherry.runtime import channel, exits, grouping, hooks
from wherry.runtime.console import send_descriptor
from wherry.runtime.faults import Refused
from wherry.runtime.init import ContainerStart, enter_parent, run_container
from wherry.runtime.lifecycle import remove, tell_pid
from wherry.runtime.state import Container

Spec = dict[str, Any]


@dataclass(slots=True)
class Wishes:
    """What the command line adds to the configuration. console_socket: "" keeps the terminal for the foreground."""

    console_socket: str = ""
    pidfd_socket: str = ""
    pid_file: str = ""
    preserve_fds: int = 0
    hold: bool = True


class Launch:
    """One container on its way from nothing to created or running."""

    def __init__(self, container: Container, spec: Spec, wishes: Wishes) -> None:
        self._container = container
        self._spec = spec
        self._wishes = wishes
        self._grouped = False
        self._hooked = False
        self.pid = 0
        self.master: int | None = None

    def run(self) -> None:
        """Make the container, or undo all and raise `Refused`."""
        try:
            self._run()
        except (Refused, OSError, EOFError, KeyboardInterrupt):
            self._undo()
            raise

    def _run(self) -> None:
        record = self._container.record
        linux = self._spec.get("linux") or {}
        seccomp = compile_filter(linux["seccomp"]) if linux.get("seccomp") else None
        linux = self._spec["linux"] = {**linux, "cgroupsPath": record.cgroup}
        cgroup = grouping.make_before(linux)
        self._grouped = True
        listener = _listen(self._container.directory, self._container.socket_path) if self._wishes.hold else None
        sync, theirs = channel.pair()
        with sync:
            with theirs:
                terminal = self._spec["process"].get("terminal")
                self._fork(
                    ContainerStart(
                        spec=self._spec, rootfs=(), netns_fd=None, stdio=None if terminal else (0, 1, 2), sync=theirs,
                        cgroup=cgroup, seccomp=seccomp, init_path="", hold=listener,
                        preserve_fds=self._wishes.preserve_fds, hooks=bool(self._spec.get("hooks")),
                        id=record.id, keyring=record.keyring,
                    ),
                    sync,
                )  # fmt: skip
            if listener is not None:
                listener.close()
            record.pid, record.start_time = self.pid, exits.start_time(self.pid)
            self._container.save()
            self._follow(sync)
        tell_pid(self.pid, self._wishes.pidfd_socket, self._wishes.pid_file)

    def _fork(self, request: ContainerStart, sync: socket.socket) -> None:
        with _Birthplace(self._spec):
            sys.stdout.flush()
            self.pid = request.cgroup.fork()
            if self.pid == 0:
                sync.close()
                self._be_first(request)

    def _be_first(self, request: ContainerStart) -> NoReturn:
        """Be the container's first process."""
        try:
            group = grouping.make_within(request.cgroup, self._spec["linux"], request.sync)
            if group is not None:
                request.cgroup = group
                run_container(request)
        finally:
            os._exit(1)

    def _follow(self, sync: socket.socket) -> None:
        while True:
            try:
                message, descriptors = channel.receive(sync)
            except EOFError:
                if self._wishes.hold:
                    raise Refused("the container's first process ended before it was ready") from None
                return
            if "failed" in message:
                raise Refused(
                    f"unable to start container process: error during container init: {message['failed']['message']}"
                )
            if message.get("console"):
                self._take_console(descriptors[0])
            elif message.get("await") == "hooks":
                self._run_hooks(sync)
            elif message.get("ready"):
                return

    def _take_console(self, master: int) -> None:
        if not self._wishes.console_socket:
            self.master = master
            return
        try:
            send_descriptor(self._wishes.console_socket, master, "/dev/ptmx")
        finally:
            os.close(master)

    def _run_hooks(self, sync: socket.socket) -> None:
        state = self._container.oci("creating")
        self._hooked = True
        for kind in ("prestart", "createRuntime"):
            hooks.run(kind, self._spec, state)
        channel.send(sync, {"state": state})

    def _undo(self) -> None:
        if self.master is not None:
            os.close(self.master)
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)  # not reaped yet, so the number is its own
            os.waitpid(self.pid, 0)
        if self._grouped:
            remove(self._container, self._spec, poststop=self._hooked)
        else:
            self._container.forget()  # the group of that name, if there is one, is not ours


class _Birthplace:
    """While this lasts, children are born into the namespaces of the container; afterwards into ours again.

    unshare(2) and setns(2) with a PID or time namespace change where children go, not the caller. Hooks of ours
    have to be born outside.
    """

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._ours: list[int] = []

    def __enter__(self) -> None:
        kinds = {entry["type"] for entry in self._spec["linux"]["namespaces"]}
        self._ours = [os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in kinds & {"pid", "time"}]
        enter_parent(self._spec)

    def __exit__(self, *_: object) -> None:
        for descriptor in self._ours:
            setns(descriptor, 0)
            os.close(descriptor)


def _listen(directory: str, path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent = os.open(directory, os.O_PATH | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{parent}/{os.path.basename(path)}")
        listener.listen(1)
    finally:
        os.close(parent)
    return listener
