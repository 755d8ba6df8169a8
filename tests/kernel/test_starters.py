"""Execs by a starter: the same process as from a fork, many at once, true to the container's files, none left."""

import asyncio
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.forked import forked
from tests.kernel.test_checks import gone, starters_of
from tests.kernel.test_execspare import LOOK, PERMISSIVE, PROCESSES
from tests.kernel.test_execspare import output_of as by_fork
from tests.kernel.yard import INPUT, children_of, exec_in, read_all, supervisor_of, unframe, within
from wherry.runtime import starter, starters
from wherry.runtime.poller import Poller
from wherry.runtime.process import Process
from wherry.runtime.session import Session
from wherry.runtime.starters import Starters
from wherry.supervision.task import LaunchFailed

pytestmark = pytest.mark.root


async def ready(task, count=1):
    """Wait for the starter that an exec leaves."""
    for _ in range(500):
        found = starters_of(task)
        if len(found) == count and all("recvmsg" in wchan(pid) or "unix" in wchan(pid) for pid in found):
            return found
        await asyncio.sleep(0.01)
    raise AssertionError(f"starters: {starters_of(task)}")


def wchan(pid):
    """Where it waits: for a request, "recvmsg" is system call 47 or 212."""
    try:
        number = Path(f"/proc/{pid}/syscall").read_text().split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "recvmsg" if number in ("47", "212") else number


async def output_of(task, *args, **options):
    executed, client = await exec_in(task, *args, **options)
    text = unframe(await read_all(client))
    return text, (await within(executed.exited)).code


async def warmed(yard, **options):
    task = await yard.start("/bin/sleep", "60", **options)
    await output_of(task, "/bin/true", exec_id="warm")
    await ready(task)
    return task


@pytest.mark.parametrize("described", PROCESSES)
def test_the_process_is_the_same_as_from_a_fork(run, rootfs, described):
    rootfs.chmod(0o755)

    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60", seccomp=PERMISSIVE)
        first = await output_of(task, "/bin/sh", "-c", LOOK, exec_id="first", **described)
        (pid,) = await ready(task)
        second = await output_of(task, "/bin/sh", "-c", LOOK, exec_id="second", **described)
        assert second == first
        assert starters_of(task) == [pid]
        assert b"leads its session" in first[0][1]

    run(scenario)


def test_streams_and_descriptors(run):
    async def scenario(yard):
        task = await warmed(yard)
        script = "cat; echo err >&2; ls /proc/self/fd; readlink /proc/self/fd/2; exit 5"
        executed, client = await exec_in(task, "sh", "-c", script, options=INPUT)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(client, b"given\n")
        client.shutdown(socket.SHUT_WR)
        streams = unframe(await read_all(client))
        assert streams[2] == b"err\n"
        assert streams[1].startswith(b"given\n0\n1\n2\n3\npipe:")  # 3 is the folder that ls reads
        assert (await within(executed.exited)).code == 5
        assert len(starters_of(task)) == 1

    run(scenario)


def test_many_at_once_by_one_starter(run):
    async def scenario(yard):
        task = await warmed(yard)
        running = [await exec_in(task, "sh", "-c", f"sleep 1; echo {number}; exit {number}", exec_id=f"e{number}")
                   for number in range(12)]  # fmt: skip
        assert {supervisor_of(executed) for executed, _ in running} == {supervisor_of(task)}
        for number, (executed, client) in enumerate(running):
            assert unframe(await read_all(client))[1] == b"%d\n" % number
            assert (await within(executed.exited)).code == number
        assert len(starters_of(task)) == 1

    run(scenario)


def test_a_signal_reaches_it_and_the_end_takes_all_along(run):
    async def scenario(yard):
        task = await warmed(yard)
        executed, client = await exec_in(task, "sleep", "60", exec_id="a")
        await task.signal(signal.SIGTERM, "a")
        assert (await within(executed.exited)).signal == signal.SIGTERM
        client.close()
        executed, client = await exec_in(task, "sleep", "60", exec_id="b")
        (pid,) = starters_of(task)
        await task.signal(signal.SIGKILL)
        assert (await within(executed.exited)).signal == signal.SIGKILL
        await within(task.gone)
        assert await gone(pid)
        client.close()

    run(scenario)


