"""Control groups in the kernel: version 1 as this machine has it, and version 2 on a hierarchy without controllers."""

from __future__ import annotations

import errno
import os
import signal
import statistics
import time
import uuid
from contextlib import contextmanager

import pytest

from wherry.kernel import bpf_device, cgroup
from wherry.oci.devices import DEFAULT_RULES
from wherry.runtime import cgroups
from wherry.runtime.cgroups import Cgroup, Layout
from wherry.runtime.cgroups_devices import permissions

pytestmark = pytest.mark.root

version_1 = pytest.mark.skipif(cgroups.detect().version == 2, reason="limits are version 2's on this machine")
M = 1 << 20
PARENT = "/wherry-cgroups"


@pytest.fixture(params=["machine", "unified"])
def layout(request):
    """The machine's own layout, and a version 2 hierarchy alone."""
    if request.param == "machine":
        return cgroups.detect()
    new = [each for each in cgroup.hierarchies() if each.unified]
    if not new:
        pytest.skip("no cgroup2 file system is mounted")
    return Layout(2, (new[0],))


@pytest.fixture
def path():
    name = f"{PARENT}/{uuid.uuid4().hex}"
    yield name
    for each in (cgroups.detect(), *(Layout(2, (found,)) for found in cgroup.hierarchies() if found.unified)):
        left = Cgroup.open(name, layout=each)
        left.kill()
        left.remove()
        cgroups.remove_empty(PARENT, layout=each)


