"""Which file gets which text, for both versions, without a kernel."""

from __future__ import annotations

import pytest

from wherry.kernel.cgroup import Hierarchy
from wherry.runtime import cgroups_v1, cgroups_v2
from wherry.runtime.cgroups import Cgroup, Layout, MountSources, checked_path

M = 1 << 20
HYBRID = (
    Hierarchy("/c/unified", (), unified=True),
    Hierarchy("/c/cpu,cpuacct", ("cpu", "cpuacct")),
    Hierarchy("/c/memory", ("memory",)),
    Hierarchy("/c/systemd", ("name=systemd",)),
)


@pytest.mark.parametrize(
    ("resources", "writes"),
    [
        ({}, []),
        ({"memory": {"limit": 64 * M}}, [("memory", "memory.limit_in_bytes", "67108864")]),
        (
            {"memory": {"limit": 64 * M, "swap": 128 * M}},
            [("memory", "memory.limit_in_bytes", "67108864"), ("memory", "memory.memsw.limit_in_bytes", "134217728")],
        ),
        (
            {"memory": {"limit": 64 * M, "swap": -1}},
            [("memory", "memory.memsw.limit_in_bytes", "-1"), ("memory", "memory.limit_in_bytes", "67108864")],
        ),
        (
            {"memory": {"limit": -1}},
            [("memory", "memory.memsw.limit_in_bytes", "-1"), ("memory", "memory.limit_in_bytes", "-1")],
        ),
        ({"memory": {"reservation": 32 * M}}, [("memory", "memory.soft_limit_in_bytes", "33554432")]),
        ({"memory": {"disableOOMKiller": True}}, [("memory", "memory.oom_control", "1")]),
        ({"memory": {"disableOOMKiller": False}}, []),
        ({"memory": {"swappiness": 0}}, [("memory", "memory.swappiness", "0")]),
        ({"memory": {"swappiness": -1, "kernel": 5 * M}}, []),
        ({"cpu": {"shares": 512}}, [("cpu", "cpu.shares", "512")]),
        (
            {"cpu": {"quota": 150000, "period": 100000, "burst": 1000}},
            [
                ("cpu", "cpu.cfs_period_us", "100000"),
                ("cpu", "cpu.cfs_quota_us", "150000"),
                ("cpu", "cpu.cfs_burst_us", "1000"),
            ],
        ),
        (
            {"cpu": {"realtimeRuntime": 5000, "realtimePeriod": 10000}},
            [("cpu", "cpu.rt_period_us", "10000"), ("cpu", "cpu.rt_runtime_us", "5000")],
        ),
        ({"pids": {"limit": 50}}, [("pids", "pids.max", "50")]),
        ({"pids": {"limit": -1}}, [("pids", "pids.max", "max")]),
        ({"pids": {"limit": 0}}, []),
        (
            {"blockIO": {"weight": 500, "weightDevice": [{"major": 8, "minor": 0, "weight": 200}]}},
            [("blkio", "blkio.weight", "500"), ("blkio", "blkio.weight_device", "8:0 200")],
        ),
        (
            {"blockIO": {"throttleWriteIOPSDevice": [{"major": 7, "minor": 1, "rate": 30}]}},
            [("blkio", "blkio.throttle.write_iops_device", "7:1 30")],
        ),
        (
            {"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * M}]},
            [("hugetlb", "hugetlb.2MB.limit_in_bytes", "4194304")],
        ),
        ({"network": {"classID": 7}}, [("net_cls", "net_cls.classid", "7")]),
        (
            {"network": {"priorities": [{"name": "eth0", "priority": 3}]}},
            [("net_prio", "net_prio.ifpriomap", "eth0 3")],
        ),
    ],
)
def test_version_1(resources, writes):
    assert cgroups_v1.writes(resources) == writes


def test_version_1_lowers_the_sum_last_and_raises_it_first():
    files = {"up": [], "down": []}
    for way, now in (("up", 100 * M), ("down", 500 * M)):
        found = cgroups_v1.writes({"memory": {"limit": 80 * M, "swap": 200 * M}}, swap_limit=now)
        files[way] = [file for _, file, _ in found]
    assert files["up"] == ["memory.memsw.limit_in_bytes", "memory.limit_in_bytes"]
    assert files["down"] == ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]


def test_version_1_with_bfq():
    assert cgroups_v1.writes({"blockIO": {"weight": 500}}, bfq=True) == [("blkio", "blkio.bfq.weight", "500")]


def test_version_1_has_no_unified_files():
    with pytest.raises(OSError, match="need cgroup version 2"):
        cgroups_v1.writes({"unified": {"memory.high": "1"}})