def test_what_fails_fails_in_the_same_words(run, rootfs):
    (rootfs / "bin/odd").write_bytes(b"\x7fNOT a program")
    (rootfs / "bin/odd").chmod(0o755)
    (rootfs / "etc/plain").write_text("text")

    async def scenario(yard):
        task = await warmed(yard)
        nowhere = 'chdir to cwd ("/nowhere") set in config.json failed: no such file or directory'
        for number, (name, cwd, words) in enumerate([
            ("nosuch", "/", 'exec: "nosuch": executable file not found in $PATH'),
            ("/etc/plain", "/", 'exec: "/etc/plain": permission denied'),
            ("true", "/nowhere", nowhere),
        ]):  # fmt: skip
            with pytest.raises(LaunchFailed) as caught:
                await exec_in(task, name, exec_id=f"e{number}", cwd=cwd)
            assert caught.value.failure.message == words
        odd = await output_of(task, "/bin/odd", exec_id="odd")
        assert odd == ({1: b"", 2: b"exec /bin/odd: exec format error\n"}, 255)
        assert (await output_of(task, "echo", "on", exec_id="on"))[0][1] == b"on\n"
        assert len(starters_of(task)) == 1
        assert await output_of(task, "echo", *["x" * 100] * 600, exec_id="long")
        await task.signal(signal.SIGKILL)
        await within(task.gone)  # no zombie of a failed one keeps its pid namespace

    run(scenario)


def test_it_follows_the_files_that_tell_users(run, rootfs):
    passwd, group = rootfs / "etc/passwd", rootfs / "etc/group"
    passwd.write_text("worker:x:1000:1000::/first:/bin/sh\n")
    group.write_text("staff:x:50:worker\n")
    rootfs.chmod(0o755)

    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60")
        await asyncio.sleep(0.1)
        process = {"user": {"username": "worker"}}
        look = ("sh", "-c", "id -u; id -G; echo $HOME")
        for number in range(3):
            assert (await output_of(task, *look, exec_id=f"a{number}", **process))[0][1] == b"1000\n1000 50\n/first\n"
        await ready(task)
        passwd.write_text("worker:x:2000:2000::/other:/bin/sh\n")
        assert (await output_of(task, *look, exec_id="b", **process))[0][1] == b"2000\n2000 50\n/other\n"
        group.unlink()
        assert (await output_of(task, *look, exec_id="c", **process))[0][1] == b"2000\n2000\n/other\n"
        passwd.unlink()
        with pytest.raises(LaunchFailed, match="unable to find user worker"):
            await exec_in(task, *look, exec_id="d", **process)

    run(scenario)


def test_a_working_directory_that_is_made_anew_is_the_new_one(run, rootfs):
    (rootfs / "srv").mkdir()

    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60")
        await output_of(task, "true", exec_id="warm", cwd="/srv")
        await ready(task)
        (rootfs / "srv").rmdir()
        (rootfs / "srv").mkdir()
        (rootfs / "srv/new").touch()
        assert (await output_of(task, "ls", exec_id="a", cwd="/srv"))[0][1] == b"new\n"
        assert (await output_of(task, "pwd", exec_id="b", cwd="/etc"))[0][1] == b"/etc\n"
        assert (await output_of(task, "pwd", exec_id="c", cwd="/proc/self/root/etc"))[1] == 0
        assert len(starters_of(task)) == 1

    run(scenario)


