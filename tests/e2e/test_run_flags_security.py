"""docker run flags about rights: --privileged, --cap-*, --security-opt, --sysctl, --device*, --gpus, --read-only."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.engine import Engine

pytestmark = [pytest.mark.root, pytest.mark.engine]

ALL_CAPABILITIES = int(
    next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd")).split()[1],
    16,
)


def status_of(engine: Engine, *flags: str) -> dict[str, str]:
    """Return /proc/self/status of a process in a container."""
    out = engine.docker("run", "--rm", *flags, "busybox", "cat", "/proc/self/status")
    return {key: value.strip() for key, _, value in (line.partition(":") for line in out.splitlines())}


def succeeds(engine: Engine, *words: str) -> bool:
    """Return whether a command in a container ends with 0."""
    return engine.run("run", "--rm", *words).returncode == 0


# ---- capabilities


def test_privileged_has_all_capabilities_devices_and_no_filter(engine: Engine):
    status = status_of(engine, "--privileged")
    assert int(status["CapEff"], 16) == ALL_CAPABILITIES
    assert status["Seccomp"] == "0"
    script = "mount -t tmpfs x /tmp && echo d > /proc/sys/kernel/domainname && head -c 1 /dev/zero | wc -c"
    assert engine.docker("run", "--rm", "--privileged", "busybox", "sh", "-c", script) == "1"


def test_cap_add_and_drop_decide_what_the_kernel_allows(engine: Engine):
    link = ("busybox", "ip", "link", "set", "lo", "down")
    assert not succeeds(engine, *link)
    assert succeeds(engine, "--cap-add", "NET_ADMIN", *link)
    assert not succeeds(engine, "--cap-drop", "CHOWN", "busybox", "chown", "1:1", "/etc")
    assert int(status_of(engine, "--cap-drop", "ALL")["CapBnd"], 16) == 0


# ---- --security-opt


def test_no_new_privileges(engine: Engine):
    for form, wanted in (("", "1"), (":false", "0"), ("=true", "1")):
        assert status_of(engine, "--security-opt", f"no-new-privileges{form}")["NoNewPrivs"] == wanted


def test_seccomp_forms(engine: Engine, tmp_path: Path):
    profile = tmp_path / "profile.json"
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    ran = engine.run("run", "--rm", "--security-opt", f"seccomp={profile}", "busybox", "mkdir", "/x")
    assert "Operation not supported" in ran.stderr
    assert status_of(engine, "--security-opt", "seccomp=unconfined")["Seccomp"] == "0"
    assert status_of(engine, "--security-opt", "seccomp=builtin")["Seccomp"] == "2"
    ran = engine.run("run", "--rm", "--security-opt", f"seccomp={tmp_path}/none", "busybox", "true")
    assert (ran.returncode, "opening seccomp profile" in ran.stderr) == (125, True)


def test_systempaths_unconfined_hides_nothing(engine: Engine):
    script = "(echo d > /proc/sys/kernel/domainname) 2>&1; grep -c ' /proc/' /proc/mounts; :"
    words = ("busybox", "sh", "-c", script)
    assert engine.docker("run", "--rm", "--security-opt", "systempaths=unconfined", *words) == "0"
    assert "Read-only file system" in engine.docker("run", "--rm", *words)


def test_masked_and_read_only_paths_of_the_request(engine: Engine):
    """There is no flag for them; clients of the API give lists, which replace the engine's own."""
    paths = '"MaskedPaths":["/proc/uptime"],"ReadonlyPaths":["/proc/sys/net"]'
    script = "wc -c < /proc/uptime; grep -o ' /proc/[^ ]*' /proc/mounts"
    body = f'{{"Image":"busybox","Cmd":["sh","-c","{script}"],"HostConfig":{{{paths}}}}}'
    assert engine.api("POST", "/containers/create?name=aa", body)[0] == 201
    shown = engine.docker("start", "-a", "aa").split()
    assert shown[0] == "0"
    assert sorted(shown[1:]) == ["/proc/sys/net", "/proc/uptime"]


def test_writable_cgroups(engine: Engine):
    place = "/sys/fs/cgroup/pids" if Path("/sys/fs/cgroup/pids").exists() else "/sys/fs/cgroup"
    make = ("--cgroupns", "private", "busybox", "mkdir", f"{place}/below")
    assert succeeds(engine, "--security-opt", "writable-cgroups=true", *make)
    assert not succeeds(engine, *make)


@pytest.mark.parametrize(
    ("option", "text"),
    [("apparmor=some-profile", "Profile some-profile discarded"), ("label=type:x", "Labels discarded")],
)
def test_labels_that_no_security_module_is_there_for_are_not_ignored_in_silence(engine: Engine, option: str, text: str):
    enabled = Path("/sys/module/apparmor/parameters/enabled")
    if option.startswith("apparmor") and enabled.exists() and enabled.read_text().strip() == "Y":
        ran = engine.run("run", "--rm", "--security-opt", option, "busybox", "true")
        assert (ran.returncode, "apply the label some-profile" in ran.stderr) == (125, True), ran.stderr
        return
    ran = engine.run("run", "--rm", "--security-opt", option, "busybox", "echo", "ran")
    assert (ran.stdout, text in ran.stderr) == ("ran\n", True), ran.stderr


