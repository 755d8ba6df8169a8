"""Containers through zygote and supervisor: starts, streams, execs, ends."""

import asyncio
import errno
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.kernel.yard import (
    INPUT,
    OUTPUT,
    alive,
    both,
    exec_in,
    log_of,
    read_all,
    unframe,
    within,
)
from wherry.runtime import exits
from wherry.runtime.wire import ExecLaunch
from wherry.supervision.task import LaunchFailed

pytestmark = pytest.mark.root


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


def test_ps_tells_what_the_helpers_are(run):
    async def scenario(yard):
        task = await yard.start("/bin/sleep", "60")
        supervisor = Path(f"/proc/{task.pid}/stat").read_text().split()[3]
        assert Path(f"/proc/{supervisor}/comm").read_text() == "wherry-super\n"
        assert Path(f"/proc/{yard.supervision.zygote_pid}/comm").read_text() == "wherry-zygote\n"
        assert Path(f"/proc/{task.pid}/comm").read_text() == "sleep\n"

    run(scenario)