def test_an_exec_goes_where_the_first_process_went(run, rootfs):
    async def scenario(yard):
        caps = ["CAP_SYS_ADMIN"]
        sets = {"bounding": caps, "permitted": caps, "effective": caps}
        go = "until [ -e /tmp/go ]; do sleep 0.1; done; exec unshare -m sh -c 'echo > /tmp/gone; exec sleep 60'"
        task = await yard.start("/bin/sh", "-c", go, capabilities=sets)
        before = await output_of(task, "readlink", "/proc/self/ns/mnt", exec_id="a")
        await ready(task)
        assert await output_of(task, "readlink", "/proc/self/ns/mnt", exec_id="b") == before
        await output_of(task, "touch", "/tmp/go", exec_id="go")
        wait = "until [ -e /tmp/gone ]; do sleep 0.05; done"
        await output_of(task, "sh", "-c", wait, exec_id="wait")
        own = os.readlink(f"/proc/{task.pid}/ns/mnt").encode() + b"\n"
        for name in ("c", "d"):
            assert (await output_of(task, "readlink", "/proc/self/ns/mnt", exec_id=name))[0][1] == own != before[0][1]
            await ready(task)

    run(scenario)


def test_the_pipes_belong_to_the_user(run, rootfs):
    rootfs.chmod(0o755)

    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60")
        user = {"user": {"uid": 1000, "gid": 1000}}
        for number in range(3):
            told = await output_of(task, "sh", "-c", "echo again >/proc/self/fd/1", exec_id=f"e{number}", **user)
            assert told == ({1: b"again\n", 2: b""}, 0)
            await ready(task)

    run(scenario)


def test_there_are_two_at_most_and_the_least_used_goes(run):
    async def scenario(yard):
        task = await warmed(yard)
        (first,) = starters_of(task)
        for word in ("a", "b"):
            await output_of(task, "true", exec_id=word, env=["PATH=/bin", f"W={word}"])
            await asyncio.sleep(0.5)
        assert await gone(first)
        assert len(starters_of(task)) == 2

    run(scenario)


def test_where_processes_are_few_none_waits(run):
    async def scenario(yard):
        resources = {"devices": [{"allow": True, "access": "rwm"}], "pids": {"limit": 20}}
        task = await yard.start("/bin/sleep", "60", resources=resources)
        for number in range(3):
            assert (await output_of(task, "true", exec_id=f"e{number}"))[1] == 0
            await asyncio.sleep(0.1)
        assert starters_of(task) == []

    run(scenario)


def test_a_filter_that_kills_it_costs_nothing_but_speed(run):
    profile = {**PERMISSIVE, "syscalls": [{"names": ["fcntl"], "action": "SCMP_ACT_KILL_PROCESS"}]}

    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60", seccomp=profile)
        for number in range(4):
            assert (await by_fork(task, "true", exec_id=f"e{number}"))[1] in (0, 159)
            await asyncio.sleep(0.1)
        assert starters_of(task) == []
        await task.signal(signal.SIGKILL)
        await within(task.gone)

    run(scenario)


def test_a_starter_that_is_killed_in_between_loses_nothing(run):
    async def scenario(yard):
        task = await warmed(yard)
        for number in range(30):
            await output_of(task, "/bin/true", exec_id=f"w{number}")
            (pid,) = await ready(task)
            start = asyncio.ensure_future(output_of(task, "/bin/sh", "-c", "exit 4", exec_id=f"e{number}"))
            await asyncio.sleep(0.0003 * (number % 10))
            os.kill(pid, signal.SIGKILL)
            assert (await start)[1] in (4, 137)
        await task.signal(signal.SIGKILL)
        await within(task.gone)  # no zombie of ours keeps its pid namespace

    run(scenario)


