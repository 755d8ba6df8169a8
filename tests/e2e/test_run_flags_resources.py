"""docker run flags that limit: what the kernel says of them afterwards, and what happens at the limit.

The names of control files are version 1's on a machine that has those controllers, else version 2's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine import SYSTEMD, Engine
from tests.kernel.blockdevice import BlockDevice

pytestmark = [pytest.mark.root, pytest.mark.engine]

OLD = Path("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists()
cgroupfs = pytest.mark.skipif(SYSTEMD, reason="the parent is a slice: tests/vm/guest_systemd.py")
SWAP = not OLD or Path("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists()


def control(engine: Engine, controller: str, old: str, new: str, *flags: str) -> str:
    """Return what a control file of a fresh container with these flags says."""
    name = f"c{len(engine.docker('ps', '-aq').split())}"
    engine.docker("run", "-d", "--name", name, *flags, "busybox", "sleep", "1000")
    return control_of(engine, name, controller, old, new)


def control_of(engine: Engine, container: str, controller: str, old: str, new: str) -> str:
    """Return what a control file of a container says, read from the host."""
    full, parent = engine.docker("inspect", "-f", "{{.Id}} {{.HostConfig.CgroupParent}}", container).split(" ")
    group = engine.group(full, parent)
    path = f"/sys/fs/cgroup/{controller}{group}/{old}" if OLD else f"/sys/fs/cgroup{group}/{new}"
    return Path(path).read_text().strip()


# ---- memory


@pytest.mark.parametrize(
    ("flags", "old", "new", "wanted"),
    [
        (("-m", "32m"), "memory.limit_in_bytes", "memory.max", (32 << 20, 32 << 20)),
        (("-m", "32m"), "memory.memsw.limit_in_bytes", "memory.swap.max", (64 << 20, 32 << 20)),
        (
            ("-m", "32m", "--memory-swap", "48m"),
            "memory.memsw.limit_in_bytes", "memory.swap.max", (48 << 20, 16 << 20),
        ),
        (("-m", "32m", "--memory-swap", "32m"), "memory.memsw.limit_in_bytes", "memory.swap.max", (32 << 20, 0)),
        (("--memory-reservation", "16m"), "memory.soft_limit_in_bytes", "memory.low", (16 << 20, 16 << 20)),
    ],
)  # fmt: skip
def test_memory_limits(engine: Engine, flags, old, new, wanted):
    assert control(engine, "memory", old, new, *flags) == str(wanted[0] if OLD else wanted[1])


def test_unlimited_swap(engine: Engine):
    shown = control(
        engine, "memory", "memory.memsw.limit_in_bytes", "memory.swap.max", "-m", "32m", "--memory-swap", "-1"
    )
    assert int(shown) > 1 << 60 if OLD else shown == "max"


def test_memory_swappiness(engine: Engine):
    ran = engine.run("create", "--memory-swappiness", "17", "--name", "aa", "busybox", "sleep", "1000")
    if not OLD:
        assert "Memory swappiness discarded" in ran.stderr
        return
    engine.docker("start", "aa")
    assert control_of(engine, "aa", "memory", "memory.swappiness", "") == "17"


def test_more_than_its_memory_is_not_to_be_had(engine: Engine):
    script = "dd if=/dev/zero of=/dev/null bs=64M count=1 2>/dev/null && echo got it"
    assert engine.docker("run", "--rm", "-m", "128m", "busybox", "sh", "-c", script) == "got it"
    ran = engine.run("run", "--rm", "-m", "16m", "--memory-swap", "16m", "busybox", "sh", "-c", script)
    assert (ran.returncode, ran.stdout) == (137, ""), ran.stderr


def test_oom_kill_disable_lets_a_process_wait_instead_of_dying(engine: Engine):
    """The process stands still in the kernel at its limit, and goes on once there is more memory."""
    # of awk's own: a system call that reaches the limit fails with EFAULT instead of waiting
    script = """awk 'BEGIN { s = "x"; while (length(s) < 30000000) s = s s; print "done" }'"""
    limits = ("-m", "16m", "--memory-swap", "16m", "--oom-kill-disable")
    created = engine.run("create", "--name", "aa", *limits, "busybox", "sh", "-c", script)
    if not OLD:
        assert "OomKillDisable discarded" in created.stderr
        return
    engine.docker("start", "aa")
    deadline = time.monotonic() + 10
    while "under_oom 1" not in control_of(engine, "aa", "memory", "memory.oom_control", ""):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert "oom_kill_disable 1" in control_of(engine, "aa", "memory", "memory.oom_control", "")
    engine.docker("update", "-m", "256m", "--memory-swap", "256m", "aa")
    assert engine.docker("wait", "aa") == "0"
    assert "done" in engine.docker("logs", "aa")


def test_kernel_memory_is_gone_from_the_kernel_and_the_answer_says_so(engine: Engine):
    body = '{"Image":"busybox","Cmd":["true"],"HostConfig":{"KernelMemory":10000000}}'
    status, text = engine.api("POST", "/containers/create", body)
    assert (status, "kernel memory limit" in text) == (201, True), text


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("-m", "5m"), "Minimum memory limit allowed is 6MB"),
        (("-m", "10m", "--memory-swap", "5m"), "Minimum memoryswap limit should be larger than memory limit"),
        (("--memory-swap", "10m"), "You should always set the Memory limit when using Memoryswap limit"),
        (("--memory-reservation", "1k"), "Minimum memory reservation allowed is 6MB"),
        (("-m", "10m", "--memory-reservation", "20m"), "can not be less than memory reservation limit"),
        (("--memory-swappiness", "101"), "memory swappiness range is 0-100"),
        (("--oom-score-adj", "1001"), "Invalid value 1001, range for oom score adj is [-1000, 1000]"),
        (("--cpus", "1000"), "range of CPUs is from 0.01 to"),
        (("--cpus", "1", "--cpu-quota", "1000"), "Nano CPUs and CPU Quota cannot both be set"),
        (("--cpus", "1", "--cpu-period", "1000"), "Nano CPUs and CPU Period cannot both be set"),
        (("--cpu-period", "10"), "CPU cfs period can not be less than 1ms"),
        (("--cpu-quota", "10"), "CPU cfs quota can not be less than 1ms"),
        (("--cpu-shares", "-1"), "invalid CPU shares (-1)"),
        (("--cpuset-cpus", "0-999"), "Requested CPUs are not available - requested 0-999"),
        (("--cpuset-mems", "99"), "Requested memory nodes are not available - requested 99"),
        (("--cpuset-cpus", "x"), "Invalid value x for cpuset cpus: invalid format: x"),
        (("--cpu-rt-period", "1000", "--cpu-rt-runtime", "2000"), "real-time"),
        (("--device-read-bps", "/dev/nosuch:1mb"), "stat /dev/nosuch: no such file or directory"),
        (("--device-write-iops", "/dev/null:10"), "/dev/null: not a block device"),
        (("--cpu-count", "1"), "only supported on a Docker daemon running on windows"),
        (("--cpu-percent", "1"), "only supported on a Docker daemon running on windows"),
        (("--io-maxbandwidth", "1k"), "only supported on a Docker daemon running on windows"),
        (("--io-maxiops", "1"), "only supported on a Docker daemon running on windows"),
        (("--storage-opt", "size=1g"), "supported only for overlay over xfs with 'pquota' mount option"),
        (("--storage-opt", "bogus=1"), "Unknown option bogus"),
    ],
)
def test_limits_that_cannot_be(engine: Engine, flags: tuple[str, ...], text: str):
    ran = engine.run("run", "--rm", *flags, "busybox", "true")
    assert (ran.returncode not in (0, 1) or "windows" in text, text in ran.stderr) == (True, True), ran


# ---- cpu


@pytest.mark.parametrize(
    ("flags", "controller", "old", "new", "wanted"),
    [
        (("--cpus", "0.25"), "cpu", "cpu.cfs_quota_us", "cpu.max", ("25000", "25000 100000")),
        (("--cpu-period", "50000"), "cpu", "cpu.cfs_period_us", "cpu.max", ("50000", "max 50000")),
        (("--cpu-quota", "20000"), "cpu", "cpu.cfs_quota_us", "cpu.max", ("20000", "20000 100000")),
        (("-c", "2048"), "cpu", "cpu.shares", "cpu.weight", ("2048", "174")),
        (("--cpuset-cpus", "1"), "cpuset", "cpuset.cpus", "cpuset.cpus", ("1", "1")),
        (("--cpuset-mems", "0"), "cpuset", "cpuset.mems", "cpuset.mems", ("0", "0")),
        (("--pids-limit", "77"), "pids", "pids.max", "pids.max", ("77", "77")),
        (("--pids-limit", "-1"), "pids", "pids.max", "pids.max", ("max", "max")),
    ],
)
def test_cpu_and_pids_limits(engine: Engine, flags, controller, old, new, wanted):
    assert control(engine, controller, old, new, *flags) == wanted[0 if OLD else 1]


def test_a_quota_is_all_the_cpu_there_is(engine: Engine):
    """A fifth of a CPU: the kernel throttles a busy loop, and counts that it did."""
    engine.docker("run", "-d", "--name", "aa", "--cpus", "0.2", "busybox", "sh", "-c", "while :; do :; done")
    time.sleep(0.6)
    lines = control_of(engine, "aa", "cpu", "cpu.stat", "cpu.stat").splitlines()
    counted = dict(line.split() for line in lines)
    assert int(counted["nr_throttled"]) >= 2


def test_a_container_runs_on_its_cpus_only(engine: Engine):
    script = "grep -E '^(Cpus|Mems)_allowed_list' /proc/self/status"
    out = engine.docker("run", "--rm", "--cpuset-cpus", "1", "--cpuset-mems", "0", "busybox", "sh", "-c", script)
    assert out.split() == ["Cpus_allowed_list:", "1", "Mems_allowed_list:", "0"]


def test_one_process_too_many_is_refused(engine: Engine):
    ran = engine.run("run", "--rm", "--pids-limit", "3", "busybox", "sh", "-c", "sleep 1 & sleep 1 & sleep 1 & wait")
    assert "can't fork: Resource temporarily unavailable" in ran.stderr


def test_oom_score_adj_is_the_kernels(engine: Engine):
    assert engine.docker("run", "--rm", "--oom-score-adj", "321", "busybox", "cat", "/proc/self/oom_score_adj") == "321"


# ---- real-time

RT = Path("/sys/fs/cgroup/cpu/cpu.rt_runtime_us")


def become_realtime(engine: Engine, container: str) -> None:
    """Have the first process of a container scheduled in real time; EPERM when its group has no budget."""
    pid = int(engine.docker("inspect", "-f", "{{.State.Pid}}", container))
    os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(1))


def test_real_time_needs_a_budget_of_the_group_and_of_its_parents(own_engine: Engine):
    """Version 1 with CONFIG_RT_GROUP_SCHED: a group without a budget runs no real-time process at all."""
    if not RT.exists():
        own_engine.start()
        return  # `test_without_a_budget_of_the_engine_the_error_says_what_to_do` has the answer
    own_engine.flags = ("--cpu-rt-runtime", "20000", "--cpu-rt-period", "1000000")
    own_engine.start()
    own_engine.import_busybox()
    own_engine.docker("run", "-d", "--name", "without", "busybox", "sleep", "1000")
    with pytest.raises(PermissionError):
        become_realtime(own_engine, "without")
    flags = ("--cpu-rt-runtime", "5000", "--cpu-rt-period", "500000")
    own_engine.docker("run", "-d", "--name", "with", *flags, "busybox", "sleep", "1000")
    become_realtime(own_engine, "with")
    assert control_of(own_engine, "with", "cpu", "cpu.rt_runtime_us", "") == "5000"
    assert control_of(own_engine, "with", "cpu", "cpu.rt_period_us", "") == "500000"
    ran = own_engine.run("run", "--rm", "--cpu-rt-runtime", "30000", "busybox", "true")
    assert (ran.returncode, "--cpu-rt-runtime" in ran.stderr) == (125, True), ran.stderr


def test_without_a_budget_of_the_engine_the_error_says_what_to_do(engine: Engine):
    ran = engine.run("run", "--rm", "--cpu-rt-runtime", "10000", "busybox", "true")
    wanted = "see --cpu-rt-runtime of the engine" if RT.exists() else "kernel does not support CPU real-time scheduler"
    assert (ran.returncode, wanted in ran.stderr) == (125, True), ran.stderr


# ---- block I/O


@pytest.fixture
def disk() -> Iterator[BlockDevice]:
    """A small disk of this test's own."""
    with BlockDevice(16 << 20) as made:
        yield made


