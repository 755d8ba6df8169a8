"""The order of a set-up, and what is refused before anything happens."""

import stat
from itertools import pairwise

import pytest

from tests.kernel.boxes import default_spec, mount
from wherry.kernel import const
from wherry.runtime.cgroups import MountSources
from wherry.runtime.mounts import Mount
from wherry.runtime.ops_mounts import BindMount, MountCgroups, MountFilesystem
from wherry.runtime.ops_namespaces import JoinGivenNetwork, JoinNamespaces, NewNamespaces, SetOomScore
from wherry.runtime.ops_process import Execute
from wherry.runtime.ops_rootfs import FinishRoot, MakeDevices, MakeTerminal
from wherry.runtime.plan import clean, plan_container, plan_exec, sysctl_path
from wherry.runtime.setup import SetupError
from wherry.runtime.sources import OpenSources

ROOTFS = (Mount("overlay", "overlay", "", ("lowerdir=/l", "upperdir=/u", "workdir=/w")),)
V1 = MountSources(1, (("cpu,cpuacct", "/h/cpu,cpuacct/x"), ("memory", "/h/memory/x")), (("cpu", "cpu,cpuacct"),))
V2 = MountSources(2, (("", "/sys/fs/cgroup/x"),))


def plan(spec, **changes):
    wanted = {"given_network": False, "session": "_ses.x", "hooks": False} | changes
    return plan_container(spec, ROOTFS, wanted.pop("cgroups", V1), **wanted)


def names(steps):
    return [type(step).__name__ for step in steps]


def one(steps, kind):
    (found,) = [step for step in steps if isinstance(step, kind)]
    return found


@pytest.fixture
def spec():
    return default_spec("/place", "sh")


def test_order_of_a_default_container(spec):
    assert names(plan(spec)) == [
        "JoinCgroup", "NewNamespaces", "SetNames", "OpenProcfs", "KeepMounts", "WriteSysctls", "SetOomScore",
        "OpenSources", "StopPropagation", "MountRoot", "Pivot",
        "MountFilesystem", "MountFilesystem", "MountFilesystem", "MountFilesystem", "MountCgroups", "MountFilesystem",
        "MountFilesystem", "MakeDevices", "MakeWorkingDirectory", "ReadonlyPaths", "MaskPaths", "JoinKeyring",
        "InstallStdio", "Identify", "ChangeDirectory", "BecomeUser", "FindProgram", "WaitForStart", "Execute",
    ]  # fmt: skip


def test_everything_of_the_host_is_opened_before_the_pivot(spec):
    spec["mounts"].append(mount("/data", "bind", "/host", ["rbind"]))
    order = names(plan(spec))
    assert order.index("OpenSources") < order.index("MountRoot") < order.index("Pivot") < order.index("BindMount")


def test_hooks_see_the_mounts_before_the_pivot(spec):
    order = names(plan(spec, hooks=True))
    assert order.index("MountCgroups") < order.index("AwaitHooks") < order.index("Pivot") < order.index("MaskPaths")


def test_filter_and_capabilities_come_last(spec):
    order = names(plan(spec))
    assert order[-4:] == ["BecomeUser", "FindProgram", "WaitForStart", "Execute"]


def test_pid_and_time_belong_to_the_parent(spec):
    assert one(plan(spec), NewNamespaces).kinds == ("mount", "network", "uts", "ipc")


def test_a_given_network_replaces_that_of_the_spec(spec):
    steps = plan(spec, given_network=True)
    assert one(steps, JoinGivenNetwork)
    assert one(steps, NewNamespaces).kinds == ("mount", "uts", "ipc")


def test_paths_are_joined_before_the_others_are_made(spec):
    spec["linux"]["namespaces"] = [
        {"type": "mount"}, {"type": "ipc", "path": "/i"}, {"type": "pid", "path": "/p"}, {"type": "uts"},
    ]  # fmt: skip
    del spec["linux"]["sysctl"]
    steps = plan(spec)
    assert one(steps, JoinNamespaces).paths == (("ipc", "/i"),)
    assert one(steps, NewNamespaces).kinds == ("mount", "uts")


def test_binds_are_numbered_with_their_sources(spec):
    spec["mounts"] = [
        mount("/a", "bind", "/1", ["rbind", "ro"]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", ["ro"]),
        mount("/b/../c/", "none", "/2", ["bind"]),
    ]
    steps = plan(spec)
    sources = {key: (path, deep) for key, path, _, deep in one(steps, OpenSources).sources}
    assert sources == {
        0: ("/1", True), 1: ("/h/cpu,cpuacct/x", False), 2: ("/h/memory/x", False), 3: ("/2", False),
    }  # fmt: skip
    binds = [(step.key, step.target) for step in steps if isinstance(step, BindMount)]
    assert binds == [(0, "/a"), (3, "/c")]
    assert one(steps, MountCgroups).first_key == 1


def test_version_2_is_mounted_anew_in_a_namespace_of_its_own(spec):
    assert one(plan(spec, cgroups=V2), OpenSources).sources[0][1] == "/sys/fs/cgroup/x"
    spec["linux"]["namespaces"].append({"type": "cgroup"})
    steps = plan(spec, cgroups=V2)
    assert "OpenSources" not in names(steps)
    assert one(steps, MountCgroups).own


def test_devices_of_every_container_are_not_made_twice(spec):
    spec["linux"]["devices"] = [
        {"path": "/dev/null", "type": "c", "major": 1, "minor": 3},
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o100600, "gid": 3},
    ]
    devices = {device.path: device for device in one(plan(spec), MakeDevices).devices}
    assert len(devices) == 7
    assert (devices["/dev/fuse"].mode, devices["/dev/fuse"].gid) == (stat.S_IFCHR | 0o600, 3)