@contextmanager
def member(group, work=signal.pause):
    """A child that is in the group and then does its work; yields its pid."""
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            group.join()
            os.write(tell, b"x")
            work()
        finally:
            os._exit(0)
    os.close(tell)
    try:
        assert os.read(ready, 1) == b"x"
        yield pid
    finally:
        os.close(ready)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def in_member(group, action):
    """What action() returns, as text, in a child that is in the group."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            group.join()
            os.write(writer, str(action()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        text = file.read()
    os.waitpid(pid, 0)
    return text


def groups_of(pid):
    with open(f"/proc/{pid}/cgroup", encoding="ascii") as file:
        return [line.strip().split(":", 2) for line in file]


def version_1_file(group, controller, name):
    for hierarchy, directory in zip(cgroups.detect().hierarchies, group.directories, strict=True):
        if controller in hierarchy.controllers:
            return cgroup.read(f"{directory}/{name}").strip()
    return pytest.skip(f"{controller} is not a version 1 controller here")


def test_made_joined_and_removed(layout, path):
    group = Cgroup.create(path, {}, layout=layout)
    with member(group) as pid:
        assert group.pids() == [pid]
        inside = [line for line in groups_of(pid) if line[2] == path]
        assert len(inside) == len(layout.hierarchies)
    group.remove()
    assert not any(os.path.exists(directory) for directory in group.directories)
    group.remove()
    assert group.pids() == []


@version_1
def test_limits_of_version_1(path):
    group = Cgroup.create(path, {
        "memory": {"limit": 64 * M, "swap": 96 * M, "reservation": 32 * M, "swappiness": 5, "disableOOMKiller": True},
        "cpu": {"shares": 512, "quota": 150000, "period": 100000, "cpus": "0"},
        "pids": {"limit": 50},
    })  # fmt: skip
    shown = {
        name: version_1_file(group, name.partition(".")[0], name)
        for name in (
            "memory.limit_in_bytes",
            "memory.memsw.limit_in_bytes",
            "memory.soft_limit_in_bytes",
            "memory.swappiness",
            "cpu.shares",
            "cpu.cfs_quota_us",
            "cpu.cfs_period_us",
            "cpuset.cpus",
            "cpuset.mems",
            "pids.max",
        )
    }
    assert shown == {
        "memory.limit_in_bytes": str(64 * M),
        "memory.memsw.limit_in_bytes": str(96 * M),
        "memory.soft_limit_in_bytes": str(32 * M),
        "memory.swappiness": "5",
        "cpu.shares": "512",
        "cpu.cfs_quota_us": "150000",
        "cpu.cfs_period_us": "100000",
        "cpuset.cpus": "0",
        "cpuset.mems": "0",
        "pids.max": "50",
    }
    assert "oom_kill_disable 1" in version_1_file(group, "memory", "memory.oom_control")


@version_1
def test_update_up_and_down(path):
    group = Cgroup.create(path, {"memory": {"limit": 64 * M, "swap": 64 * M}})
    for limit, swap in ((256, 512), (32, 32), (128, -1), (16, 64)):
        group.update({"memory": {"limit": limit * M, "swap": swap if swap < 0 else swap * M}})
        assert version_1_file(group, "memory", "memory.limit_in_bytes") == str(limit * M)
        if swap > 0:
            assert version_1_file(group, "memory", "memory.memsw.limit_in_bytes") == str(swap * M)


def test_devices_stay_when_other_limits_change(path):
    group = Cgroup.create(path, {"devices": list(DEFAULT_RULES)})
    before = version_1_file(group, "devices", "devices.list")
    group.update({"pids": {"limit": 7}})
    assert version_1_file(group, "devices", "devices.list") == before
    assert len(before.splitlines()) == 12


@version_1
def test_a_cpuset_inherits_through_parents_made_for_it(path):
    group = Cgroup.create(path + "/a/b", {})
    assert version_1_file(group, "cpuset", "cpuset.cpus") == version_1_file(
        Cgroup.open(PARENT), "cpuset", "cpuset.cpus"
    )
    assert version_1_file(group, "cpuset", "cpuset.mems")


@version_1
@pytest.mark.parametrize(
    ("resources", "name"),
    [
        ({"memory": {"limit": 64 * M, "swap": 32 * M}}, "memory.memsw.limit_in_bytes"),
        ({"cpu": {"cpus": "4000"}}, "cpuset.cpus"),
        ({"cpu": {"quota": 1}}, "cpu.cfs_quota_us"),
        ({"hugepageLimits": [{"pageSize": "3KB", "limit": 1}]}, "hugetlb.3KB.limit_in_bytes"),
        ({"devices": [{"allow": True, "type": "q"}]}, "devices"),
    ],
)
def test_all_or_nothing(path, resources, name):
    with pytest.raises(OSError, match=r".") as refused:
        Cgroup.create(path, resources)
    assert str(refused.value.filename).endswith(name)
    assert not any(os.path.exists(directory) for directory in Cgroup.open(path).directories)


def test_what_a_dead_container_left_is_replaced(layout, path):
    Cgroup.create(path, {}, layout=layout)
    group = Cgroup.create(path, {}, layout=layout)
    with member(group), pytest.raises(OSError, match="busy") as refused:
        Cgroup.create(path, {}, layout=layout)
    assert refused.value.errno == errno.EBUSY
    assert all(os.path.exists(directory) for directory in group.directories)


def test_kill_reaches_children_and_groups_below(layout, path):
    def fork_more():
        os.fork()
        os.fork()
        signal.pause()

    group = Cgroup.create(path, {}, layout=layout)
    below = Cgroup.open(path + "/below", layout=layout)
    if layout.version == 2:
        # not by create, which would hand controllers down and so forbid processes in the group itself
        os.mkdir(below.directories[0])
    else:
        below = Cgroup.create(path + "/below", {}, layout=layout)
    with member(group, fork_more), member(below):
        deadline = time.monotonic() + 5
        while len(group.pids()) < 5 and time.monotonic() < deadline:
            time.sleep(0.005)
        assert len(group.pids()) == 5
        group.kill()
        group.remove()
    assert not any(os.path.exists(directory) for directory in group.directories)


def test_kill_outruns_a_fork_bomb(layout, path):
    def bomb():
        while True:
            try:
                if os.fork():
                    continue
            except BlockingIOError:
                continue

    limit = {"pids": {"limit": 100}} if layout.version == 1 else {}
    group = Cgroup.create(path, limit, layout=layout)
    with member(group, bomb) if limit else member(group):
        time.sleep(0.05)
        group.kill()
        group.remove()
    assert not any(os.path.exists(directory) for directory in group.directories)


def test_freeze_stops_and_kill_ends_the_frozen(layout, path):
    group = Cgroup.create(path, {}, layout=layout)
    reader, writer = os.pipe()

    def count():
        while True:
            os.write(writer, b"x")
            time.sleep(0.001)

    with member(group, count) as pid:
        assert os.read(reader, 1) == b"x"
        assert not group.frozen()
        group.freeze()
        assert group.frozen()
        os.write(writer, b"x")  # something to read, however few were written
        os.set_blocking(reader, False)
        os.read(reader, 65536)
        time.sleep(0.02)
        with pytest.raises(BlockingIOError):
            os.read(reader, 65536)
        group.thaw()
        assert not group.frozen()
        os.set_blocking(reader, True)
        assert os.read(reader, 1) == b"x"
        group.freeze()
        group.kill()
        assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT).si_status == signal.SIGKILL
    os.close(reader)
    os.close(writer)


def test_the_oom_killer_is_counted(path):
    group = Cgroup.create(path, {"memory": {"limit": 8 * M, "swap": 8 * M}})
    assert group.oom_kills() == 0
    with member(group, lambda: bytearray(64 * M)) as pid:
        assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT).si_status == signal.SIGKILL
    assert group.oom_kills() == 1


def test_processes_beyond_the_limit_cannot_start(path):
    group = Cgroup.create(path, {"pids": {"limit": 1}})

    def fork():
        try:
            pid = os.fork()
        except OSError as error:
            return error.errno
        os._exit(0) if pid == 0 else os.waitpid(pid, 0)
        return 0

    assert in_member(group, fork) == str(errno.EAGAIN)


def device_access(folder):
    """Which accesses work from inside: opening nodes and making them."""
    found = {}
    for kind, major, minor in (("c", 1, 3), ("c", 1, 7), ("c", 1, 1), ("c", 1, 11), ("c", 10, 229), ("b", 7, 0)):
        node = f"{folder}/{kind}{major}-{minor}-{os.getpid()}"
        mode = 0o600 | (0o020000 if kind == "c" else 0o060000)
        try:
            os.mknod(node, mode, os.makedev(major, minor))
        except OSError as error:
            found[f"{kind} {major}:{minor}"] = f"mknod {errno.errorcode[error.errno]}"
            continue
        try:
            os.close(os.open(node, os.O_RDONLY))
            found[f"{kind} {major}:{minor}"] = "open"
        except OSError as error:
            found[f"{kind} {major}:{minor}"] = errno.errorcode[error.errno]
        os.unlink(node)
    return found


def test_devices_from_inside(layout, path, tmp_path):
    """RT-16: any node can be made, but only those of every container opened."""
    group = Cgroup.create(path, {"devices": list(DEFAULT_RULES)}, layout=layout)
    assert in_member(group, lambda: device_access(tmp_path)) == str(
        {
            "c 1:3": "open",
            "c 1:7": "open",
            "c 1:1": "EPERM",
            "c 1:11": "EPERM",
            "c 10:229": "EPERM",
            "b 7:0": "EPERM",
        }
    )


def test_devices_of_a_privileged_container(layout, path, tmp_path):
    rules = [*DEFAULT_RULES, {"allow": True, "access": "rwm"}]
    group = Cgroup.create(path, {"devices": rules}, layout=layout)
    seen = in_member(group, lambda: device_access(tmp_path))
    assert "EPERM" not in seen
    assert "'c 1:11': 'open'" in seen


def test_devices_without_rules(layout, path, tmp_path):
    """Only what no container can be without."""
    group = Cgroup.create(path, {}, layout=layout)
    seen = in_member(group, lambda: device_access(tmp_path))
    assert "'c 1:3': 'open'" in seen
    assert "'c 1:11': 'EPERM'" in seen


def test_the_program_is_replaced_in_place(path):
    """One program after any number of updates, and a stricter one takes effect for those who are in already."""
    new = [each for each in cgroup.hierarchies() if each.unified]
    if not new:
        pytest.skip("no cgroup2 file system is mounted")
    layout = Layout(2, (new[0],))
    group = Cgroup.create(path, {"devices": [{"allow": True}]}, layout=layout)
    reader, writer = os.pipe()
    go, tell = os.pipe()

    def watch():
        for _ in range(2):
            os.read(go, 1)
            try:
                os.close(os.open("/dev/kmsg", os.O_RDONLY))
                os.write(writer, b"1")
            except OSError:
                os.write(writer, b"0")

    with member(group, watch):
        os.write(tell, b"x")
        assert os.read(reader, 1) == b"1"
        group.update({"devices": list(DEFAULT_RULES)})
        group.update({"devices": list(DEFAULT_RULES)})
        os.write(tell, b"x")
        assert os.read(reader, 1) == b"0"
        directory = os.open(group.directories[0], os.O_RDONLY)
        assert len(bpf_device.attached(directory)) == 1
        os.close(directory)
    for descriptor in (reader, writer, go, tell):
        os.close(descriptor)


def test_the_verifier_takes_long_programs_at_once():
    rules = [
        {"allow": False},
        *({"allow": True, "type": "c", "major": n, "minor": n, "access": "rw"} for n in range(1500)),
    ]
    state = permissions(rules)
    start = time.perf_counter()
    os.close(bpf_device.load(bpf_device.program(state.allow_all, list(state.entries.items()))))
    assert time.perf_counter() - start < 1


def test_version_2_hands_controllers_down(path):
    """On a hierarchy that has none there is nothing to hand down, and a limit says so."""
    new = [each for each in cgroup.hierarchies() if each.unified]
    if not new or "memory" in new[0].controllers:
        pytest.skip("needs a cgroup2 hierarchy without the memory controller")
    with pytest.raises(OSError, match="No such file") as refused:
        Cgroup.create(path, {"memory": {"limit": 64 * M}}, layout=Layout(2, (new[0],)))
    assert str(refused.value.filename).endswith("/memory.max")


def test_an_unknown_group_is_not_an_error(path):
    group = Cgroup.open(path)
    group.kill()
    group.remove()
    assert (group.pids(), group.frozen()) == ([], False)
    cgroups.remove_empty(path)


def test_the_cost_of_a_group(path):
    """Made and removed in some hundred microseconds; ten times that would be felt at every start."""
    Cgroup.create(PARENT + "/warm", {}).remove()
    times = []
    for _ in range(20):
        start = time.perf_counter()
        Cgroup.create(path, {"devices": list(DEFAULT_RULES)}).remove()
        times.append(time.perf_counter() - start)
    assert statistics.median(times) < 0.005