@pytest.mark.parametrize("option", ["apparmor=unconfined", "label=disable"])
def test_labels_that_are_not_wanted_need_none(engine: Engine, option: str):
    ran = engine.run("run", "--rm", "--security-opt", option, "busybox", "true")
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--security-opt", "bogus=1"), 'invalid --security-opt 2: "bogus=1"'),
        (("--security-opt", "no-new-privileges=foo"), 'invalid --security-opt 2: "no-new-privileges=foo"'),
        (("--security-opt", "systempaths=foo"), 'invalid --security-opt 2: "systempaths=foo"'),
        (("--cap-add", "BOGUS"), 'invalid CapAdd: unknown capability: "CAP_BOGUS"'),
        (("--cap-drop", "BOGUS"), 'invalid CapDrop: unknown capability: "CAP_BOGUS"'),
        (("--gpus", "all"), 'could not select device driver "" with capabilities: [[gpu]]'),
        (("--device", "vendor.example/class=all"), "unresolvable CDI devices vendor.example/class=all"),
        (("--device", "/dev/nosuch"), 'adding custom device "/dev/nosuch": no such file or directory'),
        (("--device-cgroup-rule", "x"), "invalid device cgroup format 'x'"),
        (("--sysctl", "net.ipv4.nosuch=1"), "no such file or directory"),
        (("--sysctl", "kernel.pid_max=1000"), "sysctl 'kernel.pid_max=1000' is not allowed"),
        (("--network", "host", "--sysctl", "net.ipv4.ip_forward=1"), "not in a separate kernel namespace"),
        (("--ipc", "host", "--sysctl", "kernel.shmmax=1000"), "not in a separate kernel namespace"),
    ],
)
def test_what_cannot_be(engine: Engine, flags: tuple[str, ...], text: str):
    ran = engine.run("run", "--rm", *flags, "busybox", "true")
    assert (ran.returncode in (125, 127), text in ran.stderr) == (True, True), ran
    assert engine.docker("ps", "-aq") == "" or "--device" in flags


# ---- sysctls


def test_sysctls_are_the_namespaces(engine: Engine):
    wanted = ("net.ipv4.ip_default_ttl=71", "kernel.shmmax=123456", "kernel.sem=1 2 3 4")
    flags = [word for each in wanted for word in ("--sysctl", each)]
    cat = "cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/shmmax /proc/sys/kernel/sem"
    out = engine.docker("run", "--rm", *flags, "busybox", "sh", "-c", cat)
    assert out.split() == ["71", "123456", "1", "2", "3", "4"]
    assert Path("/proc/sys/net/ipv4/ip_default_ttl").read_text().strip() != "71"


# ---- devices and the root file system


def test_a_device_with_fewer_rights(engine: Engine):
    flags = ("--device", "/dev/loop-control:/dev/mine:r")
    assert engine.docker("run", "--rm", *flags, "busybox", "sh", "-c", ": < /dev/mine && echo opened") == "opened"
    assert not succeeds(engine, *flags, "busybox", "sh", "-c", ": > /dev/mine")
    ran = engine.run("run", "--rm", *flags, "busybox", "sh", "-c", ": > /dev/mine")
    assert "Operation not permitted" in ran.stderr


def test_a_folder_of_devices(engine: Engine, tmp_path: Path):
    os.mknod(tmp_path / "one", 0o20666, os.makedev(1, 3))
    assert succeeds(engine, "--device", f"{tmp_path}:/dev/some", "busybox", "test", "-c", "/dev/some/one")


def test_device_cgroup_rule(engine: Engine):
    """7:* are loop devices: a node of one can be made by every container, and opened with the rule only."""
    script = "mknod /l c 10 237 && : < /l"
    assert not succeeds(engine, "busybox", "sh", "-c", script)
    assert succeeds(engine, "--device-cgroup-rule", "c 10:237 r", "busybox", "sh", "-c", script)


def test_read_only(engine: Engine):
    ran = engine.run("run", "--rm", "--read-only", "busybox", "sh", "-c", "touch /dev/shm/a && touch /x")
    assert "touch: /x: Read-only file system" in ran.stderr


def test_use_api_socket_gives_a_container_the_engine(engine: Engine):
    """The client turns it into a bind mount of its own socket's usual place, which is there with that engine only."""
    created = engine.run("create", "--name", "aa", "--use-api-socket", "busybox", "true")
    assert created.returncode == 0
    binds = engine.docker("inspect", "-f", "{{json .HostConfig.Mounts}}", "aa")
    assert "docker.sock" in binds
