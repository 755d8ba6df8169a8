"""Containers through zygote and supervisor: streams, ends, deaths of the engine's parts."""

import asyncio
import errno
import json
import os
import signal
import socket
import stat
import time
from pathlib import Path

import pytest

from tests.kernel.yard import children_of, make_rootfs, read_all, unframe, within, yard
from wherry.errors import Conflict
from wherry.runtime import exits
from wherry.runtime.wire import AttachOptions, ExecLaunch, Exit, LogTarget
from wherry.supervision import task as task_module
from wherry.supervision.task import LaunchFailed, Task

pytestmark = pytest.mark.root
OUTPUT = AttachOptions()
INPUT = AttachOptions(stdin=True)


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory):
    return make_rootfs(tmp_path_factory.mktemp("rootfs"))


@pytest.fixture
def run(tmp_path, rootfs, request):
    """Run a test's coroutine function with a yard: one that has no spare supervisors yet, or one that has."""

    def go(scenario, folder=tmp_path):
        async def main():
            async with yard(folder, rootfs) as made:
                if getattr(request, "param", "") == "spare":
                    await made.grow_spares()
                await scenario(made)

        asyncio.run(main())

    return go


both = pytest.mark.parametrize("run", ["fork", "spare"], indirect=True)


def log_of(task):
    lines = (Path(task.launch.log.path)).read_bytes().splitlines()
    return [(record["stream"], record["log"]) for record in map(json.loads, lines)]


def alive(pid):
    """Whether the process runs; an orphan of a dead supervisor may have become our own zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    if state == "Z":
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            pass
    return state != "Z"


def supervisor_of(task):
    """Return the pid of the task's supervisor."""
    return int(Path(f"/proc/{task.pid}/stat").read_text().rpartition(")")[2].split()[1])


@both
def test_output_log_and_exit(run):
    async def scenario(yard):
        task, client = await yard.start("/bin/sh", "-c", "echo out; echo err >&2; exit 7", clients=(OUTPUT,))
        before = time.time_ns()
        outcome = await within(task.exited)
        assert (outcome.code, outcome.signal, outcome.oom) == (7, 0, False)
        assert abs(outcome.at - before) < 5e9
        assert exits.read_exit(task.launch.run_dir) == outcome
        assert unframe(await read_all(client)) == {1: b"out\n", 2: b"err\n"}
        await within(task.gone)
        assert sorted(log_of(task)) == [("stderr", "err\n"), ("stdout", "out\n")]
        assert not (Path(task.launch.run_dir) / exits.SOCKET).exists()

    run(scenario)


@pytest.mark.parametrize(
    ("script", "sent", "code", "number"),
    [
        ("kill -9 $$; sleep 9", None, 0, 0),  # a pid namespace's first process ignores its own signals
        ("exec sleep 60", signal.SIGKILL, 137, 9),
        ("trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done", signal.SIGTERM, 3, 0),
    ],
)
def test_signals(run, script, sent, code, number):
    async def scenario(yard):
        script_ = script if sent else "kill -9 $$; exit 0"
        task, client = await yard.start("/bin/sh", "-c", script_, clients=(OUTPUT,))
        if "ready" in script:
            await within(asyncio.get_running_loop().sock_recv(client, 100))
        if sent:
            await task.signal(sent)
        outcome = await within(task.exited)
        assert (outcome.code, outcome.signal) == (code, number)
        await task.signal(signal.SIGTERM)  # to what is gone: no error, and no stranger is hit
        client.close()

    run(scenario)


@both
def test_program_that_is_not_there(run):
    async def scenario(yard):
        with pytest.raises(LaunchFailed) as caught:
            await yard.start("/bin/nothing", clients=(OUTPUT,))
        assert caught.value.failure.phase in ("exec", "process")
        assert caught.value.failure.errno == errno.ENOENT
        assert "/bin/nothing" in caught.value.failure.message

    run(scenario)


@both
def test_failed_launch_leaves_nothing(run):
    async def scenario(yard):
        launch = yard.launch_of("/bin/nothing")
        with pytest.raises(LaunchFailed):
            await yard.supervision.launch(launch, netns_fd=None, attach_fds=[])
        assert yard.cgroups(launch.id) == []
        assert not (Path(launch.run_dir) / exits.SOCKET).exists()
        assert not (Path(launch.run_dir) / exits.FAULT).exists()

    run(scenario)


