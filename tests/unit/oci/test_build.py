"""The runtime spec of a container. The expected forms are those of dockerd 28.5's config.json."""

from __future__ import annotations

import errno

import msgspec
import pytest

from wherry.errors import InvalidArgument, SystemFailure
from wherry.models.container import ContainerConfig, HostConfig, Ulimit
from wherry.oci.build import SpecRequest, build_spec
from wherry.oci.capabilities import ALL, DEFAULT
from wherry.oci.host import Device, HostFacts
from wherry.runtime.mounts import Mount

M = 1 << 20
FACTS = HostFacts()
HOST_DEVICES = {
    "/dev/fuse": Device("/dev/fuse", "c", 10, 229, 0o600, 0, 7),
    "/dev/snd/a": Device("/dev/snd/a", "c", 116, 1),
    "/dev/snd/b": Device("/dev/snd/b", "c", 116, 2),
    "/dev/sda": Device("/dev/sda", "b", 8, 0, 0o660),
}


def look(path):
    if path in ("/dev/snd", "/etc/passwd"):
        return None
    if path not in HOST_DEVICES:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)
    return HOST_DEVICES[path]


def walk(folder):
    return [device for path, device in HOST_DEVICES.items() if path.startswith(folder + "/")]


def build(host=None, config=None, facts=FACTS, **more):
    return build_spec(
        SpecRequest(
            id="c0ffee",
            config=msgspec.convert({"Cmd": ["true"], "Hostname": "box", **(config or {})}, ContainerConfig),
            host_config=msgspec.convert({"NetworkMode": "bridge", **(host or {})}, HostConfig),
            facts=facts,
            rootfs_path="/root",
            init_path="/run/init",
            look=look,
            walk=walk,
            **more,
        )
    )


def kinds(spec):
    return {entry["type"]: entry.get("path", "") for entry in spec["linux"]["namespaces"]}


def targets(spec):
    return [entry["destination"] for entry in spec["mounts"]]


def mount_at(spec, target):
    (found,) = [entry for entry in spec["mounts"] if entry["destination"] == target]
    return found


def test_a_plain_container():
    spec = build()
    process = spec["process"]
    assert process["args"] == ["true"]
    assert process["env"] == ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=box"]
    assert process["cwd"] == "/"
    assert process["oomScoreAdj"] == 0
    assert process["capabilities"] == {kind: list(DEFAULT) for kind in ("bounding", "effective", "permitted")}
    assert "noNewPrivileges" not in process
    assert "rlimits" not in process
    assert spec["hostname"] == "box"
    assert spec["root"] == {"path": "/root"}
    assert kinds(spec) == dict.fromkeys(("mount", "network", "uts", "pid", "ipc", "time"), "")
    linux = spec["linux"]
    assert linux["cgroupsPath"] == "/wherry/c0ffee"
    assert linux["sysctl"] == {
        "net.ipv4.ip_unprivileged_port_start": "0",
        "net.ipv4.ping_group_range": "0 2147483647",
    }
    assert len(linux["maskedPaths"]) == 12
    assert linux["readonlyPaths"] == ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
    assert linux["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"
    assert "devices" not in linux


def test_mounts_of_a_plain_container():
    usual = ["nosuid", "noexec", "nodev"]
    assert build()["mounts"] == [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": usual},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*usual, "ro"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", *usual]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": usual},
        {
            "destination": "/dev/shm",
            "type": "tmpfs",
            "source": "shm",
            "options": [*usual, "mode=1777", "size=67108864"],
        },
    ]


def test_device_rules_of_a_plain_container():
    rules = build()["linux"]["resources"]["devices"]
    assert rules[0] == {"allow": False, "access": "rwm"}
    allowed = [(rule["major"], rule["minor"]) for rule in rules if rule["allow"]]
    assert allowed == [(1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1)]
    assert rules[-1] == {"allow": False, "type": "c", "major": 10, "minor": 229, "access": "rwm"}


def test_a_privileged_container():
    spec = build({"Privileged": True, "CapDrop": ["KILL"]})
    assert spec["process"]["capabilities"]["bounding"] == list(ALL)
    linux = spec["linux"]
    assert not {"maskedPaths", "readonlyPaths", "seccomp"} & set(linux)
    assert linux["resources"]["devices"][-1] == {"allow": True, "access": "rwm"}
    assert [node["path"] for node in linux["devices"]] == list(HOST_DEVICES)
    assert "ro" not in mount_at(spec, "/sys")["options"]
    assert "ro" not in mount_at(spec, "/sys/fs/cgroup")["options"]