@pytest.mark.parametrize(
    ("flag", "value", "old", "key"),
    [
        ("--device-read-bps", "1mb", "blkio.throttle.read_bps_device", "rbps=1048576"),
        ("--device-write-bps", "2mb", "blkio.throttle.write_bps_device", "wbps=2097152"),
        ("--device-read-iops", "100", "blkio.throttle.read_iops_device", "riops=100"),
        ("--device-write-iops", "200", "blkio.throttle.write_iops_device", "wiops=200"),
    ],
)
def test_device_rates_are_in_the_kernel(engine: Engine, disk: BlockDevice, flag: str, value: str, old: str, key: str):
    shown = control(engine, "blkio", old, "io.max", flag, f"{disk.path}:{value}")
    assert shown == f"{disk.number} {key.partition('=')[2]}" if OLD else f"{disk.number} " in shown and key in shown


@pytest.mark.parametrize(("flag", "copy"), [("read", "if=/dev/d of=/dev/null"), ("write", "if=/dev/zero of=/dev/d")])
def test_a_rate_slows_transfers_down(engine: Engine, disk: BlockDevice, flag: str, copy: str):
    """4 MiB at 4 MiB/s take about a second; the same without the limit do not."""
    script = f"dd {copy} bs=1M count=4 {'iflag=direct' if flag == 'read' else 'oflag=direct'} 2>/dev/null"
    words = ("--device", f"{disk.path}:/dev/d", "busybox", "sh", "-c", script)
    started = time.monotonic()
    engine.docker("run", "--rm", f"--device-{flag}-bps", f"{disk.path}:4mb", *words)
    assert time.monotonic() - started > 0.8