@both
def test_stdin_half_close(run):
    async def scenario(yard):
        task, client = await yard.start("/bin/cat", clients=(INPUT,), open_stdin=True, stdin_once=True)
        data = os.urandom(300_000)
        loop = asyncio.get_running_loop()
        reader = asyncio.create_task(read_all(client))
        await within(loop.sock_sendall(client, data))
        client.shutdown(socket.SHUT_WR)
        assert unframe(await within(reader))[1] == data
        assert (await within(task.exited)).code == 0

    run(scenario)


@both
def test_terminal(run):
    async def scenario(yard):
        task, client = await yard.start("/bin/sh", clients=(INPUT,), open_stdin=True, terminal=True)
        loop = asyncio.get_running_loop()
        await task.resize(33, 101)
        await loop.sock_sendall(client, b"stty size; echo $((40+2)); exit 5\n")
        shown = await read_all(client)
        assert b"33 101" in shown
        assert b"42\r\n" in shown
        assert (await within(task.exited)).code == 5
        assert any("42" in text for _, text in log_of(task))

    run(scenario)


def test_detach_and_attach_again(run):
    async def scenario(yard):
        task, client = await yard.start("/bin/cat", clients=(INPUT,), open_stdin=True, terminal=True)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(client, b"one\n")
        assert b"one" in await within(loop.sock_recv(client, 100))
        await loop.sock_sendall(client, b"\x10\x11")
        await read_all(client)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        await task.attach(theirs.fileno(), INPUT)
        theirs.close()
        await loop.sock_sendall(ours, b"two\n")
        assert b"two" in await within(loop.sock_recv(ours, 100))
        ours.close()
        assert not task.exited.done()

    run(scenario)


async def exec_in(task, *args, exec_id="x", options=OUTPUT, **process):
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    described = {"args": list(args), "env": ["PATH=/bin"], "cwd": "/", "user": {"uid": 0, "gid": 0}, **process}
    try:
        executed = await task.exec(ExecLaunch(exec_id, described, options), theirs.fileno())
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return executed, ours


@both
def test_exec(run):
    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60")
        executed, client = await exec_in(task, "/bin/sh", "-c", "cat; echo err >&2; exit 4", options=INPUT)
        await asyncio.get_running_loop().sock_sendall(client, b"typed")
        client.shutdown(socket.SHUT_WR)
        assert unframe(await read_all(client)) == {1: b"typed", 2: b"err\n"}
        assert (await within(executed.exited)).code == 4
        assert log_of(task) == []  # an exec is not logged

    run(scenario)


@both
def test_exec_that_fails(run):
    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60")
        ours, theirs = socket.socketpair()
        launch = ExecLaunch("x", {"args": ["/nothing"], "env": [], "cwd": "/", "user": {"uid": 0, "gid": 0}}, OUTPUT)
        with pytest.raises(LaunchFailed, match="/nothing"):
            await task.exec(launch, theirs.fileno())
        theirs.sendall(b"still ours")  # the daemon tells its client why on the same stream
        assert ours.recv(100) == b"still ours"
        ours.close()
        theirs.close()

    run(scenario)


def test_exec_ends_while_others_hold_its_output(run):
    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60")
        executed, client = await exec_in(task, "/bin/sh", "-c", "(sleep 0.3; echo late) & echo now")
        assert unframe(await read_all(client))[1] == b"now\nlate\n"
        assert (await within(executed.exited)).code == 0

    run(scenario)


def test_exec_signal_and_terminal(run):
    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60")
        executed, client = await exec_in(task, "/bin/sh", exec_id="t", options=INPUT, terminal=True)
        await task.resize(20, 90, "t")
        await asyncio.get_running_loop().sock_sendall(client, b"stty size\n")
        shown = b""
        while b"20 90" not in shown:
            shown += await within(asyncio.get_running_loop().sock_recv(client, 1000))
        await task.signal(signal.SIGKILL, "t")
        assert (await within(executed.exited)).code == 137
        client.close()

    run(scenario)


def test_container_end_ends_its_execs(run):
    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60")
        executed, client = await exec_in(task, "/bin/sleep", "60")
        await task.signal(signal.SIGKILL)
        assert (await within(executed.exited)).code == 137
        assert (await within(task.exited)).code == 137
        client.close()

    run(scenario)


def test_hundred_execs_lose_no_output(run):
    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60")

        async def one(number):
            executed, client = await exec_in(task, "/bin/echo", f"n{number}", exec_id=f"e{number}")
            assert unframe(await read_all(client))[1] == f"n{number}\n".encode()
            assert (await within(executed.exited)).code == 0

        for batch in range(10):
            await asyncio.gather(*(one(batch * 10 + each) for each in range(10)))

    run(scenario)


