"""The process that forks supervisors: one thread, everything preloaded, nothing of any container in it.

    python -I -S -c BOOTSTRAP          the words are in `zygote_boot`

Every page of this heap that a supervisor or a child writes to, be it a reference count, is copied at 3 to 5 us, and
is memory of its own: what is not imported here makes starts faster and supervisors smaller.

Descriptor 3 is the control socket; its EOF ends the zygote, while the supervisors go on.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from typing import Any, NoReturn

from wherry.kernel.fds import close_except
from wherry.kernel.seccomp_bpf import compile_filter
from wherry.runtime import channel, supervisor
from wherry.runtime.cgroups import detect
from wherry.runtime.selfprotect import engine_mounts, protect_interpreter
from wherry.runtime.wire import Launch, SetupFailure
from wherry.runtime.zygote_boot import CONTROL


def main() -> NoReturn:
    """Serve launches until the daemon's end is closed."""
    protect_interpreter()
    close_except((0, 1, 2, CONTROL, *(() if engine_mounts() is None else (engine_mounts(),))))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps supervisors; their end is told by EOF elsewhere
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _raise_oom_score()
    control = socket.socket(fileno=CONTROL)
    control.set_inheritable(False)
    zygote = Zygote(control)
    detect()  # once for all: forked supervisors inherit what it found
    gc.collect()
    gc.freeze()  # a collection in a supervisor would write to every shared page
    channel.send(control, {"type": "ready"})
    zygote.loop()
    os._exit(0)


def _raise_oom_score() -> None:
    """Be as likely a victim as any process: the daemon's protection is not for containers."""
    fd = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
    try:
        if int(os.read(fd, 16)) < 0:
            os.pwrite(fd, b"0", 0)
    finally:
        os.close(fd)


class Zygote:
    """Keeps compiled seccomp filters and forks."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._filters: dict[str, bytes | SetupFailure] = {}

    def loop(self) -> None:
        """Serve messages until EOF."""
        while True:
            try:
                message, fds = channel.receive(self._control)
            except EOFError:
                return
            self._serve(message, fds)

    def _serve(self, message: dict[str, Any], fds: list[int]) -> None:
        kind = message["type"]
        if kind == "launch":
            self._launch(message, fds)
        elif kind == "seccomp":
            self._filters[message["key"]] = _compile(message["profile"])
            gc.freeze()
        elif kind == "forget":
            self._filters.pop(message["key"], None)

    def _launch(self, message: dict[str, Any], fds: list[int]) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            with socket.socket(fileno=os.dup(fds[0])) as control:
                failure = SetupFailure.from_oserror("process", "fork the supervisor", error)
                channel.send(control, {"type": "failed", **failure.to_wire()})
            pid = -1
        if pid == 0:
            self._become_supervisor(message, fds)
        for fd in fds:
            os.close(fd)

    def _become_supervisor(self, message: dict[str, Any], fds: list[int]) -> NoReturn:
        try:
            self._control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            named = dict(zip(message["fds"], fds, strict=True))
            control = socket.socket(fileno=named.pop("control"))
            netns = named.pop("netns", None)
            launch = Launch.from_wire(message)
            program = self._filters[launch.seccomp] if launch.seccomp else None
            if isinstance(program, SetupFailure):
                channel.send(control, {"type": "failed", **program.to_wire()})
                os._exit(0)
            supervisor.run(launch, control, netns=netns, attaches=tuple(named.values()), seccomp=program)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(1)


def _compile(profile: dict[str, Any]) -> bytes | SetupFailure:
    try:
        return compile_filter(profile)
    except (OSError, KeyError, TypeError, ValueError) as error:
        return SetupFailure("process", "compile the seccomp profile", 0, "", f"seccomp profile: {error}")