def test_a_tracer_inside_meets_nothing_but_what_the_program_has(run):
    """Whatever it sees of a process on its way has the program's rights, shares no memory, and no view of the host."""

    async def scenario(yard):
        watch = (
            "while :; do for p in /proc/[0-9]*; do"
            " [ ${p##*/} -gt 1 ] && [ ${p##*/} != $$ ] && [ $(readlink $p/exe) != /bin/busybox ]"
            " && echo \"$(grep -h CapPrm $p/status) $(readlink $p/exe) $(ls -l $p/fd 2>/dev/null | sed 's/.*-> //' |"
            " tr '\\n' ' ')\"; done; done 2>/dev/null"
        )
        task = await warmed(yard)
        (pid,) = starters_of(task)
        caps = ["CAP_SYS_PTRACE", "CAP_CHOWN"]
        sets = {"bounding": caps, "permitted": caps, "effective": caps}
        _, client = await exec_in(task, "/bin/sh", "-c", watch, exec_id="watch", capabilities=sets)
        for number in range(150):
            executed, stream = await exec_in(task, "/bin/true", exec_id=f"e{number}")
            await within(executed.exited)
            stream.close()
        assert pid in starters_of(task)
        await task.signal(signal.SIGKILL, "watch")
        for line in unframe(await read_all(client))[1].decode().splitlines():
            if "CapPrm" in line:
                assert "CapPrm:\t0000000000000000" in line, line
                assert "zygote.log" not in line, line

    run(scenario)


def lying(answer):
    """A starter that says what `answer(child)` returns of a child that it has really made."""

    def stay(process, sync, requests):
        sync.close()
        while True:
            try:
                _, descriptors, _, _ = socket.recv_fds(requests, starter.LIMIT, 4)
            except OSError:
                os._exit(0)
            if not descriptors:
                os._exit(0)
            told = socket.socket(fileno=descriptors[3])
            for number in answer():
                told.send(number.to_bytes(8, "little", signed=True))
            told.close()
            for descriptor in descriptors[:3]:
                os.close(descriptor)

    return stay


class Group:
    """A control group that is none."""

    fork = staticmethod(os.fork)

    def directory(self, controller):
        return None


@pytest.mark.parametrize("say", ["init", "parent", "sibling", "nothing", "error", "much"])
def test_what_comes_back_is_not_believed(say):
    """It may be a process of the container that answers: it was traced before it executed."""

    def work():
        sibling = os.fork()
        if sibling == 0:
            time.sleep(60)
            os._exit(0)
        answers = {"init": [1], "parent": [os.getpid()], "sibling": [sibling], "nothing": [], "error": [-2, -13],
                   "much": [1, 2, 3, -1, os.getpid(), sibling] * 50}  # fmt: skip
        starter.provide()
        poller = Poller()

        def strangers():
            return [pid for pid in children_of(os.getpid()) if pid != sibling and pid not in made.pids()]

        made = Starters(poller, lying(lambda: answers[say]), os.getpid, strangers, lambda: False)
        made.enabled = True
        session = Session(poller, terminal=False, log=None, stdin=False, once=False, patient=False)
        process, otherwise, wanted = Process(poller, session), [], {"args": ["true"], "cwd": "/"}
        null = os.open("/dev/null", os.O_RDWR)
        arrived = []
        made.get(wanted, Group(), lambda: arrived.append(True))
        poller.run_for(10, until=lambda: bool(arrived))
        assert made.start(process, wanted, (null, null, null), lambda: otherwise.append(True))
        poller.run_for(10, until=lambda: bool(otherwise) or process.pid > 0)
        alive = os.waitpid(sibling, os.WNOHANG) == (0, 0)
        made.close()
        os.kill(sibling, signal.SIGKILL)
        os.waitpid(sibling, 0)
        return f"{process.pid} {otherwise} {alive}"

    assert forked(work) == "0 [True] True"


def test_an_unused_one_goes(monkeypatch):
    monkeypatch.setattr(starters, "KEEP", 0.2)

    def work():
        starter.provide()
        poller = Poller()
        made = Starters(poller, lying(list), os.getpid, list, lambda: False)
        made.enabled = True
        assert made.plan({"args": ["true"], "cwd": "/"}, Group(), 0.002)
        poller.run_for(5, until=lambda: bool(children_of(os.getpid())))
        count = len(children_of(os.getpid()))
        poller.run_for(5, until=lambda: not children_of(os.getpid()))
        return f"{count} {children_of(os.getpid())}"

    assert forked(work) == "1 []"