@both
def test_twenty_launches_at_once(run):
    async def scenario(yard):
        async def one(number):
            task, client = await yard.start("/bin/sh", "-c", f"echo {number}; exit {number}", clients=(OUTPUT,))
            assert unframe(await read_all(client))[1] == b"%d\n" % number
            assert (await within(task.exited)).code == number

        await asyncio.gather(*(one(number) for number in range(20)))

    run(scenario)


@both
def test_host_pid_container_leaves_no_process(run):
    async def scenario(yard):
        script = "sleep 300 & echo $!; sleep 0.1"
        task, client = await yard.start("/bin/sh", "-c", script, clients=(OUTPUT,), host_pid=True)
        outcome = await within(task.exited)
        child = int(unframe(await read_all(client))[1])
        assert outcome.code == 0
        await within(task.gone)
        await asyncio.sleep(0.05)
        assert not alive(child)

    run(scenario)


def test_hundred_megabytes_reach_log_and_a_slow_client(run):
    async def scenario(yard):
        script = "yes 0123456789012345678901234567890123456789012345678901234567890123456789012345678 | head -n 400000"
        task, client = await yard.start("/bin/sh", "-c", script, clients=(OUTPUT,))
        size, loop = 0, asyncio.get_running_loop()
        while chunk := await within(loop.sock_recv(client, 1 << 18)):
            size += len(chunk)
            await asyncio.sleep(0.0005)
        client.close()
        assert (await within(task.exited)).code == 0
        assert size > 400_000 * 80
        assert len(log_of(task)) == 400_000

    run(scenario)


def test_wherryd_comes_back(run):
    """The connection is lost; the container runs on, and the next daemon takes over."""

    async def scenario(yard):
        task = await yard.start("/bin/sh", "-c", "trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done")
        executed, client = await exec_in(task, "/bin/sh", "-c", "exit 6", exec_id="old")
        await within(executed.exited)
        client.close()
        task._connection.close()  # as kill -9 of the daemon does
        found = await yard.taken_over(task)
        assert isinstance(found, Task)
        assert (found.pid, found.start_time, found.started_at) == (task.pid, task.start_time, task.started_at)
        executed, client = await exec_in(found, "/bin/echo", "hello")
        assert unframe(await read_all(client))[1] == b"hello\n"
        await found.signal(signal.SIGTERM)
        assert (await within(found.exited)).code == 9
        await within(found.gone)

    run(scenario)


def test_newest_connection_wins(run):
    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60")
        found = await yard.taken_over(task)
        assert isinstance(found, Task)
        with pytest.raises(Conflict):
            await task.close_stdin()
        await found.signal(signal.SIGKILL)
        assert (await within(found.exited)).code == 137
        await within(found.gone)

    run(scenario)


def test_end_while_no_daemon_was_there(run):
    async def scenario(yard):
        task = await yard.start("/bin/sh", "-c", "sleep 0.2; exit 21")
        task._connection.close()
        await asyncio.sleep(0.5)
        found = await yard.taken_over(task)
        assert isinstance(found, Exit)
        assert found.code == 21

    run(scenario)


def test_never_started(run):
    async def scenario(yard):
        launch = yard.launch_of("/bin/true")
        found = await yard.supervision.restore(launch.id, Path(launch.run_dir), "/wherry-none/none")
        assert found is None
        assert await yard.supervision.restore(launch.id, yard.folder / "nowhere", "/wherry-none/none") is None

    run(scenario)


def test_dead_zygote_is_replaced_and_containers_run_on(run, caplog):
    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60")
        first = yard.supervision.zygote_pid
        os.kill(first, signal.SIGKILL)
        again = await yard.start("/bin/sh", "-c", "exit 3")
        assert yard.supervision.zygote_pid != first
        assert (await within(again.exited)).code == 3
        assert alive(task.pid)
        _, client = await exec_in(task, "/bin/echo", "alive")
        assert unframe(await read_all(client))[1] == b"alive\n"
        assert "zygote died" in caplog.text

    run(scenario)


@both
def test_dead_supervisor_ends_its_container(run, caplog):
    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60")
        os.kill(supervisor_of(task), signal.SIGKILL)
        outcome = await within(task.exited)
        assert (outcome.code, outcome.signal) == (137, 9)
        assert exits.read_exit(task.launch.run_dir) == outcome
        await within(task.gone)
        assert not alive(task.pid)
        assert "supervisor died" in caplog.text

    run(scenario)


def test_dead_supervisor_is_found_by_the_next_daemon(run):
    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60")
        supervisor = supervisor_of(task)
        task._connection.close()
        os.kill(supervisor, signal.SIGKILL)
        found = await yard.taken_over(task)
        assert isinstance(found, Exit)
        assert (found.code, found.signal) == (137, 9)
        assert not alive(task.pid)

    run(scenario)