@pytest.mark.parametrize(("flag", "copy"), [("read", "if=/dev/d of=/dev/null"), ("write", "if=/dev/zero of=/dev/d")])
def test_a_number_of_operations_slows_them_down(engine: Engine, disk: BlockDevice, flag: str, copy: str):
    script = f"dd {copy} bs=4k count=40 {'iflag=direct' if flag == 'read' else 'oflag=direct'} 2>/dev/null"
    words = ("--device", f"{disk.path}:/dev/d", "busybox", "sh", "-c", script)
    started = time.monotonic()
    engine.docker("run", "--rm", f"--device-{flag}-iops", f"{disk.path}:40", *words)
    assert time.monotonic() - started > 0.6


def test_blkio_weights(engine: Engine, disk: BlockDevice):
    """The weight files are those of the BFQ scheduler: without it dockerd's warnings, with it the kernel's numbers."""
    weights = ("--blkio-weight", "300", "--blkio-weight-device", f"{disk.path}:400")
    scheduled = disk.use_scheduler("bfq")
    ran = engine.run("run", "-d", "--name", "aa", *weights, "busybox", "sleep", "1000")
    if not scheduled:
        text = "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded."
        assert (ran.returncode, text in ran.stderr, "weight_device" in ran.stderr) == (0, True, True)
        return
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "300" in control_of(engine, "aa", "blkio", "blkio.bfq.weight", "io.bfq.weight")
    device = control_of(engine, "aa", "blkio", "blkio.bfq.weight_device", "io.bfq.weight")
    assert f"{disk.number} 400" in device
    bad = engine.run("run", "--rm", "--blkio-weight", "5", "busybox", "true")
    assert "Range of blkio weight is from 10 to 1000" in bad.stderr


