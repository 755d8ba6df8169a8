"""The health checks of one container: the same command again and again, by a starter that stays; see `starter`."""

from __future__ import annotations

import os
import signal
import socket
import time
from binascii import b2a_base64
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from wherry.runtime import channel, starter
from wherry.runtime.cgroups import Cgroup
from wherry.runtime.execs import EXEC_DRAIN
from wherry.runtime.poller import READ, Poller
from wherry.runtime.process import Process
from wherry.runtime.session import Session
from wherry.runtime.wire import NOBODY

LATE = 5.0
"""Seconds to wait for the end of a check that was killed; then the starter goes too."""
AGAIN = 0.05
"""Seconds until it is looked again for orphans."""
_CHUNK = 65536

Become = Callable[[dict[str, Any], socket.socket, socket.socket], None]
Reply = Callable[[int, dict[str, Any]], object]
Strangers = Callable[[], "list[int] | None"]


@dataclass(slots=True, eq=False)
class _Check:
    """One run of the command. begin: Unix ns, 0 before. due: when it is late, by the monotonic clock, in seconds.

    late: it took longer than it may. status: of wait(2), once it has ended.
    """

    seq: int
    timeout: float
    limit: int
    begin: int = 0
    due: float = 0.0
    source: int = -1
    output: bytearray = field(default_factory=bytearray)
    late: bool = False
    status: int | None = None


