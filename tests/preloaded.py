"""Engines that are forked from a process which has imported their code already.

Importing takes four fifths of an engine's start, and the suite starts hundreds of engines. The module is run anew in
each fork, as `python -m` does; only what it imports is there before.

    test worker                                    this program
       | -- ["start", ...], the log's descriptor ---> |   fork
       | <-- pid ------------------------------------ |
       | -- ["poll", pid] --------------------------> |   wait4, as subprocess.Popen does it
       | <-- exit status, or null while it runs ----- |
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import resource
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

from wherry.kernel import const, namespaces

MODULE = "wherry.cmd.daemon"
_KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
_ROOM = 1 << 20
_PAUSE = 0.01


class Source:
    """The process that forks, of one test worker; it ends with the worker."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._place = place()
        with theirs:
            argv = [sys.executable, "-m", "tests.preloaded", str(theirs.fileno())]
            # Not waited for: it ends when our end of the socket closes, with us.
            self._process = subprocess.Popen(argv, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)

    def suits(self) -> bool:
        """Whether a child of ours would be where its children are: some tests are in namespaces of their own."""
        return place() == self._place

    def ask(self, request: Sequence[Any], descriptors: Sequence[int] = ()) -> Any:
        """Have something done and return the answer."""
        data = json.dumps(request).encode()
        assert len(data) < _ROOM
        socket.send_fds(self._ours, [data], descriptors)
        answer = self._ours.recv(64)
        assert answer, "the process that forks engines is gone"
        return json.loads(answer)


class Forked:
    """A process that was forked for us; what is used of subprocess.Popen."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str], log: IO[bytes], network: str) -> None:
        """Run the module with arguments; stdout and stderr go to the log. network: a namespace's file, or ""."""
        self.args = list(words)
        self.returncode: int | None = None
        self.pid: int = source().ask(["start", self.args, dict(environment), os.getcwd(), network], [log.fileno()])

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal; None while it runs."""
        if self.returncode is None:
            self.returncode = source().ask(["poll", self.pid])
        return self.returncode

    def wait(self, timeout: float = 600) -> int:
        """Wait for its end and return the exit status. Raises subprocess.TimeoutExpired."""
        deadline = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(_PAUSE)
        return status

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it runs; its number is its own until `poll` has said that it ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


def place() -> tuple[str, ...]:
    """Return what a child inherits and an engine would notice."""
    limits = str(resource.getrlimit(resource.RLIMIT_NOFILE))
    groups = Path("/proc/self/cgroup").read_text()
    return (*(os.readlink(f"/proc/self/ns/{kind}") for kind in _KINDS), groups, limits)


@functools.cache
def source() -> Source:
    """The one of this worker."""
    return Source()


def serve(control: socket.socket) -> None:
    """Do what the worker asks for, until it is gone."""
    importlib.import_module(MODULE)
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, _ROOM, 1)
        if not request:
            return
        action, *words = json.loads(request)
        if action == "start":
            pid = os.fork()
            if pid == 0:
                _become(*words, descriptors[0])
            os.close(descriptors[0])
            answer: int | None = pid
        else:
            pid, status = os.waitpid(words[0], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        control.send(json.dumps(answer).encode())


def _become(words: list[str], environment: dict[str, str], directory: str, network: str, log: int) -> NoReturn:
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.closerange(3, 1024)
    os.chdir(directory)
    if network:
        namespace = os.open(network, os.O_RDONLY | os.O_CLOEXEC)
        namespaces.setns(namespace, const.CLONE_NEWNET)
        os.close(namespace)
    os.environ.clear()
    os.environ.update(environment)
    importlib.reload(sys.modules["wherry.failpoints"])  # it reads the environment once
    sys.argv = [MODULE, *words]
    sys.orig_argv = [sys.executable, "-m", MODULE, *words]
    del sys.modules[MODULE]
    runpy.run_module(MODULE, run_name="__main__", alter_sys=True)
    sys.exit(0)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
