"""The checks of a container's limits and modes: each text and each warning was read off dockerd 28.5."""

from __future__ import annotations

import msgspec
import pytest

from wherry.errors import InvalidArgument
from wherry.models.container import ContainerConfig, HostConfig
from wherry.oci.host import HostFacts
from wherry.oci.validate import parse_set, validate

M = 1 << 20
FACTS = HostFacts(
    cpu_count=2,
    cpus="0-1",
    mems="0",
    realtime=True,
    capabilities=tuple(name for name in HostFacts().capabilities if name != "CAP_SYS_RESOURCE"),
)


def check(host=None, config=None, facts=FACTS):
    return validate(msgspec.convert(config or {}, ContainerConfig), msgspec.convert(host or {}, HostConfig), facts)


REFUSED = [
    ({"Memory": M}, "Minimum memory limit allowed is 6MB"),
    ({"Memory": 6 * M - 1}, "Minimum memory limit allowed is 6MB"),
    ({"Memory": -5}, "Minimum memory limit allowed is 6MB"),
    ({"MemorySwap": 100 * M}, "You should always set the Memory limit when using Memoryswap limit, see usage"),
    (
        {"Memory": 64 * M, "MemorySwap": 32 * M},
        "Minimum memoryswap limit should be larger than memory limit, see usage",
    ),
    ({"MemorySwappiness": 101}, "Invalid value: 101, valid memory swappiness range is 0-100"),
    ({"MemorySwappiness": -2}, "Invalid value: -2, valid memory swappiness range is 0-100"),
    ({"MemoryReservation": M}, "Minimum memory reservation allowed is 6MB"),
    (
        {"Memory": 64 * M, "MemoryReservation": 128 * M},
        "Minimum memory limit can not be less than memory reservation limit, see usage",
    ),
    ({"NanoCpus": 3 * 10**9}, "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"),
    ({"NanoCpus": -1}, "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"),
    ({"NanoCpus": 10**9, "CpuQuota": 5000}, "Conflicting options: Nano CPUs and CPU Quota cannot both be set"),
    ({"NanoCpus": 10**9, "CpuPeriod": 50000}, "Conflicting options: Nano CPUs and CPU Period cannot both be set"),
    ({"CpuShares": -1}, "invalid CPU shares (-1): value must be a positive integer"),
    ({"CpuPeriod": 1}, "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"),
    ({"CpuPeriod": 1000001}, "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"),
    ({"CpuQuota": 1}, "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
    (
        {"CpuRealtimePeriod": 10000, "CpuRealtimeRuntime": 20000},
        "cpu real-time runtime cannot be higher than cpu real-time period",
    ),
    ({"CpusetCpus": "0-9"}, "Requested CPUs are not available - requested 0-9, available: 0-1"),
    ({"CpusetCpus": "8192"}, "Requested CPUs are not available - requested 8192, available: 0-1"),
    ({"CpusetCpus": "0,"}, "Invalid value 0, for cpuset cpus: invalid format: 0,"),
    ({"CpusetCpus": "1-0"}, "Invalid value 1-0 for cpuset cpus: invalid format: 1-0"),
    ({"CpusetCpus": " 0"}, "Invalid value  0 for cpuset cpus: invalid format:  0"),
    ({"CpusetCpus": "-1"}, "Invalid value -1 for cpuset cpus: invalid format: -1"),
    (
        {"CpusetCpus": "0-9999999"},
        "Invalid value 0-9999999 for cpuset cpus: value of out range, maximum is 8192",
    ),
    (
        {"CpusetCpus": "0-999999999999999999999"},
        "Invalid value 0-999999999999999999999 for cpuset cpus: value of out range, maximum is 8192",
    ),
    ({"CpusetMems": "x"}, "Invalid value x for cpuset mems: invalid format: x"),
    ({"CpusetMems": "1"}, "Requested memory nodes are not available - requested 1, available: 0"),
    ({"IOMaximumBandwidth": 5}, "invalid option: QoS maximum bandwidth configuration is not supported on linux"),
    ({"IOMaximumIOps": 5}, "invalid option: QoS maximum IOPs configuration is not supported on linux"),
    ({"CapAdd": ["FOO"]}, 'invalid CapAdd: unknown capability: "CAP_FOO"'),
    ({"CapDrop": ["FOO"]}, 'invalid CapDrop: unknown capability: "CAP_FOO"'),
    ({"CapAdd": [""]}, 'invalid CapAdd: unknown capability: "CAP_"'),
    (
        {"CapAdd": ["SYS_RESOURCE"]},
        "invalid CapAdd: capability not supported by your kernel or not available in the current environment: "
        '"CAP_SYS_RESOURCE"',
    ),
    ({"SecurityOpt": ["foo"]}, 'invalid --security-opt 1: "foo"'),
    ({"SecurityOpt": ["foo=bar"]}, 'invalid --security-opt 2: "foo=bar"'),
    ({"SecurityOpt": [""]}, 'invalid --security-opt 1: ""'),
    ({"SecurityOpt": ["no-new-privileges=x"]}, 'invalid --security-opt 2: "no-new-privileges=x"'),
    ({"SecurityOpt": ["systempaths=unconfined"]}, 'invalid --security-opt 2: "systempaths=unconfined"'),
    ({"PidMode": "foo"}, "invalid PID mode: foo"),
    ({"PidMode": "container:"}, "invalid PID mode: container:"),
    ({"PidMode": "private"}, "invalid PID mode: private"),
    ({"IpcMode": "foo"}, "invalid IPC mode: foo"),
    ({"UTSMode": "foo"}, "invalid UTS mode: foo"),
    ({"CgroupnsMode": "foo"}, "invalid cgroup namespace mode: foo"),
    ({"OomScoreAdj": 1001}, "Invalid value 1001, range for oom score adj is [-1000, 1000]"),
    ({"ShmSize": -1}, "SHM size can not be less than 0"),
    ({"Isolation": "hyperv"}, "invalid isolation (hyperv): linux only supports 'default'"),
    ({"Tmpfs": {"x": ""}}, "invalid mount path: 'x' mount path must be absolute"),
    ({"Tmpfs": {"/": ""}}, "invalid specification: destination can't be '/'"),
    ({"Tmpfs": {"/x": "foo"}}, 'invalid tmpfs option "foo"'),
    ({"Annotations": {"": "x"}}, "invalid Annotations: the empty string is not permitted as an annotation key"),
    ({"StorageOpt": {"size": "1G"}}, "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"),
    ({"StorageOpt": {"foo": "1"}}, "Unknown option foo"),
    ({"DeviceRequests": [{"Driver": "nvidia"}]}, 'could not select device driver "nvidia" with capabilities: []'),
    (
        {"DeviceRequests": [{"Capabilities": [["gpu", "compute"]]}]},
        'could not select device driver "" with capabilities: [[gpu compute]]',
    ),
    (
        {"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["a.b/c=d"]}]},
        "CDI device injection failed: unresolvable CDI devices a.b/c=d",
    ),
    ({"DeviceCgroupRules": ["x 1:1 rwm"]}, "invalid device cgroup rule format: 'x 1:1 rwm'"),
    ({"DeviceCgroupRules": ["c 1:1 rwmz"]}, "invalid device cgroup rule format: 'c 1:1 rwmz'"),
]


@pytest.mark.parametrize(("host", "text"), REFUSED, ids=lambda value: str(value)[:40])
def test_refused(host, text):
    with pytest.raises(InvalidArgument) as error:
        check(host)
    assert error.value.message == text


@pytest.mark.parametrize(
    "host",
    [
        {"Ulimits": [{"Name": "foo", "Soft": 1, "Hard": 1}]},
        {"Ulimits": [{"Name": "nofile", "Soft": 5, "Hard": 1}]},
        {"Ulimits": [{"Name": "nofile", "Soft": -1, "Hard": 1}]},
        {"CgroupParent": "../x"},
        {"CgroupParent": "a.slice:b:c"},
        {"UsernsMode": "foo"},
        {"Tmpfs": {"/x": "size"}},
        {"Tmpfs": {"/x": "lowerdir=/etc"}},
    ],
)
def test_refused_at_create_where_dockerd_fails_later_or_not_at_all(host):
    with pytest.raises(InvalidArgument):
        check(host)


@pytest.mark.parametrize(
    "host",
    [
        {},
        {"Memory": 6 * M},
        {"MemorySwap": -1},
        {"Memory": 64 * M, "MemorySwap": -1},
        {"MemorySwappiness": -1},
        {"MemorySwappiness": 0},
        {"MemoryReservation": -1},
        {"PidsLimit": -5},
        {"NanoCpus": 10**6},
        {"CpuShares": 1},
        {"CpuQuota": -1},
        {"CpuPercent": -1},
        {"CpusetCpus": "0-1", "CpusetMems": "0"},
        {"CpusetCpus": "1,0"},
        {"Ulimits": [{"Name": "NOFILE", "Soft": 1, "Hard": -1}]},
        {"CapAdd": ["net_admin", "CAP_SYS_ADMIN", "all"], "CapDrop": ["ALL"]},
        {"CapDrop": ["SYS_RESOURCE"]},
        {"SecurityOpt": ["seccomp:unconfined", "no-new-privileges", "label=disable", "apparmor=unconfined", "disable"]},
        {"PidMode": "container:x", "IpcMode": "container:y"},
        {"IpcMode": "none"},
        {"Tmpfs": {"/x": "size=10m,exec,uid=5,mode=1777,nr_inodes=5k"}},
        {"DeviceCgroupRules": ["a *:* rwm", "c 7:* r"]},
    ],
    ids=str,
)
def test_accepted_without_a_word(host):
    assert check(host) == []


WARNINGS = [
    (
        {"OomKillDisable": True},
        {},
        "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running "
        "out of resources.",
    ),
    ({"CpuPercent": 3}, {}, "linux does not support CPU percent. Percent discarded."),
    (
        {"BlkioWeight": 5},
        {},
        "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.",
    ),
    (
        {"BlkioWeightDevice": [{"Path": "/dev/x", "Weight": 200}]},
        {},
        "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.",
    ),
    (
        {"Memory": 64 * M},
        {"swap_limit": False},
        "Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
        "Memory limited without swap.",
    ),
    (
        {"OomKillDisable": True, "Memory": 64 * M},
        {"oom_kill_disable": False},
        "Your kernel does not support OomKillDisable. OomKillDisable discarded.",
    ),
]


@pytest.mark.parametrize(("host", "facts", "text"), WARNINGS, ids=lambda value: str(value)[:40])
def test_warnings(host, facts, text):
    assert check(host, facts=HostFacts(**facts)) == [text]


def test_weight_where_the_kernel_has_it():
    with pytest.raises(InvalidArgument, match="Range of blkio weight is from 10 to 1000"):
        check({"BlkioWeight": 5}, facts=HostFacts(blkio_weight=True))


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"WorkingDir": "rel"}, "the working directory 'rel' is invalid, it needs to be an absolute path"),
        ({"Healthcheck": {"Interval": 5}}, "Interval in Healthcheck cannot be less than 1ms"),
        ({"Healthcheck": {"Timeout": 5}}, "Timeout in Healthcheck cannot be less than 1ms"),
        ({"Healthcheck": {"Retries": -1}}, "Retries in Healthcheck cannot be negative"),
    ],
)
def test_config(config, text):
    with pytest.raises(InvalidArgument) as error:
        check({}, config)
    assert error.value.message == text


def test_sets():
    assert parse_set("0-2,5") == {0, 1, 2, 5}
    for bad in ("", "1-", "-", "a", "1--2", "٣", "1,,2"):
        with pytest.raises(ValueError, match="invalid format"):
            parse_set(bad)