def test_supervisor_that_does_not_answer_is_ended(run, monkeypatch):
    monkeypatch.setattr(task_module, "STATE_PATIENCE", 0.2)

    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60")
        supervisor = supervisor_of(task)
        os.kill(supervisor, signal.SIGSTOP)
        task._connection.close()
        found = await yard.taken_over(task)
        assert isinstance(found, Exit)
        assert found.code == 137
        assert not alive(task.pid)

    run(scenario)


def test_launch_takes_a_spare_and_a_new_one_grows(run):
    async def scenario(yard):
        before = await yard.grow_spares()
        task = await yard.start("/bin/sleep", "60")
        assert supervisor_of(task) in before
        assert task.pid in children_of(supervisor_of(task))
        after = await yard.grow_spares()
        assert len(after) == len(before)
        assert supervisor_of(task) not in after

    run(scenario)


@pytest.mark.parametrize("whom", ["supervisor", "stem"])
def test_killed_spares_are_passed_over(run, whom):
    async def scenario(yard):
        for spare in await yard.grow_spares():
            stems = children_of(spare)
            assert len(stems) == 1
            os.kill(spare if whom == "supervisor" else stems[0], signal.SIGKILL)
        task, client = await yard.start("/bin/sh", "-c", "echo $$; exit 3", clients=(OUTPUT,))
        assert unframe(await read_all(client))[1] == b"1\n"
        assert (await within(task.exited)).code == 3

    run(scenario)


def test_spares_end_with_the_zygote(run):
    async def scenario(yard):
        spares = await yard.grow_spares()
        stems = [stem for spare in spares for stem in children_of(spare)]
        os.kill(yard.supervision.zygote_pid, signal.SIGKILL)
        await asyncio.sleep(0.2)
        assert not any(alive(pid) for pid in (*spares, *stems))

    run(scenario)


def test_taken_control_group_is_left_to_its_owner(run):
    async def scenario(yard):
        await yard.grow_spares()
        task = await yard.start("/bin/sleep", "60")
        launch = yard.launch_of("/bin/true")
        launch.spec["linux"]["cgroupsPath"] = task.launch.spec["linux"]["cgroupsPath"]
        with pytest.raises(LaunchFailed) as caught:
            await yard.supervision.launch(launch, netns_fd=None, attach_fds=[])
        assert (caught.value.failure.phase, caught.value.failure.errno) == ("cgroup", errno.EBUSY)
        assert alive(task.pid)
        assert yard.cgroups(task.id)

    run(scenario)


def test_long_run_root(run, tmp_path):
    deep = tmp_path.joinpath(*["directory-with-a-long-name"] * 6)
    deep.mkdir(parents=True)

    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60")
        assert len(task.launch.run_dir) > 150
        found = await yard.taken_over(task)
        assert isinstance(found, Task)
        await found.signal(signal.SIGKILL)
        await within(found.gone)

    run(scenario, deep)


def test_supervisor_socket_and_records_are_private(run):
    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60")
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in os.scandir(task.launch.run_dir)}
        assert modes == {exits.SOCKET: 0o600, exits.TASK: 0o600, "json.log": 0o640}

    run(scenario)


@both
def test_supervisor_holds_only_its_own_descriptors(run):
    async def scenario(yard):
        await yard.start("/bin/sleep", "60")
        task = await yard.start("/bin/sleep", "60")
        folder = f"/proc/{supervisor_of(task)}/fd"
        targets = sorted(os.readlink(f"{folder}/{fd}").partition(":")[0] for fd in os.listdir(folder))
        # stdio, the engine's mounts, log, run dir; epoll and pidfd; stdout and stderr; listener and control
        own = ["/dev/null", "/dev/null", str(yard.folder / "zygote.log"), "mnt"]
        own += [task.launch.log.path, task.launch.run_dir, "anon_inode", "anon_inode"]
        assert targets == sorted([*own, "pipe", "pipe", "socket", "socket"])

    run(scenario)


def test_full_disk_under_the_log_does_not_stop_the_container(run, caplog):
    async def scenario(yard):
        log = LogTarget("json-file", "/dev/full")
        task, client = await yard.start("/bin/sh", "-c", "echo shown; exit 2", clients=(OUTPUT,), log=log)
        assert unframe(await read_all(client))[1] == b"shown\n"
        assert (await within(task.exited)).code == 2
        assert "container log lost output" in caplog.text

    run(scenario)