@pytest.mark.parametrize(
    ("resources", "writes"),
    [
        ({}, []),
        ({"memory": {"limit": 64 * M}}, [("memory.max", "67108864")]),
        (
            {"memory": {"limit": 64 * M, "swap": 128 * M}},
            [("memory.swap.max", "67108864"), ("memory.max", "67108864")],
        ),
        ({"memory": {"limit": 64 * M, "swap": 64 * M}}, [("memory.swap.max", "0"), ("memory.max", "67108864")]),
        ({"memory": {"limit": 64 * M, "swap": -1}}, [("memory.swap.max", "max"), ("memory.max", "67108864")]),
        ({"memory": {"limit": -1}}, [("memory.swap.max", "max"), ("memory.max", "max")]),
        ({"memory": {"reservation": 32 * M, "swappiness": 5, "disableOOMKiller": True}}, [("memory.low", "33554432")]),
        ({"cpu": {"quota": 150000, "period": 100000}}, [("cpu.max", "150000 100000")]),
        ({"cpu": {"quota": 5000}}, [("cpu.max", "5000 100000")]),
        ({"cpu": {"quota": -1}}, [("cpu.max", "max 100000")]),
        ({"cpu": {"period": 50000}}, [("cpu.max", "max 50000")]),
        (
            {"cpu": {"quota": 5000, "burst": 100, "cpus": "0-1", "mems": "0", "idle": 1}},
            [
                ("cpu.idle", "1"),
                ("cpu.max", "5000 100000"),
                ("cpu.max.burst", "100"),
                ("cpuset.cpus", "0-1"),
                ("cpuset.mems", "0"),
            ],
        ),
        ({"pids": {"limit": 50}}, [("pids.max", "50")]),
        ({"pids": {"limit": -1}}, [("pids.max", "max")]),
        ({"blockIO": {"weight": 1000}}, [("io.weight", "default 10000")]),
        ({"blockIO": {"weight": 10}}, [("io.weight", "default 1")]),
        (
            {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 10}]}},
            [("io.weight", "8:0 1")],
        ),
        (
            {"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1024}]}},
            [("io.max", "8:0 rbps=1024")],
        ),
        (
            {"blockIO": {"throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 0}]}},
            [("io.max", "8:0 wiops=max")],
        ),
        ({"hugepageLimits": [{"pageSize": "1GB", "limit": 0}]}, [("hugetlb.1GB.max", "0")]),
        ({"unified": {"memory.high": "1000"}}, [("memory.high", "1000")]),
    ],
)
def test_version_2(resources, writes):
    assert cgroups_v2.writes(resources) == writes


@pytest.mark.parametrize(
    ("resources", "text"),
    [
        ({"unified": {"cgroup.procs": "1"}}, "not the file of a controller"),
        ({"unified": {"../memory.max": "1"}}, "not the file of a controller"),
        ({"unified": {"cgroup.subtree_control": "+cpu"}}, "not the file of a controller"),
        ({"memory": {"swap": 5}}, "needs a memory limit"),
        ({"memory": {"limit": 64 * M, "swap": 32 * M}}, "below the memory limit"),
        ({"cpu": {"realtimeRuntime": 5}}, "need cgroup version 1"),
    ],
)
def test_version_2_refuses(resources, text):
    with pytest.raises(OSError, match=text):
        cgroups_v2.writes(resources)


@pytest.mark.parametrize(
    ("shares", "weight"), [(2, 1), (1, 1), (1024, 100), (262144, 10000), (500000, 10000), (2048, 174), (102, 17)]
)
def test_weight_from_shares(shares, weight):
    assert cgroups_v2.weight_from_shares(shares) == weight


def test_weight_never_falls():
    weights = [cgroups_v2.weight_from_shares(shares) for shares in range(2, 262145, 97)]
    assert weights == sorted(weights)


def test_version_2_with_bfq():
    assert cgroups_v2.writes({"blockIO": {"weight": 500}}, bfq=True) == [("io.bfq.weight", "default 500")]


def test_controllers_needed():
    found = cgroups_v2.writes({"memory": {"limit": M}, "cpu": {"shares": 5, "cpus": "0"}, "pids": {"limit": 1}})
    assert cgroups_v2.controllers(found) == {"memory", "cpu", "cpuset", "pids"}


def test_hybrid_uses_version_1():
    layout = Layout.of(HYBRID)
    assert layout.version == 1
    # the unified hierarchy limits nothing here, and moving a process into a group of it waits for RCU
    assert Cgroup.open("/wherry/x", layout=layout).directories == (
        "/c/cpu,cpuacct/wherry/x",
        "/c/memory/wherry/x",
        "/c/systemd/wherry/x",
    )


def test_mounts_of_version_1():
    """Controllers that are mounted together get links."""
    assert Cgroup.open("x", layout=Layout.of(HYBRID)).mount_sources() == MountSources(
        1,
        (("cpu,cpuacct", "/c/cpu,cpuacct/x"), ("memory", "/c/memory/x"), ("systemd", "/c/systemd/x")),
        (("cpu", "cpu,cpuacct"), ("cpuacct", "cpu,cpuacct")),
    )


def test_mounts_of_version_2():
    layout = Layout.of((Hierarchy("/sys/fs/cgroup", ("cpu", "memory"), unified=True),))
    assert layout.version == 2
    assert Cgroup.open("/a/b", layout=layout).mount_sources() == MountSources(2, (("", "/sys/fs/cgroup/a/b"),))


def test_no_hierarchy():
    with pytest.raises(OSError, match="no cgroup hierarchy"):
        Layout.of(())


@pytest.mark.parametrize(("given", "path"), [("/a/b", "/a/b"), ("a/b/", "/a/b"), ("//a", "/a")])
def test_paths(given, path):
    assert checked_path(given) == path


@pytest.mark.parametrize("path", ["", "/", "/a/../b", "..", "/a//b", "/a/./b", "/a\0", "/" + "x" * 256])
def test_paths_that_leave(path):
    with pytest.raises(OSError, match="not a path"):
        checked_path(path)
