"""What a process of the container, or a file system in it, can do to an exec on its way, and may not."""

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.kernel.test_starters import warmed
from tests.kernel.yard import children_of, exec_in, supervisor_of, within
from wherry.runtime import starters
from wherry.supervision.task import LaunchFailed

pytestmark = pytest.mark.root

PTRACE_SEIZE = 0x4206
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


def cpu_of(pid):
    """Processor time in ticks of a hundredth of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def look_at_end(pid, flags):
    assert os.waitid(os.P_PID, pid, os.WEXITED | flags)


def states_of(parent):
    states = {pid: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in children_of(parent)}
    return [state for pid, state in sorted(states.items())]


def test_a_traced_process_that_has_ended_keeps_nobody_busy(run):
    """Its pidfd is readable, and it cannot be reaped before its tracer lets go of it."""

    async def scenario(yard):
        task = await warmed(yard)
        executed, client = await exec_in(task, "sleep", "60", exec_id="traced")
        assert _libc.ptrace(PTRACE_SEIZE, executed.pid, None, None) == 0
        os.kill(executed.pid, signal.SIGKILL)
        look_at_end(executed.pid, os.WNOWAIT)
        before = cpu_of(supervisor_of(task))
        await asyncio.sleep(1)
        assert cpu_of(supervisor_of(task)) - before < 10
        look_at_end(executed.pid, 0)  # and the tracer lets go
        assert (await within(executed.exited)).signal == signal.SIGKILL
        client.close()

    run(scenario)


@pytest.mark.parametrize("first", ["starter", "fork"])
def test_a_copy_of_the_sync_socket_holds_no_container_up(run, monkeypatch, first):
    """A process of the container may have taken it from the child before that executed, and have told lies over it."""

    async def scenario(yard):
        if first == "starter":
            task = await warmed(yard)
        else:
            few = {"devices": [{"allow": True, "access": "rwm"}], "pids": {"limit": starters.ROOM - 1}}
            task = await yard.start("/bin/sleep", "60", resources=few)
        known = set(children_of(supervisor_of(task)))
        if first == "fork":
            monkeypatch.setattr(Thief, "lies", [b'{"spawned":1}', b'{"spawned":%d}' % supervisor_of(task)])
        stolen = Thief(known, supervisor_of(task))
        for number in range(40):
            with contextlib.suppress(LaunchFailed, TimeoutError):
                executed, client = await asyncio.wait_for(exec_in(task, "true", exec_id=f"e{number}"), 1)
                await within(executed.exited)
                client.close()
        count = stolen.end()
        assert count > 0
        await asyncio.sleep(0.3)
        assert "Z" not in states_of(supervisor_of(task))
        await task.signal(signal.SIGKILL)
        await within(task.gone)
        stolen.close()

    run(scenario)


class Thief:
    """Takes all sockets of new children of a supervisor, and lies over them; keeps them until `close`."""

    lies = [number.to_bytes(8, "little", signed=True) for number in (1, -2, os.getpid(), 2**40)] + [b""]

    def __init__(self, known, supervisor):
        self._known, self._supervisor = known, supervisor
        self._over = False
        self._taken = []
        self._thread = threading.Thread(target=self._steal)
        self._thread.start()

    def _steal(self):
        while not self._over:
            for pid in set(children_of(self._supervisor)) - self._known:
                with contextlib.suppress(OSError):
                    if "\t" in Path(f"/proc/{pid}/status").read_text().partition("NSpid:\t")[2].partition("\n")[0]:
                        self._take(pid)  # what a process of the container sees

    def _take(self, pid):
        pidfd = os.pidfd_open(pid)
        for fd in range(3, 12):
            copy = _libc.syscall(438, pidfd, fd, 0)  # pidfd_getfd(2)
            if copy >= 0:
                self._taken.append(copy)
                if stat.S_ISSOCK(os.fstat(copy).st_mode):
                    self._lie(socket.socket(fileno=os.dup(copy)))
        os.close(pidfd)

    def _lie(self, sock):
        with sock, contextlib.suppress(OSError):
            for lie in self.lies:
                sock.send(lie, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def end(self):
        """Stop stealing; returns how many descriptors it has."""
        self._over = True
        self._thread.join()
        return len(self._taken)

    def close(self):
        """Give them up."""
        for fd in self._taken:
            os.close(fd)


def silent_over(pid, place):
    words = [sys.executable, "-m", "tests.security.fuse_server", str(pid), "over", place]
    server = subprocess.Popen(words, stdout=subprocess.PIPE)
    assert server.stdout.readline() == b"ready\n"
    return server


def test_a_silent_file_system_over_the_users_files_holds_no_supervisor_up(run):
    """As a container with the right to mount, or a dead server behind a volume, could have it."""

    async def scenario(yard):
        task = await warmed(yard)
        executed, client = await exec_in(task, "sleep", "60", exec_id="a")
        with silent_over(task.pid, "/etc") as server:
            try:
                hanging = asyncio.ensure_future(exec_in(task, "true", exec_id="b"))
                await asyncio.sleep(0.3)
                await task.signal(signal.SIGTERM, "a")
                assert (await within(executed.exited)).signal == signal.SIGTERM
                assert not hanging.done()
            finally:
                server.kill()
        client.close()
        late, client = await within(hanging)  # the file system ended with its server
        assert (await within(late.exited)).code == 0
        client.close()

    run(scenario)
