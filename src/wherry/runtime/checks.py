"""The health checks of one container: one at a time, started by a starter, answered with their end; see `starters`."""

from __future__ import annotations

import os
import signal
import time
from binascii import b2a_base64
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from wherry.runtime.cgroups import Cgroup
from wherry.runtime.execs import EXEC_DRAIN
from wherry.runtime.poller import READ, Poller
from wherry.runtime.process import Process
from wherry.runtime.session import Session
from wherry.runtime.starters import Starters
from wherry.runtime.wire import NOBODY

LATE = 5.0
"""Seconds to wait for the end of a check that was killed."""
_CHUNK = 65536

Reply = Callable[[int, dict[str, Any]], object]


@dataclass(slots=True, eq=False)
class _Check:
    """One run of the command. begin: Unix ns. due: when it is late, by the monotonic clock, in seconds; 0 before.

    late: it took longer than it may. source: where its output comes from, -1 before and at its end.
    """

    seq: int
    process: Process
    timeout: float
    limit: int
    begin: int
    source: int = -1
    due: float = 0.0
    late: bool = False
    output: bytearray = field(default_factory=bytearray)


class Checks:
    """Runs checks and answers how they ended, or that they cannot be run this way: reply(seq, fields)."""

    def __init__(self, poller: Poller, starters: Starters, reply: Reply) -> None:
        self._poller = poller
        self._starters = starters
        self._reply = reply
        self._described: dict[str, Any] | None = None
        self._check: _Check | None = None
        self._alarm = False

    def run(self, message: dict[str, Any], cgroup: Cgroup) -> None:
        """Run the command of a "check" message. One that still runs is ended: whoever asked for it is gone."""
        self.disown()
        self._unable()
        self._described = message["process"] or self._described
        if self._described is None:
            self._reply(message["seq"], {"unable": True})
            return
        session = Session.without_streams(self._poller)
        process = Process(self._poller, session)
        check = _Check(message["seq"], process, message["timeout"], message["limit"], time.time_ns())
        process.on_running = lambda process: self._running(check)
        process.on_failed = process.on_exit = lambda process: self._ended(check)
        self._check = check
        self._starters.get(self._described, cgroup, lambda: self._start(check))

    def disown(self) -> None:
        """Whoever asked for the check that runs is gone: its answer must not be taken for that to another request."""
        if self._check is not None:
            self._check.seq = NOBODY

    def close(self) -> None:
        """The container is over, and with it the check."""
        self._unable()

    def _start(self, check: _Check) -> None:
        described = self._described
        if self._check is not check or described is None:
            return
        try:
            source, output = os.pipe2(os.O_CLOEXEC)
            null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            self._unable()
            return
        stdio = (null, output, output)
        check.begin, check.source = time.time_ns(), source
        os.set_blocking(source, False)
        if not self._starters.start(check.process, described, stdio, lambda: self._refused(check)):
            os.close(null)
            os.close(output)
            self._unable()
            return
        self._poller.watch(source, READ, lambda events: self._read(check))
        self._arm(check)

    def _running(self, check: _Check) -> None:
        if self._check is not check:
            _kill(check)  # nobody waits for it any more

    def _refused(self, check: _Check) -> None:
        """It is gone, or cannot be executed: the words for it are found when it is tried in another way."""
        self._close_output(check)
        if self._check is check:
            self._unable()

    # Output

    def _read(self, check: _Check) -> bool:
        """Read once; returns whether there may be more."""
        if check.source < 0:
            return False
        try:
            data = os.read(check.source, _CHUNK)
        except BlockingIOError:
            return False
        check.output += data[: max(0, check.limit - len(check.output))]
        if not data:
            self._close_output(check)
            self._conclude(check, over=check.process.exit is not None)
        return bool(data)

    def _close_output(self, check: _Check) -> None:
        if check.source >= 0:
            self._poller.forget(check.source)
            os.close(check.source)
            check.source = -1

    # The end

    def _ended(self, check: _Check) -> None:
        while self._read(check):
            pass
        if check.source < 0:
            self._conclude(check, over=True)
        else:  # whoever else has the output open is not waited for any longer than this
            self._poller.after(EXEC_DRAIN, lambda: self._conclude(check, over=True))

    def _conclude(self, check: _Check, *, over: bool) -> None:
        if not over or self._check is not check:
            return
        self._check = None
        self._close_output(check)
        code = check.process.exit.code if check.process.exit else -1
        times = {"begin": check.begin, "end": time.time_ns()}
        output = b2a_base64(check.output, newline=False).decode("ascii")
        self._reply(check.seq, {"code": code, "late": check.late, "output": output, **times})

    def _unable(self) -> None:
        """Answer that the check, if there is one, has to be run in another way, and end it."""
        check, self._check = self._check, None
        if check is not None:
            self._close_output(check)
            _kill(check)
            self._reply(check.seq, {"unable": True})

    # Time

    def _arm(self, check: _Check) -> None:
        """Look after its time; one look at a time is planned, since most checks are over long before."""
        check.due = time.monotonic() + check.timeout
        if not self._alarm:
            self._alarm = True
            self._poller.after(check.timeout, self._look)

    def _look(self) -> None:
        self._alarm = False
        check = self._check
        if check is None or not check.due or check.process.exit is not None:
            return
        left = check.due - time.monotonic()
        if left > 0:
            self._alarm = True
            self._poller.after(left, self._look)
            return
        check.late = True
        if check.process.pid:
            _kill(check)
            self._poller.after(LATE, lambda: self._conclude(check, over=True))
        else:
            self._starters.abandon(check.process)
            self._conclude(check, over=True)


def _kill(check: _Check) -> None:
    if check.process.pidfd >= 0:
        check.process.signal(signal.SIGKILL)