class Checks:
    """Runs one check at a time and answers with its end, or that it cannot be run this way.

    become(process, sync, requests): make the calling process the starter of an OCI process object, in a child; never
    returns. reply(seq, fields): sends to wherryd. strangers(): the children of the supervisor that nobody knows, None
    when that cannot be said right now.
    """

    def __init__(self, poller: Poller, become: Become, reply: Reply, strangers: Strangers) -> None:
        self._poller = poller
        self._become = become
        self._reply = reply
        self._strangers = strangers
        self._described: dict[str, Any] | None = None
        self._starter: Process | None = None
        self._requests: socket.socket | None = None
        self._check: _Check | None = None
        self._alarm = False
        self.enabled = False
        self.pids: set[int] = set()

    def run(self, message: dict[str, Any], cgroup: Cgroup) -> None:
        """Run the command of a "check" message; a check that still runs is given up."""
        self.disown()
        self._unable(drop=True)
        process = message["process"]
        if process is not None and process != self._described:
            self._drop()
            self._described = process
        if not self.enabled or self._described is None:
            self._reply(message["seq"], {"unable": True})
            return
        self._check = _Check(message["seq"], message["timeout"], message["limit"])
        if self._starter is None:
            self._make(self._described, cgroup)
        else:
            self._send()

    def disown(self) -> None:
        """Whoever asked for the check that runs is gone: its answer must not be taken for that to another request."""
        if self._check is not None:
            self._check.seq = NOBODY

    def close(self) -> None:
        """Run no more: the container is over."""
        self.enabled = False
        self._drop()
        self._unable()

    # The starter

    def _make(self, described: dict[str, Any], cgroup: Cgroup) -> None:
        ours, theirs = channel.pair()
        session = Session(self._poller, terminal=False, log=None, stdin=False, once=False, patient=False)
        process = Process(self._poller, session)
        process.on_running = self._ready
        process.on_failed = process.on_exit = self._gone
        try:
            process.fork(cgroup, lambda sync: self._become(described, sync, theirs))
        except OSError:  # out of processes or memory: it is tried in another way now, and in this way the next time
            ours.close()
            self._unable()
            return
        finally:
            theirs.close()
        self.pids.add(process.pid)
        ours.setblocking(False)
        self._starter, self._requests = process, ours

    def _ready(self, process: Process) -> None:
        if process is self._starter and self._requests is not None:
            self._poller.watch(self._requests.fileno(), READ, lambda events: self._read_answer())
            if self._check is not None:
                self._send()

    def _gone(self, process: Process) -> None:
        """It could not be made, or has ended: killed by the kernel for want of memory, or by a seccomp profile."""
        self.pids.discard(process.pid)
        if process is self._starter:
            self._drop()
            self._unable()
        self._end_orphans()

    def _end_orphans(self) -> None:
        """Kill and reap what a starter that ended has left to us: a check, which was its child.

        Unreaped it would keep the container's pid namespace, and with it the container, from ending.
        """
        found = self._strangers()
        if found is None:
            self._poller.after(AGAIN, self._end_orphans)
            return
        for pid in found:
            pidfd = os.pidfd_open(pid)
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            self.pids.add(pid)
            self._poller.watch(pidfd, READ, partial(self._reap, pid, pidfd))

    def _reap(self, pid: int, pidfd: int, events: int) -> None:
        if os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG) is not None:
            self._poller.forget(pidfd)
            os.close(pidfd)
            self.pids.discard(pid)

    def _drop(self) -> None:
        if self._check is not None:
            self._kill_child()  # or it would go on as a child of the container's first process
        process, self._starter = self._starter, None
        requests, self._requests = self._requests, None
        if requests is not None:
            self._poller.forget(requests.fileno())
            requests.close()
        if process is not None and process.pidfd >= 0:
            process.signal(signal.SIGKILL)

    # A check

    def _send(self) -> None:
        check, requests = self._check, self._requests
        assert check is not None
        assert requests is not None
        try:
            check.source, output = os.pipe2(os.O_CLOEXEC)
            try:
                os.set_blocking(check.source, False)
                check.begin, check.due = time.time_ns(), time.monotonic() + check.timeout
                starter.request(requests, output)
            finally:
                os.close(output)
        except OSError:  # it died a moment ago, which `_gone` will be told too
            self._unable()
            return
        self._poller.watch(check.source, READ, lambda events: self._read_output(check))
        self._arm(check.timeout)

    def _read_output(self, check: _Check) -> bool:
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
            if check.status is not None:
                self._conclude(check)
        return bool(data)

    def _close_output(self, check: _Check) -> None:
        if check.source >= 0:
            self._poller.forget(check.source)
            os.close(check.source)
            check.source = -1

    def _read_answer(self) -> None:
        assert self._requests is not None
        try:
            found = starter.answer(self._requests)
        except BlockingIOError:
            return
        check = self._check
        if found is None or check is None or check.begin == 0:
            self._drop()  # its end is told by `_gone` to nobody: the check is over
            self._unable()
            return
        status, failure = found
        if failure:  # it is gone, or cannot be executed: the words for it are found when it is tried anew
            self._unable()
            return
        check.status = status
        while self._read_output(check):
            pass
        if check.source < 0:
            self._conclude(check)  # which it may have been
        else:
            self._poller.after(EXEC_DRAIN, lambda: self._conclude(check))

    def _conclude(self, check: _Check) -> None:
        """Answer. Whoever else has the output open is not waited for any longer."""
        if self._check is not check:
            return
        self._check = None
        self._close_output(check)
        output = b2a_base64(check.output, newline=False).decode("ascii")
        code = -1 if check.status is None else _exit_code(check.status)
        times = {"begin": check.begin, "end": time.time_ns()}
        self._reply(check.seq, {"code": code, "late": check.late, "output": output, **times})

    def _unable(self, *, drop: bool = False) -> None:
        """Answer that the check, if there is one, has to be run in another way. drop: and end it."""
        if self._check is None:
            return
        if drop:
            self._drop()
        check, self._check = self._check, None
        self._close_output(check)
        self._reply(check.seq, {"unable": True})

    # Time

    def _arm(self, seconds: float) -> None:
        """Look after so long; one look at a time is planned, since most checks are over long before."""
        if not self._alarm:
            self._alarm = True
            self._poller.after(seconds, self._look)

    def _look(self) -> None:
        self._alarm = False
        check = self._check
        if check is None or check.begin == 0 or check.status is not None:
            return
        left = check.due - time.monotonic()
        if left > 0:
            self._arm(left)
            return
        check.late = True
        self._kill_child()
        self._poller.after(LATE, lambda: self._despair(check))

    def _despair(self, check: _Check) -> None:
        if self._check is check and check.status is None:
            self._drop()
            self._conclude(check)

    def _kill_child(self) -> None:
        """Kill the check, not the starter. Its number is its own until the starter has waited for it."""
        if self._starter is None or self._starter.pidfd < 0:
            return
        parent = self._starter.pid
        for child in _children(parent):
            try:
                pidfd = os.pidfd_open(child)
            except ProcessLookupError:
                continue
            try:
                if child in _children(parent):  # still: so the descriptor is of that process
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass
            finally:
                os.close(pidfd)


def _children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as children:
            return [int(word) for word in children.read().split()]
    except (FileNotFoundError, ProcessLookupError):  # it has ended; its child too, or is somebody else's by now
        return []


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
