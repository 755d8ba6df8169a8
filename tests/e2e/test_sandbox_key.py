"""NetworkSettings.SandboxKey: a file that nsenter and ip netns take, as long as the container lives and no longer."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine import Engine
from tests.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.engine]

NETNS = Path("/run/netns")


def key(engine: Engine, name: str) -> str:
    return engine.docker("inspect", "-f", "{{.NetworkSettings.SandboxKey}}", name)


def start(engine: Engine, name: str, *flags: str) -> str:
    """Start a container and return the path of its network namespace in /proc."""
    engine.docker("run", "-d", "--name", name, *flags, "busybox", "sleep", "1000")
    return f"/proc/{engine.docker('inspect', '-f', '{{.State.Pid}}', name)}/ns/net"


def output(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=20).stdout


def mounts(engine: Engine) -> set[str]:
    """What is mounted on the files of an engine's sandboxes, but for that of the host."""
    folder = f"{engine.run_root}/netns/"
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {line.split()[4] for line in lines if line.split()[4].startswith(folder)} - {f"{folder}default"}


def files(engine: Engine) -> set[str]:
    return {str(path) for path in (engine.run_root / "netns").iterdir()} - {f"{engine.run_root}/netns/default"}


@pytest.fixture
def named() -> Iterator[str]:
    """A name for ip netns that is free, and is taken back."""
    NETNS.mkdir(exist_ok=True)
    name = f"wherrytest{os.getpid()}"
    yield name
    (NETNS / name).unlink(missing_ok=True)


def test_a_containers_network_is_a_file(engine: Engine, named: str):
    inside = start(engine, "aa")
    path = key(engine, "aa")
    id_ = engine.docker("inspect", "-f", "{{.NetworkSettings.SandboxID}}", "aa")
    assert path == f"{engine.run_root}/netns/{id_[:12]}"
    assert os.path.samestat(os.stat(path), os.stat(inside))
    address = engine.docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "aa")
    assert f"inet {address}/16" in output("nsenter", f"--net={path}", "ip", "addr", "show", "eth0")
    (NETNS / named).symlink_to(path)
    assert named in output("ip", "netns", "list")
    assert f"inet {address}/16" in output("ip", "netns", "exec", named, "ip", "addr", "show", "eth0")
    assert "eth0" in output("ip", "-n", named, "link")
    engine.docker("rm", "-f", "aa")
    until(lambda: not os.path.exists(path))
    assert path not in mounts(engine)


def test_without_a_network_it_can_be_configured_from_outside(engine: Engine, named: str):
    start(engine, "aa", "--network", "none")
    assert engine.docker("exec", "aa", "ls", "/sys/class/net") == "lo"
    (NETNS / named).symlink_to(key(engine, "aa"))
    output("ip", "-n", named, "link", "add", "own0", "type", "veth", "peer", "name", "own1")
    output("ip", "netns", "exec", named, "ip", "addr", "add", "10.9.8.7/24", "dev", "own0")
    assert "inet 10.9.8.7/24" in engine.docker("exec", "aa", "ip", "addr", "show", "own0")


def test_other_modes(engine: Engine):
    start(engine, "aa")
    start(engine, "shares", "--network", "container:aa")
    start(engine, "hosted", "--network", "host")
    assert key(engine, "shares") == "", "as with dockerd: the sandbox is the other one's"
    path = key(engine, "hosted")
    assert path == f"{engine.run_root}/netns/default"
    assert os.path.samestat(os.stat(path), os.stat("/proc/self/ns/net"))
    engine.docker("kill", "aa", "hosted")
    assert (key(engine, "aa"), key(engine, "hosted")) == ("", "")


def test_it_is_there_without_anybody_asking(engine: Engine):
    inside = start(engine, "aa")
    (path,) = until(lambda: mounts(engine))
    assert os.path.samestat(os.stat(path), os.stat(inside))
    assert path == key(engine, "aa")


def supervisor(inside: str) -> int:
    stat = Path(inside).parent.parent / "stat"
    return int(stat.read_text().rpartition(")")[2].split()[1])


def test_no_death_leaves_a_namespace_or_takes_one_away(own_engine: Engine):
    own_engine.start()
    own_engine.import_busybox()
    stays = start(own_engine, "stays")
    ends = start(own_engine, "ends")
    path, ending = key(own_engine, "stays"), key(own_engine, "ends")
    os.kill(own_engine.zygote(), signal.SIGKILL)
    late = start(own_engine, "late")  # its supervisor's mount namespace is a copy that has the mounts of the two
    lately = key(own_engine, "late")
    ended = os.stat(ending).st_ino
    own_engine.crash()
    assert mounts(own_engine) == {path, ending, lately}
    for inside in (ends, late):
        os.kill(int(inside.split("/")[2]), signal.SIGKILL)
    until(lambda: mounts(own_engine) == {path})
    assert f"net:[{ended}]" not in {_link(each) for each in Path("/proc").glob("[0-9]*/ns/net")}
    assert not os.path.exists(lately)
    assert "eth0" in output("nsenter", f"--net={path}", "ip", "link"), "while no engine runs"
    own_engine.start()
    assert key(own_engine, "stays") == path
    assert mounts(own_engine) == {path}
    os.kill(supervisor(stays), signal.SIGKILL)
    until(lambda: own_engine.docker("inspect", "-f", "{{.State.Running}}", "stays") == "false")
    until(lambda: mounts(own_engine) == set())


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""  # ended while we looked


def test_an_engine_that_is_killed_leaves_empty_files_at_most(own_engine: Engine):
    own_engine.start()
    own_engine.import_busybox()
    own_engine.docker("run", "--rm", "busybox", "true")
    until(lambda: len(files(own_engine)) > 4)
    own_engine.crash()
    assert mounts(own_engine) == set()
    assert {os.stat(path).st_size for path in files(own_engine)} == {0}
    own_engine.start()
    start(own_engine, "aa")
    (own_engine.run_root / "netns" / "stray").touch()
    assert own_engine.stop() == 0
    (path,) = mounts(own_engine)
    own_engine.start()
    assert key(own_engine, "aa") == path
    assert f"{own_engine.run_root}/netns/stray" not in files(own_engine)
    own_engine.docker("rm", "-f", "aa")
    assert own_engine.stop() == 0
    assert not (own_engine.run_root / "netns").exists()
    own_engine.start()
