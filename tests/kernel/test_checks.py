"""Health checks by a starter: the same process as an exec, run again and again, and nothing of it stays."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from tests.kernel.test_execspare import LOOK, PERMISSIVE, PROCESSES, output_of
from tests.kernel.yard import children_of, supervisor_of, within
from wherry.runtime import starter

pytestmark = pytest.mark.root
LIMIT = 4097


def described(*args, **process):
    return {"args": list(args), "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0}, **process}


async def check(task, *args, timeout=10.0, limit=LIMIT, **process):
    """Run a check; without arguments the same command again."""
    return await within(task.check(described(*args, **process) if args else None, timeout=timeout, limit=limit))


def starters_of(task):
    names = {pid: Path(f"/proc/{pid}/comm").read_text().strip() for pid in children_of(supervisor_of(task))}
    return [pid for pid, name in names.items() if name == starter.NAME]


async def gone(pid):
    for _ in range(300):
        if not Path(f"/proc/{pid}").exists():
            return True
        await asyncio.sleep(0.01)
    return False


@pytest.mark.parametrize("process", PROCESSES)
def test_the_process_is_the_same_as_that_of_an_exec(run, rootfs, process):
    rootfs.chmod(0o755)

    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60", seccomp=PERMISSIVE)
        executed = await output_of(task, "/bin/sh", "-c", LOOK, **process)
        for command in (("/bin/sh", "-c", LOOK), ()):
            ended = await check(task, *command, **process)
            output = [line for line in ended.output.splitlines() if not line.startswith(b"ls: ")]  # its stderr
            assert output == executed[0][1].splitlines()
            assert (ended.code, ended.late) == (0, False)
        assert b"leads its session" in executed[0][1]

    run(scenario)


def test_one_starter_runs_them_all_out_of_sight(run):
    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60")
        first = await check(task, "sh", "-c", "ls -d /proc/[0-9]*; echo and >&2; exit 7")
        (pid,) = starters_of(task)
        assert first.code == 7
        assert len(first.output.split()) == 3  # the first process, ls, "and": neither sh nor the starter has a number
        for _ in range(20):
            assert (await check(task)).code == 7
        assert starters_of(task) == [pid]
        assert not os.path.exists(f"/proc/{task.pid}/root/proc/{pid}")
        assert sorted(map(int, os.listdir(f"/proc/{pid}/fd"))) == [0, 1, 2, 3]
        assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3)} == {"/dev/null"}
        rss = next(line for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if "Rss" in line)
        assert int(rss.split()[1]) <= 64
        assert (await check(task, "echo", "another")).output == b"another\n"
        assert starters_of(task) == [pid]
        assert (await check(task, "sh", "-c", "echo $A", env=["PATH=/bin", "A=b"])).output == b"b\n"
        assert len(starters_of(task)) == 2
        await task.signal(signal.SIGKILL)
        await within(task.gone)
        assert await gone(pid)

    run(scenario)


def test_output_is_cut_and_of_both_streams_in_order(run):
    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60")
        ended = await check(task, "sh", "-c", "echo a; echo b >&2; echo c")
        assert ended.output == b"a\nb\nc\n"
        ended = await check(task, "sh", "-c", "yes | head -c 1000000", limit=100)
        assert (ended.code, ended.output) == (0, b"y\n" * 50)
        ended = await check(task, "sh", "-c", "printf '\\377\\0'")
        assert ended.output == b"\xff\0"

    run(scenario)


def test_a_late_one_is_killed_and_the_next_runs(run):
    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60")
        command = "echo so far; [ -e /tmp/go ] || exec sleep 60"
        begin = time.monotonic()
        ended = await check(task, "sh", "-c", command, timeout=0.3)
        assert 0.3 <= time.monotonic() - begin < 3
        assert (ended.late, ended.code, ended.output) == (True, 128 + signal.SIGKILL, b"so far\n")
        (pid,) = starters_of(task)
        await output_of(task, "touch", "/tmp/go")
        ended = await check(task, timeout=0.3)
        assert (ended.late, ended.code) == (False, 0)
        assert starters_of(task) == [pid]
        await output_of(task, "rm", "/tmp/go")

    run(scenario)


def test_somebody_who_keeps_the_output_open_is_not_waited_for(run):
    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60")
        begin = time.monotonic()
        ended = await check(task, "sh", "-c", "sleep 50 & echo left one")
        assert (ended.code, ended.output) == (0, b"left one\n")
        assert time.monotonic() - begin < 10
        left = [pid for pid in children_of(task.pid) if b"50" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert len(left) == 1  # it belongs to the container's first process, not to the engine
        assert (await check(task, "echo", "next")).output == b"next\n"

    run(scenario)


def test_a_starter_that_is_killed_is_made_again(run):
    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60")
        await check(task, "echo", "there")
        (pid,) = starters_of(task)
        os.kill(pid, signal.SIGKILL)
        for _ in range(2):  # the first may be answered that it cannot be done this time
            ended = await check(task)
        assert ended.output == b"there\n"
        assert starters_of(task) != [pid]
        (pid,) = starters_of(task)
        waiting = asyncio.create_task(check(task, "sh", "-c", "sleep 1; echo done"))
        await asyncio.sleep(0.3)
        os.kill(starters_of(task)[0], signal.SIGKILL)
        assert (await waiting).output == b"done\n"  # it is a child of the supervisor

    run(scenario)


def test_a_stopped_starter_holds_nobody_up(run):
    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60")
        await check(task, "echo", "there")
        (pid,) = starters_of(task)
        os.kill(pid, signal.SIGSTOP)
        ended = await check(task, timeout=0.2)
        assert (ended.late, ended.code, ended.output) == (True, -1, b"")
        assert await gone(pid)
        assert (await check(task)).output == b"there\n"

    run(scenario)


@pytest.mark.parametrize(
    "process",
    [
        {"args": ["nosuch"]},
        {"args": ["/bin/odd"]},
        {"args": ["true"], "cwd": "/proc/self/nothing"},
        {"args": ["true"], "rlimits": [{"type": "RLIMIT_NPROC", "soft": 100, "hard": 100}]},
        {"args": ["true"], "user": {"username": "nobody-here"}},
    ],
)
def test_what_cannot_go_this_way_is_said(run, rootfs, process):
    (rootfs / "bin/odd").write_bytes(b"\x7fNOT a program")
    (rootfs / "bin/odd").chmod(0o755)

    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60")
        wanted = {**described(*process["args"]), **process}
        assert await within(task.check(wanted, timeout=5.0, limit=10)) is None
        assert await within(task.check(None, timeout=5.0, limit=10)) is None
        assert (await check(task, "echo", "fine")).output == b"fine\n"

    run(scenario)


def test_a_program_that_vanishes_is_told_and_comes_back(run, rootfs):
    (rootfs / "bin/probe").write_text("#!/bin/sh\necho seen\n")
    (rootfs / "bin/probe").chmod(0o755)

    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60")
        assert (await check(task, "probe")).output == b"seen\n"
        (rootfs / "bin/probe").rename(rootfs / "bin/aside")
        assert await check(task) is None
        (rootfs / "bin/aside").rename(rootfs / "bin/probe")
        assert (await check(task)).output == b"seen\n"

    run(scenario)


def test_the_hosts_pid_namespace_and_a_filter_without_fork_have_none(run):
    strict = {**PERMISSIVE, "syscalls": [{"names": ["clone", "clone3", "fork", "vfork"], "action": "SCMP_ACT_ERRNO"}]}
    no_messages = {**PERMISSIVE, "syscalls": [{"names": ["recvmsg"], "action": "SCMP_ACT_KILL_PROCESS"}]}

    async def scenario(yard):
        assert await check(await yard.start("/bin/sleep", "60", host_pid=True), "true") is None
        assert await check(await yard.start("/bin/sleep", "60", seccomp=strict), "true") is None
        task = await yard.start("/bin/sleep", "60", seccomp=no_messages)
        for _ in range(3):
            assert await check(task, "true") is None

    run(scenario)


def test_without_room_for_one_more_process(run):
    async def scenario(yard):
        resources = {"devices": [{"allow": True, "access": "rwm"}], "pids": {"limit": 1}}
        task = await yard.start("/bin/sleep", "60", resources=resources)
        assert await check(task, "true") is None

    run(scenario)


def test_nothing_outlives_a_supervisor_that_is_killed(run):
    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60")
        await check(task, "true")
        (pid,) = starters_of(task)
        os.kill(supervisor_of(task), signal.SIGKILL)
        await within(task.gone)
        assert await gone(pid)

    run(scenario)


def test_a_new_engine_takes_over_in_the_middle(run):
    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60")
        waiting = asyncio.create_task(check(task, "sh", "-c", "echo $$; exec sleep 30"))
        await asyncio.sleep(0.3)
        assert len(starters_of(task)) == 1
        found = await yard.taken_over(task)
        yard.tasks.append(found)
        found.launch = task.launch
        assert (await check(found, "echo", "mine")).output == b"mine\n"
        waiting.cancel()
        sleeping = [pid for pid in children_of(found.pid) if b"30" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert sleeping == []

    run(scenario)