def test_a_bound_dev_is_left_alone(spec):
    spec["mounts"].append(mount("/dev", "bind", "/dev", ["rbind"]))
    assert "MakeDevices" not in names(plan(spec))


def test_terminal_is_the_console_of_the_container_only(spec):
    spec["process"]["terminal"] = True
    spec["process"]["consoleSize"] = {"height": 3, "width": 4}
    assert one(plan(spec), MakeTerminal) == MakeTerminal(3, 4, True)
    assert one(plan_exec({**spec["process"]}, spec, session="s"), MakeTerminal) == MakeTerminal(3, 4, False)


def test_root_attributes(spec):
    spec["root"]["readonly"] = True
    spec["linux"]["rootfsPropagation"] = "rshared"
    assert one(plan(spec), FinishRoot) == FinishRoot(True, const.MS_SHARED)


def test_with_a_user_namespace_the_host_is_left_last(spec):
    ids = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    spec["linux"]["namespaces"].append({"type": "user"})
    spec["linux"].update(uidMappings=ids, gidMappings=ids)
    spec["mounts"].append({"type": "bind", "source": "/srv", "destination": "/srv", "options": ["bind"]})
    steps = names(plan(spec))
    assert steps[1] == "OpenUserNamespace"
    order = ("EnterHostMounts", "OwnNamespaces", "OpenSources", "StopPropagation", "BecomeUser")
    for earlier, later in pairwise(order):
        assert steps.index(earlier) < steps.index(later)
    assert "NewNamespaces" not in steps


def test_exec_takes_over_what_it_does_not_say(spec):
    spec["process"]["noNewPrivileges"] = True
    steps = plan_exec({"args": ["ls"], "oomScoreAdj": 5, "user": {"uid": 0}}, spec, session="s")
    assert names(steps)[:3] == ["JoinCgroup", "EnterContainer", "OpenProcfs"]
    assert one(steps, SetOomScore).score == 5
    last = one(steps, Execute)
    assert last.no_new_privileges
    assert last.permitted == 0xA80425FB


def test_exec_without_writes_needs_no_procfs(spec):
    del spec["process"]["oomScoreAdj"]
    assert "OpenProcfs" not in names(plan_exec({"args": ["ls"]}, spec, session=""))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda spec: spec["linux"]["namespaces"].append({"type": "user"}), r"needs linux\.uidMappings"),
        (lambda spec: spec["linux"].update(namespaces=[{"type": "pid"}]), "mount namespace of its own"),
        (lambda spec: spec["process"].update(args=[]), "args must not be empty"),
        (lambda spec: spec["process"].update(rlimits=[{"type": "RLIMIT_X", "soft": 1, "hard": 1}]), "RLIMIT_X"),
        (lambda spec: spec["linux"].update(devices=[{"path": "/dev/x", "type": "q"}]), "type of device: q"),
    ],
)
def test_refused(spec, change, text):
    change(spec)
    with pytest.raises(SetupError, match=text):
        plan(spec)


@pytest.mark.parametrize(
    "key",
    [
        "kernel.core_pattern", "vm.swappiness", "kernel.hostname", "net/../kernel/core_pattern", "net/./x", "net//x",
        "net.ipv4/../../kernel/x", "", "fs.file-max", "netx.y", "/net/x", "kernel.shm_next_id",
    ],
)  # fmt: skip
def test_sysctls_of_the_host(spec, key):
    spec["linux"]["sysctl"] = {key: "1"}
    with pytest.raises(SetupError, match="not in a separate kernel namespace"):
        plan(spec)


@pytest.mark.parametrize(("kind", "key"), [("network", "net.a"), ("ipc", "kernel.sem"), ("ipc", "fs.mqueue.x")])
def test_sysctls_need_their_namespace(spec, kind, key):
    spec["linux"]["sysctl"] = {key: "1"}
    assert "WriteSysctls" in names(plan(spec))
    spec["linux"]["namespaces"] = [each for each in spec["linux"]["namespaces"] if each["type"] != kind]
    with pytest.raises(SetupError):
        plan(spec)


@pytest.mark.parametrize(
    ("key", "path"),
    [("net.ipv4.conf.eth0/1.x", "net/ipv4/conf/eth0.1/x"), ("net/ipv4/conf/eth0.1/x", "net/ipv4/conf/eth0.1/x")],
)
def test_separators_of_sysctls(key, path):
    assert sysctl_path(key) == path


@pytest.mark.parametrize(
    ("path", "result"), [("a/../../b", "/b"), ("//a//b/.", "/a/b"), ("", "/"), ("..", "/"), ("/a/b/", "/a/b")]
)
def test_clean(path, result):
    assert clean(path) == result


def test_every_step_says_what_it_does(spec):
    spec["root"]["readonly"] = True
    spec["process"]["terminal"] = True
    spec["mounts"].append(mount("/data", "bind", "/host", []))
    for step in (*plan(spec, hooks=True), *plan_exec(spec["process"], spec, session="s")):
        assert step.describe()
        assert step.phase in ("cgroup", "namespaces", "rootfs", "process", "user", "exec")


def test_filesystems_keep_their_order(spec):
    targets = [step.target for step in plan(spec) if isinstance(step, MountFilesystem | MountCgroups)]
    assert targets == ["/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm"]
