"""What happens to a container after it was made: start, the hooks around it, removal, and telling its pid."""

from __future__ import annotations

import os
import socket
from typing import Any

from wherry.runtime import channel, hooks
from wherry.runtime.console import connect, send_descriptor
from wherry.runtime.faults import Refused
from wherry.runtime.state import Container

Spec = dict[str, Any]


def start(container: Container) -> list[str]:
    """Let a created container run its program; return the failures of poststart hooks."""
    with connect(container.socket_path, socket.SOCK_SEQPACKET) as sync:
        os.unlink(container.socket_path)
        channel.send(sync, {"start": True})
        try:
            message, _ = channel.receive(sync)
        except EOFError:
            return poststart(container, container.spec())
    raise Refused(f"unable to start container process: {message['failed']['message']}")


def poststart(container: Container, spec: Spec) -> list[str]:
    """Run the poststart hooks; return what failed."""
    return hooks.run_all("poststart", spec, container.oci("running")) if spec.get("hooks") else []


def remove(container: Container, spec: Spec, *, poststop: bool = True) -> list[str]:
    """Remove what is left of a container whose first process is gone; return the failures of poststop hooks."""
    state = container.oci("stopped")
    cgroup = container.cgroup()
    cgroup.kill()
    cgroup.remove()
    container.forget()
    return hooks.run_all("poststop", spec, state) if poststop and spec.get("hooks") else []


def tell_pid(pid: int, pidfd_socket: str, pid_file: str) -> None:
    """Tell the caller which process it is, in the ways that it asked for."""
    if pidfd_socket:
        descriptor = os.pidfd_open(pid)
        try:
            send_descriptor(pidfd_socket, descriptor, "pidfd")
        finally:
            os.close(descriptor)
    if pid_file:
        _write_pid(pid_file, pid)


def _write_pid(path: str, pid: int) -> None:
    """Put the number into a file, whole or not at all: callers watch for the file."""
    directory, name = os.path.split(os.path.abspath(path))
    temporary = f"{directory}/.{name}.{os.getpid()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, str(pid).encode())
    finally:
        os.close(descriptor)
    os.rename(temporary, path)
