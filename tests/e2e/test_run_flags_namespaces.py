"""docker run flags that choose namespaces: --ipc, --pid, --uts, --userns, --cgroupns, --network, names of the host."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.engine import Engine

pytestmark = [pytest.mark.root, pytest.mark.engine]


def namespace(engine: Engine, kind: str, *flags: str) -> str:
    """Return which namespace a container with these flags is in."""
    return engine.docker("run", "--rm", *flags, "busybox", "readlink", f"/proc/self/ns/{kind}")


def host_namespace(kind: str) -> str:
    """Return which namespace this process is in, which the engine's shares."""
    return os.readlink(f"/proc/self/ns/{kind}")


def idle(engine: Engine, name: str, *flags: str) -> None:
    """Start a container that does nothing."""
    engine.docker("run", "-d", "--name", name, *flags, "busybox", "sleep", "1000")


def pid_of(engine: Engine, name: str) -> str:
    """Return the host's number of a container's first process."""
    return engine.docker("inspect", "-f", "{{.State.Pid}}", name)


@pytest.mark.parametrize("kind", ["uts", "pid", "ipc", "cgroup"])
def test_the_hosts_namespace_when_asked_for_and_an_own_one_otherwise(engine: Engine, kind: str):
    flag = {"cgroup": "cgroupns"}.get(kind, kind)
    own = ("--cgroupns", "private") if kind == "cgroup" else ()
    assert namespace(engine, kind, f"--{flag}", "host") == host_namespace(kind)
    assert namespace(engine, kind, *own) != host_namespace(kind)


def test_pid_host_shows_the_hosts_processes(engine: Engine):
    cat = ("busybox", "cat", f"/proc/{os.getpid()}/comm")
    assert engine.docker("run", "--rm", "--pid", "host", *cat) == Path("/proc/self/comm").read_text().strip()
    assert engine.run("run", "--rm", *cat).returncode == 1


def test_pid_container_joins_and_sees_its_processes(engine: Engine):
    idle(engine, "aa")
    idle(engine, "bb", "--pid", "container:aa")
    inside = os.readlink(f"/proc/{pid_of(engine, 'aa')}/ns/pid")
    assert os.readlink(f"/proc/{pid_of(engine, 'bb')}/ns/pid") == inside
    assert engine.docker("exec", "bb", "ps", "-o", "args").count("sleep 1000") == 2


def test_uts_host_keeps_the_hosts_name_and_may_not_set_another(engine: Engine):
    assert engine.docker("run", "--rm", "--uts", "host", "busybox", "hostname") == os.uname().nodename
    ran = engine.run("run", "--rm", "--uts", "host", "--hostname", "x", "busybox", "true")
    assert (ran.returncode, "conflicting options: hostname and the UTS mode" in ran.stderr) == (125, True)


def test_hostname_and_domainname_are_the_kernels(engine: Engine):
    script = "hostname; cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname /etc/hostname"
    out = engine.docker("run", "--rm", "-h", "h1", "--domainname", "d.example", "busybox", "sh", "-c", script)
    assert out.split() == ["h1", "h1", "d.example", "h1"]


def test_userns_host_maps_nothing(engine: Engine):
    shown = engine.docker("run", "--rm", "--userns", "host", "busybox", "cat", "/proc/self/uid_map")
    assert shown.split() == ["0", "0", "4294967295"]
    assert namespace(engine, "user", "--userns", "host") == host_namespace("user")
    body = '{"Image":"busybox","Cmd":["true"],"HostConfig":{"UsernsMode":"x:y"}}'
    status, text = engine.api("POST", "/containers/create", body)
    assert (status, "invalid USER mode: x:y" in text) == (400, True)


def test_cgroupns_decides_what_the_container_knows_of_its_place(engine: Engine):
    cat = ("busybox", "grep", ":memory:", "/proc/self/cgroup")
    assert engine.docker("run", "--rm", "--cgroupns", "private", *cat).endswith(":memory:/")
    assert engine.cgroup_parent in engine.docker("run", "--rm", "--cgroupns", "host", *cat)


# ---- --ipc


def test_ipc_modes(engine: Engine):
    shm = ("busybox", "sh", "-c", "grep -c ' /dev/shm ' /proc/mounts; :")
    assert engine.docker("run", "--rm", "--ipc", "none", *shm) == "0"
    assert engine.docker("run", "--rm", "--ipc", "private", *shm) == "1"
    assert namespace(engine, "ipc", "--ipc", "none") != host_namespace("ipc")
    mark = Path(f"/dev/shm/wherry-{engine.tag}")
    mark.write_text("of the host")
    try:
        assert engine.docker("run", "--rm", "--ipc", "host", "busybox", "cat", str(mark)) == "of the host"
        assert engine.run("run", "--rm", "busybox", "cat", str(mark)).returncode == 1
    finally:
        mark.unlink()


