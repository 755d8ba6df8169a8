"""What only a kernel with control groups of version 2 alone shows: run by test_cgroup2.py in an emulated machine.

The counterpart of what tests/kernel/test_cgroups.py has for version 1, and what only the controllers themselves show.
"""

from __future__ import annotations

import faulthandler
import mmap
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.blockdevice import BlockDevice
from wherry.kernel import cgroup
from wherry.runtime import cgroups
from wherry.runtime.cgroups import Cgroup

pytestmark = [pytest.mark.root, pytest.mark.slow]

M = 1 << 20
PARENT = "/wherry-cgroup2"
HUGE = 2 * M
MAP_HUGETLB = 0x40000


@pytest.fixture
def path() -> Iterator[str]:
    assert cgroups.detect().version == 2
    name = f"{PARENT}/{uuid.uuid4().hex}"
    yield name
    left = Cgroup.open(name)
    left.kill()
    left.remove()
    cgroups.remove_empty(PARENT)


def read(group: Cgroup, name: str) -> str:
    return cgroup.read(f"{group.directories[0]}/{name}").strip()


def end_of(group: Cgroup, work: Callable[[], Any]) -> int:
    """Do some work in a child that is born in the group; return its exit status, or the signal, negative."""
    pid = group.fork()
    if pid == 0:
        try:
            group.join()
            work()
            os._exit(0)
        except OSError as error:
            os._exit(error.errno or 1)
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_every_limit(path: str):
    group = Cgroup.create(path, {
        "memory": {"limit": 64 * M, "swap": 96 * M, "reservation": 32 * M},
        "cpu": {"shares": 512, "quota": 150000, "period": 50000, "burst": 1000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 50},
        "hugepageLimits": [{"pageSize": "2MB", "limit": HUGE}],
        "unified": {"memory.high": str(48 * M)},
    })  # fmt: skip
    wanted = {
        "memory.max": str(64 * M), "memory.swap.max": str(32 * M), "memory.low": str(32 * M),
        "memory.high": str(48 * M), "cpu.max": "150000 50000", "cpu.max.burst": "1000", "cpuset.cpus": "0",
        "cpuset.mems": "0", "pids.max": "50", "hugetlb.2MB.max": str(HUGE),
    }  # fmt: skip
    assert {name: read(group, name) for name in wanted} == wanted


def test_up_and_down(path: str):
    group = Cgroup.create(path, {"memory": {"limit": 64 * M, "swap": 64 * M}})
    for limit, swap, shown in ((256, 512, str(256 * M)), (32, 32, "0"), (128, -1, "max"), (16, 64, str(48 * M))):
        group.update({"memory": {"limit": limit * M, "swap": swap if swap < 0 else swap * M}, "pids": {"limit": limit}})
        assert (read(group, "memory.max"), read(group, "memory.swap.max")) == (str(limit * M), shown)
        assert read(group, "pids.max") == str(limit)


@pytest.mark.parametrize(
    ("resources", "name"),
    [
        ({"memory": {"limit": 64 * M, "swap": 32 * M}}, "memory.swap.max"),
        ({"cpu": {"cpus": "4000"}}, "cpuset.cpus"),
        ({"cpu": {"quota": 1}}, "cpu.max"),
        ({"cpu": {"realtimeRuntime": 1}}, "cpu.rt_runtime_us"),
        ({"hugepageLimits": [{"pageSize": "3KB", "limit": 1}]}, "hugetlb.3KB.max"),
        ({"unified": {"cgroup.procs": "0"}}, "cgroup.procs"),
        ({"devices": [{"allow": True, "type": "q"}]}, "devices"),
    ],
)
def test_all_or_nothing(path: str, resources: dict[str, Any], name: str):
    with pytest.raises(OSError, match=r".") as refused:
        Cgroup.create(path, resources)
    assert str(refused.value.filename).endswith(name)
    assert not os.path.exists(Cgroup.open(path).directories[0])


def test_huge_pages_end_at_the_limit(path: str):
    Path("/proc/sys/vm/nr_hugepages").write_text("8")
    group = Cgroup.create(path, {"hugepageLimits": [{"pageSize": "2MB", "limit": 2 * HUGE}]})

    def touch(pages: int) -> Callable[[], None]:
        def work() -> None:
            faulthandler.disable()  # pytest's; the signal is what is waited for
            with mmap.mmap(-1, pages * HUGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_HUGETLB) as memory:
                for page in range(pages):
                    memory[page * HUGE] = 1

        return work

    assert end_of(group, touch(2)) == 0
    # a reservation goes beyond the limit of pages in use; the first page too many is a bus error
    assert end_of(group, touch(3)) == -signal.SIGBUS
    assert "max 1" in read(group, "hugetlb.2MB.events")


def test_a_quota_is_felt(path: str):
    """A tenth of a processor: the kernel has to hold the busy loop up, and says for how long."""
    group = Cgroup.create(path, {"cpu": {"quota": 10000, "period": 100000}})

    def spin() -> None:
        end = time.monotonic() + 2
        while time.monotonic() < end:
            pass

    assert end_of(group, spin) == 0
    numbers = dict(line.split() for line in read(group, "cpu.stat").splitlines())
    assert int(numbers["nr_throttled"]) > 5
    assert int(numbers["usage_usec"]) < 500_000


def test_a_cpuset_binds(path: str):
    group = Cgroup.create(path, {"cpu": {"cpus": "1"}})
    assert end_of(group, lambda: os._exit(0 if os.sched_getaffinity(0) == {1} else 7)) == 0


def test_memory_above_high_is_taken_back(path: str):
    group = Cgroup.create(path, {"unified": {"memory.high": str(8 * M)}, "memory": {"limit": 64 * M}})
    assert end_of(group, lambda: bytearray(b"x" * (12 * M))) == 0
    events = dict(line.split() for line in read(group, "memory.events").splitlines())
    assert int(events["high"]) > 0
    assert events["oom_kill"] == "0"


def test_io_is_throttled(path: str):
    with BlockDevice(16 * M) as device:
        major, minor = os.major(os.stat(device.path).st_rdev), os.minor(os.stat(device.path).st_rdev)
        rate = {"major": major, "minor": minor, "rate": M}
        every = [{"allow": True, "access": "rwm"}]
        group = Cgroup.create(path, {"blockIO": {"throttleWriteBpsDevice": [rate]}, "devices": every})
        assert f"{major}:{minor} rbps=max wbps={M}" in read(group, "io.max")

        def write() -> None:
            fd = os.open(device.path, os.O_WRONLY | os.O_DIRECT)
            buffer = mmap.mmap(-1, M)
            for _ in range(4):
                os.write(fd, buffer)

        begin = time.monotonic()
        assert end_of(group, write) == 0
        assert time.monotonic() - begin > 2.5
        assert f"{major}:{minor}" in read(group, "io.stat")


def test_devices_of_a_group_below_are_no_more_than_its_own(path: str):
    """The program is the group's and of all below: version 2 has no list that a process inside could widen."""
    group = Cgroup.create(path, {"devices": [{"allow": False, "access": "rwm"}]})
    below = f"{group.directories[0]}/below"

    def read_memory() -> None:
        os.mkdir(below)
        cgroup.write(f"{below}/cgroup.procs", "0")
        os.open("/dev/null", os.O_RDWR)
        try:
            os.open("/dev/mem", os.O_RDONLY)
        except PermissionError:
            os._exit(42)

    assert end_of(group, read_memory) == 42