def test_privileged_is_what_the_engine_has_itself():
    facts = HostFacts(capabilities=("CAP_CHOWN", "CAP_KILL"))
    assert build({"Privileged": True}, facts=facts)["process"]["capabilities"]["bounding"] == ["CAP_CHOWN", "CAP_KILL"]
    assert build(facts=facts)["process"]["capabilities"]["bounding"] == ["CAP_CHOWN", "CAP_KILL"]


def name(value: object) -> str:
    """Name a case: a set prints in any order, and all workers must agree on the names."""
    return str(sorted(value, key=str)) if isinstance(value, set | frozenset) else str(value)


@pytest.mark.parametrize(
    ("host", "gained", "lost"),
    [
        ({"CapAdd": ["net_admin"]}, {"CAP_NET_ADMIN"}, set()),
        ({"CapAdd": ["CAP_NET_ADMIN", "NET_ADMIN"]}, {"CAP_NET_ADMIN"}, set()),
        ({"CapDrop": ["chown", "KILL"]}, set(), {"CAP_CHOWN", "CAP_KILL"}),
        ({"CapDrop": ["ALL"]}, set(), set(DEFAULT)),
        ({"CapDrop": ["ALL"], "CapAdd": ["CHOWN"]}, set(), set(DEFAULT) - {"CAP_CHOWN"}),
        ({"CapAdd": ["ALL"], "CapDrop": ["NET_RAW"]}, set(ALL) - set(DEFAULT), {"CAP_NET_RAW"}),
        ({"CapAdd": ["ALL"], "CapDrop": ["ALL"]}, set(ALL) - set(DEFAULT), set()),
    ],
    ids=name,
)
def test_capabilities(host, gained, lost):
    bounding = build(host)["process"]["capabilities"]["bounding"]
    assert len(bounding) == len(set(bounding))
    assert (set(bounding) - set(DEFAULT), set(DEFAULT) - set(bounding)) == (gained, lost)


