"""When a container's mounts go: before its end is known, or after it was told."""

import asyncio
import os
import select
import signal
from pathlib import Path

import pytest

from tests.kernel.yard import alive, both, log_of, supervisor_of, within
from wherry.kernel import inotify
from wherry.runtime import exits

pytestmark = pytest.mark.root

IN_UNMOUNT = 0x2000  # reported whatever is watched for, inotify(7)
IN_MOVE_SELF = 0x800


def unmounted(watch, seconds):
    """Whether the file system that is watched is unmounted within so many seconds."""
    if not select.select([watch], [], [], seconds)[0]:
        return False
    return bool(int.from_bytes(os.read(watch, 4096)[4:8], "little") & IN_UNMOUNT)


async def ended(pid):
    """Wait until a process is a zombie: it has left its mount namespace by then."""
    for _ in range(500):
        if Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "Z":
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it does not end")


@pytest.mark.parametrize("private", [False, True])
@both
def test_private_mounts_go_after_the_exit_was_told(run, private):
    async def scenario(yard):
        await yard.grow_spares()
        task = await yard.start("/bin/sleep", "60", private_mounts=private)
        watch = inotify.watch_directory(f"/proc/{task.pid}/root/dev", IN_MOVE_SELF)
        supervisor = supervisor_of(task)
        try:
            os.kill(supervisor, signal.SIGSTOP)
            os.kill(task.pid, signal.SIGKILL)
            await ended(task.pid)
            assert unmounted(watch, 0.1) is not private
            os.kill(supervisor, signal.SIGCONT)
            assert (await within(task.exited)).code == 137
            assert exits.read_exit(task.launch.run_dir) is not None
            await within(task.gone)
            assert not private or unmounted(watch, 0)
        finally:
            os.close(watch)
            if alive(supervisor):
                os.kill(supervisor, signal.SIGCONT)

    run(scenario)


@both
def test_the_container_sees_nothing_of_it(run):
    async def scenario(yard):
        task = await yard.start("/bin/sh", "-c", "exec ls /proc/self/fd", private_mounts=True)
        assert (await within(task.exited)).code == 0
        await within(task.gone)
        assert "".join(text for _, text in log_of(task)).split() == ["0", "1", "2", "3"]  # 3 is what ls reads

    run(scenario)