def test_ipc_container_shares_namespace_and_shared_memory(engine: Engine):
    idle(engine, "aa", "--ipc", "shareable", "--shm-size", "8m")
    engine.docker("rename", "aa", "other")
    engine.docker("exec", "other", "sh", "-c", "echo shared > /dev/shm/file")
    inside = os.readlink(f"/proc/{pid_of(engine, 'other')}/ns/ipc")
    assert namespace(engine, "ipc", "--ipc", "container:other") == inside
    script = "cat /dev/shm/file; df -k /dev/shm | awk 'END { print $2 }'; echo back > /dev/shm/answer"
    out = engine.docker("run", "--rm", "--ipc", "container:other", "busybox", "sh", "-c", script)
    assert out.split() == ["shared", "8192"]
    assert engine.docker("exec", "other", "cat", "/dev/shm/answer") == "back"


def test_ipc_container_by_way_of_a_third_one_survives_a_rename_and_shares_execs(engine: Engine):
    idle(engine, "aa", "--ipc", "shareable")
    idle(engine, "bb", "--ipc", "container:aa")
    engine.docker("create", "--name", "cc", "--ipc", "container:bb", "busybox", "cat", "/dev/shm/file")
    engine.docker("rename", "bb", "renamed")
    engine.docker("exec", "renamed", "sh", "-c", "echo through > /dev/shm/file")
    assert engine.docker("start", "-a", "cc") == "through"


@pytest.mark.parametrize("mode", ["private", "none"])
def test_an_ipc_namespace_that_is_not_shareable_is_not_shared(engine: Engine, mode: str):
    idle(engine, "aa", "--ipc", mode)
    ran = engine.run("run", "--rm", "--ipc", "container:aa", "busybox", "true")
    assert ran.returncode == 125
    assert "non-shareable IPC (hint: use IpcMode:shareable for the donor container)" in ran.stderr


def test_a_container_that_does_not_run_has_nothing_to_share(engine: Engine):
    engine.docker("create", "--name", "aa", "--ipc", "shareable", "busybox", "true")
    for kind, text in (
        ("ipc", "failed to join IPC namespace: container"),
        ("pid", "failed to join PID namespace: container"),
        ("network", "cannot join network namespace of a non running container: container aa is created"),
    ):
        ran = engine.run("run", "--rm", f"--{kind}", "container:aa", "busybox", "true")
        assert (ran.returncode, text in ran.stderr) == (125, True), ran.stderr
        ran = engine.run("run", "--rm", f"--{kind}", "container:nosuch", "busybox", "true")
        assert (ran.returncode, "No such container: nosuch" in ran.stderr) == (125, True), ran.stderr


def test_the_shared_memory_of_a_container_leads_nowhere_else(engine: Engine, tmp_path: Path):
    """A donor that may mount puts a link to the host's root in place of its shared memory."""
    (tmp_path / "secret").write_text("of the host")
    idle(engine, "aa", "--ipc", "shareable", "--privileged")
    script = f"umount /dev/shm && rmdir /dev/shm && ln -s {tmp_path} /dev/shm"
    engine.docker("exec", "aa", "sh", "-c", script)
    ran = engine.run("run", "--rm", "--ipc", "container:aa", "busybox", "cat", "/dev/shm/secret")
    assert "of the host" not in ran.stdout
    assert ran.returncode != 0


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--ipc", "bogus"), "invalid IPC mode: bogus"),
        (("--ipc", "container:"), "invalid IPC mode: container:"),
        (("--pid", "bogus"), "--pid: invalid PID mode"),
        (("--uts", "bogus"), "--uts: invalid UTS mode"),
        (("--userns", "bogus"), "--userns: invalid USER mode"),
        (("--cgroupns", "bogus"), "--cgroupns: invalid CGROUP mode"),
        (("--isolation", "hyperv"), "invalid isolation (hyperv): linux only supports 'default'"),
    ],
)
def test_modes_that_do_not_exist(engine: Engine, flags: tuple[str, str], text: str):
    ran = engine.run("run", "--rm", *flags, "busybox", "true")
    assert (ran.returncode, text in ran.stderr) == (125, True), ran.stderr


def test_isolation_default_is_what_linux_has(engine: Engine):
    assert namespace(engine, "mnt", "--isolation", "default") != host_namespace("mnt")