# ---- the place of the group


@cgroupfs
@pytest.mark.parametrize("parent", ["{tag}/a/b", "/{tag}", "{tag}.slice"])
def test_cgroup_parent(engine: Engine, parent: str):
    """A path, however deep, relative or not; with the driver cgroupfs a name that ends in ".slice" is one too."""
    wanted = parent.format(tag=f"wherry-test-parent-{engine.tag}")
    top = "/" + wanted.strip("/").partition("/")[0]
    engine.docker("run", "-d", "--name", "aa", "--cgroup-parent", wanted, "busybox", "sleep", "1000")
    full, pid = engine.docker("inspect", "-f", "{{.Id}} {{.State.Pid}}", "aa").split()
    places = Path(f"/proc/{pid}/cgroup").read_text()
    try:
        assert f":/{wanted.strip('/')}/{full}" in places
        engine.docker("exec", "aa", "true")
        engine.docker("rm", "-f", "aa")
        assert not list(Path("/sys/fs/cgroup").glob(f"*/{wanted.strip('/')}/{full}"))
    finally:
        for folder in Path("/sys/fs/cgroup").glob(f"*{top}"):
            remove_groups(folder)


def remove_groups(folder: Path) -> None:
    """Remove a group and those below it: dockerd too leaves the parents that it made."""
    for child in folder.iterdir():
        if child.is_dir():
            remove_groups(child)
    os.rmdir(folder)