@pytest.mark.parametrize(
    ("host", "resources"),
    [
        ({"Memory": 64 * M}, {"memory": {"limit": 64 * M, "swap": 128 * M}}),
        ({"Memory": 64 * M, "MemorySwap": 80 * M}, {"memory": {"limit": 64 * M, "swap": 80 * M}}),
        ({"Memory": 64 * M, "MemorySwap": -1}, {"memory": {"limit": 64 * M, "swap": -1}}),
        ({"MemoryReservation": 32 * M}, {"memory": {"reservation": 32 * M}}),
        ({"MemorySwappiness": 5}, {"memory": {"swappiness": 5}}),
        ({"MemorySwappiness": -1}, {"memory": {}}),
        ({"OomKillDisable": True}, {"memory": {"disableOOMKiller": True}}),
        ({"NanoCpus": 1_500_000_000}, {"cpu": {"period": 100000, "quota": 150000}}),
        ({"NanoCpus": 1_000_000}, {"cpu": {"period": 100000, "quota": 1000}}),
        ({"CpuQuota": 5000, "CpuPeriod": 20000}, {"cpu": {"quota": 5000, "period": 20000}}),
        ({"CpuQuota": -1}, {}),
        ({"CpuShares": 512, "CpusetCpus": "0", "CpusetMems": "0"}, {"cpu": {"shares": 512, "cpus": "0", "mems": "0"}}),
        ({"CpuShares": 1}, {"cpu": {"shares": 2}}),
        ({"CpuRealtimeRuntime": 5, "CpuRealtimePeriod": 9}, {"cpu": {"realtimeRuntime": 5, "realtimePeriod": 9}}),
        ({"PidsLimit": 50}, {"pids": {"limit": 50}}),
        ({"PidsLimit": 0}, {"pids": {"limit": -1}}),
        ({"PidsLimit": -1}, {"pids": {"limit": -1}}),
        ({"BlkioWeight": 500}, {}),
        (
            {"BlkioDeviceReadBps": [{"Path": "/dev/sda", "Rate": 9}]},
            {"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 9}]}},
        ),
        (
            {"BlkioDeviceWriteIOps": [{"Path": "/dev/sda", "Rate": 9}]},
            {"blockIO": {"throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 9}]}},
        ),
    ],
    ids=name,
)
def test_resources(host, resources):
    found = build(host)["linux"]["resources"]
    found.pop("devices")
    expected = {"memory": {"disableOOMKiller": False}, "blockIO": {}, **resources}
    expected["memory"] = {"disableOOMKiller": False, **expected["memory"]}
    assert found == expected


def test_limits_that_the_kernel_lacks_are_left_out():
    facts = HostFacts(cgroup_version=2, swap_limit=False, oom_kill_disable=False)
    found = build({"Memory": 64 * M, "MemorySwappiness": 5, "OomKillDisable": True}, facts=facts)
    assert found["linux"]["resources"]["memory"] == {"limit": 64 * M}


def test_weight_where_the_kernel_has_it():
    facts = HostFacts(blkio_weight=True, blkio_weight_device=True)
    host = {"BlkioWeight": 500, "BlkioWeightDevice": [{"Path": "/dev/sda", "Weight": 200}]}
    assert build(host, facts=facts)["linux"]["resources"]["blockIO"] == {
        "weight": 500,
        "weightDevice": [{"major": 8, "minor": 0, "weight": 200}],
    }


def mapping(source, target="", access="rwm"):
    return {"Devices": [{"PathOnHost": source, "PathInContainer": target, "CgroupPermissions": access}]}


def test_a_device():
    linux = build(mapping("/dev/fuse", "/dev/xfuse", "rw"))["linux"]
    assert linux["devices"] == [
        {"path": "/dev/xfuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o600, "uid": 0, "gid": 7}
    ]
    assert linux["resources"]["devices"][-1] == {
        "allow": True,
        "type": "c",
        "major": 10,
        "minor": 229,
        "access": "rw",
    }


def test_a_folder_of_devices():
    linux = build(mapping("/dev/snd", "/dev/sound"))["linux"]
    assert [node["path"] for node in linux["devices"]] == ["/dev/sound/a", "/dev/sound/b"]
    assert [rule["minor"] for rule in linux["resources"]["devices"][-2:]] == [1, 2]


def test_a_device_under_another_name_in_a_privileged_container():
    nodes = build({"Privileged": True, **mapping("/dev/fuse", "/dev/xfuse")})["linux"]["devices"]
    assert [node["path"] for node in nodes] == [*HOST_DEVICES, "/dev/xfuse"]


def test_device_rules_of_the_user_come_last():
    rules = build({"DeviceCgroupRules": ["c 7:* r"], **mapping("/dev/fuse")})["linux"]["resources"]["devices"]
    assert rules[-1] == {"allow": True, "type": "c", "major": 7, "minor": -1, "access": "r"}
    assert rules[-2]["minor"] == 229


@pytest.mark.parametrize(
    ("host", "text"),
    [
        (
            mapping("/dev/nope"),
            'error gathering device information while adding custom device "/dev/nope": no such file or directory',
        ),
        (
            mapping("/etc/passwd"),
            'error gathering device information while adding custom device "/etc/passwd": not a device node',
        ),
        ({"BlkioDeviceReadBps": [{"Path": "/dev/nope", "Rate": 1}]}, "stat /dev/nope: no such file or directory"),
    ],
    ids=name,
)
def test_what_cannot_be_had(host, text):
    with pytest.raises(SystemFailure) as error:
        build(host)
    assert error.value.message == text


def test_device_permissions():
    with pytest.raises(InvalidArgument, match="letters out of rwm"):
        build(mapping("/dev/fuse", access="xyz"))


@pytest.mark.parametrize(
    ("host", "more", "namespaces"),
    [
        ({"NetworkMode": "host"}, {"own_network": False}, {"mount", "uts", "pid", "ipc", "time"}),
        ({"PidMode": "host"}, {}, {"mount", "network", "uts", "ipc", "time"}),
        ({"IpcMode": "host"}, {}, {"mount", "network", "uts", "pid", "time"}),
        ({"UTSMode": "host"}, {}, {"mount", "network", "pid", "ipc", "time"}),
        ({"CgroupnsMode": "private"}, {}, {"mount", "network", "uts", "pid", "ipc", "cgroup", "time"}),
        (
            {"CgroupnsMode": "host"},
            {"facts": HostFacts(cgroup_version=2)},
            {"mount", "network", "uts", "pid", "ipc", "time"},
        ),
        ({}, {"facts": HostFacts(cgroup_version=2)}, {"mount", "network", "uts", "pid", "ipc", "cgroup", "time"}),
        ({}, {"facts": HostFacts(time_namespace=False)}, {"mount", "network", "uts", "pid", "ipc"}),
    ],
    ids=name,
)
def test_namespaces(host, more, namespaces):
    assert set(kinds(build(host, **more))) == namespaces


def test_namespaces_of_another_container():
    host = {"NetworkMode": "container:a", "IpcMode": "container:a", "PidMode": "container:a"}
    paths = {"network": "/proc/9/ns/net", "ipc": "/proc/9/ns/ipc", "pid": "/proc/9/ns/pid"}
    spec = build(host, own_network=False, namespace_paths=paths)
    assert {kind: path for kind, path in kinds(spec).items() if path} == paths
    assert mount_at(spec, "/dev/shm")["source"] == "/proc/9/root/dev/shm"
    assert "sysctl" not in spec["linux"]


def test_sysctls_of_the_host_are_left_alone():
    host = {"NetworkMode": "host", "UTSMode": "host", "IpcMode": "host"}
    spec = build(host, {"Domainname": "x"}, own_network=False)
    assert "sysctl" not in spec["linux"]
    assert "hostname" not in spec
    assert mount_at(spec, "/dev/shm") == {
        "destination": "/dev/shm",
        "type": "bind",
        "source": "/dev/shm",
        "options": ["rbind", "rprivate"],
    }


def test_sysctls_of_the_user_win():
    sysctls = build({"Sysctls": {"net.ipv4.ip_unprivileged_port_start": "80"}}, {"Domainname": "d"})["linux"]["sysctl"]
    assert sysctls["net.ipv4.ip_unprivileged_port_start"] == "80"
    assert sysctls["kernel.domainname"] == "d"


def test_no_shared_memory():
    assert "/dev/shm" not in targets(build({"IpcMode": "none"}))


def test_masks_of_the_user():
    linux = build({"MaskedPaths": [], "ReadonlyPaths": ["/proc/x"]})["linux"]
    assert (linux["maskedPaths"], linux["readonlyPaths"]) == ([], ["/proc/x"])


def test_thermal_throttle_is_masked():
    facts = HostFacts(thermal_throttle=("/sys/devices/system/cpu/cpu0/thermal_throttle",))
    assert facts.thermal_throttle[0] in build(facts=facts)["linux"]["maskedPaths"]


def test_mounts_of_the_user_come_parents_first_and_in_place_of_ours():
    extra = (Mount("bind", "/c", "/a/b/c"), Mount("bind", "/s", "/dev/shm"), Mount("bind", "/a", "/a"))
    spec = build({"Tmpfs": {"/t": "size=1m"}}, mounts=extra)
    assert targets(spec)[6:] == ["/t", "/a", "/dev/shm", "/a/b/c"]
    assert targets(spec).count("/dev/shm") == 1
    assert mount_at(spec, "/t")["options"] == ["noexec", "nosuid", "nodev", "rprivate", "size=1m"]


def test_nothing_of_ours_in_a_dev_of_the_user():
    places = targets(build(mounts=(Mount("bind", "/d", "/dev"),)))
    assert [place for place in places if place.startswith("/dev")] == ["/dev"]


def test_a_read_only_container():
    spec = build({"ReadonlyRootfs": True}, mounts=(Mount("bind", "/v", "/v", ("rbind",)),))
    assert spec["root"]["readonly"] is True
    writable = {entry["destination"] for entry in spec["mounts"] if "ro" not in entry["options"]}
    assert writable == {"/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/v"}


def test_init():
    spec = build({"Init": True}, {"Entrypoint": ["sh", "-c"], "Cmd": ["x"]})
    assert spec["process"]["args"] == ["/sbin/docker-init", "--", "sh", "-c", "x"]
    assert mount_at(spec, "/sbin/docker-init") == {
        "destination": "/sbin/docker-init",
        "type": "bind",
        "source": "/run/init",
        "options": ["bind", "ro"],
    }
    assert build({"Init": True, "PidMode": "host"})["process"]["args"] == ["true"]


def test_process():
    config = {"Tty": True, "WorkingDir": "/a/../b/", "Env": ["A=b", "PATH=/x", "HOSTNAME"], "User": "me:us"}
    host = {"ConsoleSize": [24, 80], "OomScoreAdj": 100, "GroupAdd": ["44", "audio"]}
    process = build(host, config)["process"]
    assert process["env"] == ["PATH=/x", "TERM=xterm", "A=b"]
    assert process["cwd"] == "/b"
    assert process["terminal"] is True
    assert process["consoleSize"] == {"height": 24, "width": 80}
    assert process["oomScoreAdj"] == 100
    assert process["user"] == {"uid": 0, "gid": 0, "username": "me:us", "additionalGroups": ["44", "audio"]}


def test_limits_of_the_container_replace_the_defaults():
    host = {"Ulimits": [{"Name": "nofile", "Soft": 100, "Hard": 200}]}
    defaults = (Ulimit(name="NOFILE", soft=1, hard=1), Ulimit(name="core", soft=0, hard=-1))
    assert build(host, ulimits=defaults)["process"]["rlimits"] == [
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0xFFFFFFFFFFFFFFFF},
    ]


@pytest.mark.parametrize(
    ("options", "default", "expected"),
    [
        ([], False, None),
        ([], True, True),
        (["no-new-privileges"], False, True),
        (["no-new-privileges:true"], False, True),
        (["no-new-privileges=false"], True, None),
    ],
)
def test_no_new_privileges(options, default, expected):
    process = build({"SecurityOpt": options}, no_new_privileges=default)["process"]
    assert process.get("noNewPrivileges") is expected


OWN_PROFILE = '{"defaultAction": "SCMP_ACT_LOG"}'


@pytest.mark.parametrize(
    ("host", "more", "action"),
    [
        ({}, {}, "SCMP_ACT_ERRNO"),
        ({"SecurityOpt": ["seccomp=unconfined"]}, {}, None),
        ({"SecurityOpt": ["seccomp:unconfined"]}, {}, None),
        ({"SecurityOpt": ["seccomp=builtin"]}, {"seccomp_profile": OWN_PROFILE}, "SCMP_ACT_ERRNO"),
        ({"SecurityOpt": ["seccomp=" + OWN_PROFILE]}, {}, "SCMP_ACT_LOG"),
        ({"SecurityOpt": ["seccomp={}"]}, {}, None),
        ({"Privileged": True}, {}, None),
        ({"Privileged": True, "SecurityOpt": ["seccomp=builtin"]}, {}, "SCMP_ACT_ERRNO"),
        ({}, {"seccomp_profile": OWN_PROFILE}, "SCMP_ACT_LOG"),
        ({}, {"seccomp_profile": "unconfined"}, None),
        ({}, {"facts": HostFacts(seccomp=False)}, None),
    ],
    ids=name,
)
def test_seccomp(host, more, action):
    profile = build(host, **more)["linux"].get("seccomp")
    assert (profile and profile["defaultAction"]) == action


def test_a_profile_that_cannot_be_kept_is_refused():
    with pytest.raises(InvalidArgument, match="seccomp is not enabled in your kernel"):
        build({"SecurityOpt": ["seccomp=" + OWN_PROFILE]}, facts=HostFacts(seccomp=False))


def test_writable_cgroups():
    assert "ro" not in mount_at(build({"SecurityOpt": ["writable-cgroups=true"]}), "/sys/fs/cgroup")["options"]


@pytest.mark.parametrize(
    ("parent", "path"), [("", "/wherry/c0ffee"), ("/a", "/a/c0ffee"), ("a/b", "/a/b/c0ffee"), ("/", "/c0ffee")]
)
def test_cgroup_parent(parent, path):
    assert build({"CgroupParent": parent})["linux"]["cgroupsPath"] == path


def test_annotations():
    assert build({"Annotations": {"a": "b"}})["annotations"] == {"a": "b"}


def test_the_same_request_gives_the_same_spec():
    assert build({"Privileged": True}) == build({"Privileged": True})
