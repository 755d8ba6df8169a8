"""docker update: what it changes is read from the kernel."""

import os
from pathlib import Path

import pytest

from tests.engine import Engine

pytestmark = [pytest.mark.root, pytest.mark.engine]

V1 = not Path("/sys/fs/cgroup/cgroup.controllers").exists()


def file_of(engine: Engine, name: str, controller: str, v1: str, v2: str) -> Path:
    """Return the file of a container's control group that holds a limit."""
    container = engine.docker("inspect", "-f", "{{.Id}}", name)
    middle = f"/{controller}" if V1 else ""
    return Path(f"/sys/fs/cgroup{middle}{engine.group(container)}/{v1 if V1 else v2}")


def limit(engine: Engine, name: str, *place: str) -> str:
    return file_of(engine, name, *place).read_text().strip()


MEMORY = ("memory", "memory.limit_in_bytes", "memory.max")
PIDS = ("pids", "pids.max", "pids.max")
CPUS = ("cpuset", "cpuset.cpus", "cpuset.cpus")


def test_limits_of_a_running_container(engine: Engine):
    engine.docker("run", "-d", "--name", "aa", "-m", "64m", "--memory-swap", "128m", "busybox", "sleep", "1000")
    engine.docker("update", "-m", "96m", "--pids-limit", "20", "--cpuset-cpus", "0", "aa")
    assert limit(engine, "aa", *MEMORY) == str(96 << 20)
    assert limit(engine, "aa", *PIDS) == "20"
    assert limit(engine, "aa", *CPUS) == "0"
    engine.docker("update", "-m", "256m", "--memory-swap", "512m", "aa")
    assert limit(engine, "aa", *MEMORY) == str(256 << 20)
    engine.docker("update", "-m", "32m", "--memory-swap", "48m", "--pids-limit", "-1", "aa")
    assert limit(engine, "aa", *MEMORY) == str(32 << 20)
    assert limit(engine, "aa", *PIDS) == "max"
    engine.docker("update", "--cpus", "0.5", "--cpu-shares", "512", "aa")
    quota = limit(engine, "aa", "cpu", "cpu.cfs_quota_us", "cpu.max").split()[0]
    assert quota == "50000"
    shown = engine.docker("inspect", "-f", "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}", "aa")
    assert shown == f"{32 << 20} 500000000"
    engine.docker("restart", "-t", "0", "aa")
    assert limit(engine, "aa", *MEMORY) == str(32 << 20)


def test_what_is_not_asked_for_stays(engine: Engine):
    engine.docker("run", "-d", "--name", "aa", "-m", "64m", "--pids-limit", "30", "busybox", "sleep", "1000")
    engine.docker("update", "--cpu-shares", "200", "aa")
    assert limit(engine, "aa", *MEMORY) == str(64 << 20)
    assert limit(engine, "aa", *PIDS) == "30"


def test_a_new_limit_holds(engine: Engine):
    engine.docker("run", "-d", "--name", "aa", "busybox", "sleep", "1000")
    engine.docker("update", "--pids-limit", "3", "aa")
    ran = engine.run("exec", "aa", "sh", "-c", "sleep 5 & sleep 5 & sleep 5 & wait")
    assert "Resource temporarily unavailable" in ran.stderr


def test_a_container_at_rest_gets_them_at_its_start(engine: Engine):
    engine.docker("create", "--name", "aa", "busybox", "sleep", "1000")
    engine.docker("update", "-m", "64m", "--memory-swap", "64m", "aa")
    engine.docker("start", "aa")
    assert limit(engine, "aa", *MEMORY) == str(64 << 20)


@pytest.mark.parametrize(
    ("made", "words", "text"),
    [
        ((), ("-m", "1k"), "Minimum memory limit allowed is 6MB"),
        ((), ("-m", "64m"), "Memory limit should be smaller than already set memoryswap limit, update the memoryswap"),
        (("--cpus", "1"), ("--cpu-period", "1000"), "CPU Period cannot be updated as NanoCPUs has already been set"),
        (("--cpu-quota", "5000"), ("--cpus", "1"), "Nano CPUs cannot be updated as CPU Quota has already been set"),
        ((), ("--cpuset-cpus", "77"), "Requested CPUs are not available - requested 77, available:"),
        ((), ("--restart", "on-failure:-2"), "maximum retry count cannot be negative"),
        (("--rm",), ("--restart", "always"), "Restart policy cannot be updated because AutoRemove is enabled"),
    ],
)
def test_what_cannot_be(engine: Engine, made, words, text):
    engine.docker("run", "-d", "--name", "aa", *made, "busybox", "sleep", "1000")
    before = engine.docker("inspect", "-f", "{{json .HostConfig}}", "aa")
    ran = engine.run("update", *words, "aa")
    assert (ran.returncode, text in ran.stderr) == (1, True), ran.stderr
    assert engine.docker("inspect", "-f", "{{json .HostConfig}}", "aa") == before


@pytest.mark.skipif(not V1, reason="memory.max of version 2 is never refused: the kernel reclaims and kills")
def test_what_the_kernel_refuses_changes_nothing(engine: Engine):
    engine.docker("run", "-d", "--name", "aa", "-m", "128m", "--memory-swap", "128m", "busybox", "sh", "-c",
                  "dd if=/dev/zero of=/dev/shm/x bs=1M count=40; sleep 1000")  # fmt: skip
    while "x" not in engine.docker("exec", "aa", "ls", "/dev/shm") or (
        int(file_of(engine, "aa", "memory", "memory.usage_in_bytes", "memory.current").read_text()) < 40 << 20
    ):
        pass
    ran = engine.run("update", "-m", "8m", "--memory-swap", "8m", "aa")
    assert "Cannot update container" in ran.stderr
    assert limit(engine, "aa", *MEMORY) == str(128 << 20)
    assert engine.docker("inspect", "-f", "{{.HostConfig.Memory}}", "aa") == str(128 << 20)


def test_the_restart_policy(engine: Engine):
    engine.docker("run", "-d", "--name", "aa", "busybox", "sleep", "1000")
    engine.docker("update", "--restart", "always", "aa")
    first = engine.docker("inspect", "-f", "{{.State.Pid}}", "aa")
    os.kill(int(first), 9)
    assert engine.docker("events", "--since", "1", "--until", "0s", "--filter", "container=aa") is not None
    for _ in range(200):
        pid = engine.docker("inspect", "-f", "{{.State.Pid}}", "aa")
        if pid not in ("0", first):
            return
    raise AssertionError("it was not started again")