@cgroupfs
def test_a_cgroup_parent_outside_of_the_hierarchy_is_refused(engine: Engine):
    ran = engine.run("run", "--rm", "--cgroup-parent", "../../a", "busybox", "true")
    assert (ran.returncode, "invalid cgroup parent '../../a'" in ran.stderr) == (125, True), ran.stderr


# ---- files and shared memory


def test_shm_size(engine: Engine):
    script = "df -k /dev/shm | awk 'END { print $2 }'; dd if=/dev/zero of=/dev/shm/x bs=1M count=3 2>&1"
    out = engine.docker("run", "--rm", "--shm-size", "2m", "busybox", "sh", "-c", f"{script}; :")
    assert out.splitlines()[0] == "2048"
    assert "No space left on device" in out


def test_ulimits(engine: Engine):
    flags = ("--ulimit", "nofile=100:200", "--ulimit", "fsize=4096", "--ulimit", "core=-1")
    out = engine.docker("run", "--rm", *flags, "busybox", "cat", "/proc/self/limits")
    limits = {line[:25].strip(): line[26:].split()[:2] for line in out.splitlines()}
    assert limits["Max open files"] == ["100", "200"]
    assert limits["Max file size"] == ["4096", "4096"]
    assert limits["Max core file size"] == ["unlimited", "unlimited"]
    ran = engine.run("run", "--rm", "--ulimit", "fsize=4096", "busybox", "sh", "-c", "head -c 5000 /dev/zero > /x")
    assert "File too large" in ran.stderr


def test_ulimit_above_the_engines_own(engine: Engine):
    ran = engine.run("run", "--rm", "--ulimit", "nofile=100:9999999999", "busybox", "true")
    assert (ran.returncode, "error setting rlimit type 7: operation not permitted" in ran.stderr) == (125, True)
