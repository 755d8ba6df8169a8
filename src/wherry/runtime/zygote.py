"""The process that forks supervisors: one thread, everything preloaded, nothing of any container in it.

    python -I -S -c BOOTSTRAP          the words are in `zygote_boot`

Every page of this heap that a supervisor or a child writes to, be it a reference count, is copied at 3 to 5 us, and
is memory of its own: what is not imported here makes starts faster and supervisors smaller.

Descriptor 3 is the control socket; its EOF ends the zygote, while the supervisors go on.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
from typing import Any, NoReturn

from wherry.kernel import process
from wherry.kernel.fds import close_except
from wherry.runtime import channel, compaction, rehearsal, starter, supervisor
from wherry.runtime.cgroups import detect
from wherry.runtime.filters import Filter, Filters, compile_profile
from wherry.runtime.scopes import booted
from wherry.runtime.selfprotect import kept, protect_interpreter, take_layer_mounts
from wherry.runtime.stem import Stem
from wherry.runtime.wire import SetupFailure
from wherry.runtime.zygote_boot import CONTROL, LAYERS, LAYERS_MARK

SPARES = 2
QUIET_MS = 25  # a spare is made when nothing was asked for so long: not beside a start, on a busy machine neither
REHEARSALS = 10  # the interpreter adapts code from the eighth run on
_LAUNCH = b'{"type":"launch"'


def main() -> NoReturn:
    """Serve launches until the daemon's end is closed."""
    protect_interpreter()
    if os.environ.pop(LAYERS_MARK, ""):
        take_layer_mounts(LAYERS)
    close_except((0, 1, 2, CONTROL, *kept()))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps supervisors; their end is told by EOF elsewhere
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _raise_oom_score()
    process.set_name("wherry-zygote")
    control = socket.socket(fileno=CONTROL)
    control.set_inheritable(False)
    starter.provide()
    if booted():
        from wherry.runtime import scoping  # noqa: F401 -- once, for all supervisors that make a scope
    zygote = Zygote(control)
    for _ in range(REHEARSALS):  # this finds the control groups, once for all supervisors
        rehearsal.plan()
        rehearsal.supervise()
    gc.collect()
    compaction.fill_holes()
    gc.freeze()  # a collection in a supervisor would write to every shared page
    channel.send(control, {"type": "ready"})
    zygote.loop()
    os._exit(0)


def _raise_oom_score() -> None:
    """Be as likely a victim as any process: the daemon's protection is not for containers."""
    if process.oom_score() < 0:
        process.set_oom_score(0)


class Zygote:
    """Keeps compiled seccomp filters and spare supervisors, and hands launches to them."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._filters: dict[str, Filter | SetupFailure] = {}
        self._spares: list[socket.socket] = []
        self._wanted = 0  # spares to keep; none before the first launch

    def loop(self) -> None:
        """Serve messages until EOF; make up for used spares when nothing else is asked for."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        while True:
            lacking = len(self._spares) < self._wanted
            if not poll.poll(QUIET_MS if lacking else None):
                self._add_spare()
                continue
            try:
                text, fds = channel.receive_text(self._control)
            except EOFError:
                return
            if text.startswith(_LAUNCH):
                self._launch(text, fds)
            else:
                self._serve(json.loads(text))

    def _serve(self, message: dict[str, Any]) -> None:
        if message["type"] == "seccomp":
            self._filters[message["key"]] = compile_profile(message["profile"])
            gc.freeze()
        elif message["type"] == "forget":
            self._filters.pop(message["key"], None)
        self._drop_spares()  # they have the filters of their birth

    def _launch(self, text: bytes, fds: list[int]) -> None:
        self._wanted = SPARES
        try:
            if not self._use_spare(text, fds) and self._fork() == 0:
                supervisor.run(text, fds, self._filters, None)
        except OSError as error:
            with socket.socket(fileno=os.dup(fds[0])) as control:
                failure = SetupFailure.from_oserror("process", "fork the supervisor", error)
                channel.send(control, {"type": "failed", **failure.to_wire()})
        finally:
            channel.close_all(fds)

    def _fork(self) -> int:
        """Fork; the child has left the zygote's sockets behind."""
        pid = os.fork()
        if pid == 0:
            self._control.close()
            self._drop_spares()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        return pid

    # Spares

    def _use_spare(self, text: bytes, fds: list[int]) -> bool:
        while self._spares:
            with self._spares.pop(0) as spare:
                try:
                    channel.send_text(spare, text, fds)
                    return True
                except BrokenPipeError:  # killed while it waited
                    continue
        return False

    def _add_spare(self) -> None:
        ours, theirs = channel.pair()
        try:
            if self._fork() == 0:
                ours.close()
                _be_spare(theirs, self._filters)
        except OSError:
            ours.close()  # no process to spare now; the next launch says what is wrong
            self._wanted = 0
        else:
            self._spares.append(ours)
        finally:
            theirs.close()

    def _drop_spares(self) -> None:
        for spare in self._spares:
            spare.close()
        self._spares.clear()


def _be_spare(job: socket.socket, filters: Filters) -> NoReturn:
    """Prepare all that does not depend on the launch, then wait for one."""
    process.set_name("wherry-spare")
    try:
        stem = Stem(filters) if detect().version == 1 else None
        rehearsal.supervise()
        try:
            text, fds = channel.receive_text(job)
        except EOFError:
            os._exit(0)
        job.close()
        supervisor.run(text, fds, filters, stem)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(1)

