"""Deaths of the engine's parts, spares, and what supervisors keep private."""

import asyncio
import errno
import os
import signal
import stat
from pathlib import Path

import pytest

from tests.kernel.yard import (
    OUTPUT,
    alive,
    both,
    children_of,
    exec_in,
    read_all,
    supervisor_of,
    unframe,
    within,
)
from tests.waiting import until
from wherry.errors import Conflict
from wherry.runtime import exits
from wherry.runtime.wire import Exit, LogTarget
from wherry.supervision import task as task_module
from wherry.supervision.task import LaunchFailed, Task

pytestmark = pytest.mark.root


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
        for pid in (*spares, *stems):
            await asyncio.to_thread(until, lambda pid=pid: not alive(pid))

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
        # stdio, the engine's mounts, the starter's program, log, run dir; epoll and pidfd; stdout and stderr; listener
        # and control, and what keeps the mounts
        own = ["/dev/null", "/dev/null", str(yard.folder / "zygote.log"), "mnt", "/memfd"]
        own += [task.launch.log.path, task.launch.run_dir, "anon_inode", "anon_inode"]
        assert targets == sorted([*own, "pipe", "pipe", "socket", "socket", "socket"])

    run(scenario)


def test_full_disk_under_the_log_does_not_stop_the_container(run, caplog):
    async def scenario(yard):
        log = LogTarget("json-file", "/dev/full")
        task, client = await yard.start("/bin/sh", "-c", "echo shown; exit 2", clients=(OUTPUT,), log=log)
        assert unframe(await read_all(client))[1] == b"shown\n"
        assert (await within(task.exited)).code == 2
        assert "container log lost output" in caplog.text

    run(scenario)
