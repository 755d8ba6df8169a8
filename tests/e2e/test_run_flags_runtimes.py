"""docker run --runtime: containers that other OCI runtimes make, in all that the engine does with a container."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pexpect
import pytest

from tests import mounttable, waiting
from tests.engine import Engine, busybox_tar

pytestmark = [
    pytest.mark.root,
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
]

NAMES = ("runc", "crun")
WRAPPER = """#!/bin/sh
# Keeps what it was called with, and the configuration, then is runc.
echo "$@" >> {folder}/calls
for word in "$@"; do
    [ -e "$word/config.json" ] && cp "$word/config.json" {folder}/config.json
done
exec {runc} "$@"
"""


until = partial(waiting.until, seconds=15.0)


def where(name: str) -> str:
    """Return the path of a runtime's program."""
    found = shutil.which(name)
    assert found, f"{name} is not installed"
    return found


@pytest.fixture(scope="module")
def runtimes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, Path]]:
    """An engine that knows runc and crun, and a script around runc that keeps what it sees in a folder."""
    folder = tmp_path_factory.mktemp("runtime")
    script = folder / "watched"
    script.write_text(WRAPPER.format(folder=folder, runc=where("runc")))
    script.chmod(0o755)
    known: dict[str, dict[str, object]] = {name: {"path": where(name)} for name in NAMES}
    known |= {"watched": {"path": str(script)}, "missing": {"path": "/nonexistent/runtime"}}
    engine = Engine()
    try:
        (engine.root / "daemon.json").write_text(json.dumps({"runtimes": known}))
        engine.start()
        engine.import_busybox()
        yield engine, folder
    finally:
        engine.destroy()


@pytest.fixture
def engine(runtimes: tuple[Engine, Path]) -> Iterator[Engine]:
    """The engine, without containers afterwards."""
    engine, _ = runtimes
    yield engine
    engine.remove_all()
    until(lambda: not list((engine.run_root / "containers").iterdir()))


@pytest.mark.parametrize("name", NAMES)
def test_a_container_of_another_runtime(engine: Engine, name: str):
    """Start, streams, exec, logs, stats, top, pause, update, stop, restart, removal."""
    flags = ("--runtime", name, "--name", "aa", "-m", "64m", "-e", "A=1", "-h", "h1")
    script = "trap 'exit 7' TERM; echo ready $A $(hostname) $(id -u) $HOME $$; while :; do sleep 0.05; done"
    engine.docker("run", "-d", *flags, "busybox", "sh", "-c", script)
    until(lambda: "ready" in engine.docker("logs", "aa"))
    assert engine.docker("logs", "aa") == "ready 1 h1 0 /root 1"
    assert engine.docker("exec", "-u", "web", "aa", "sh", "-c", "id -u; echo $HOME").split() == ["1000", "/home/web"]
    assert engine.docker("exec", "-i", "aa", "cat", input="through") == "through"
    assert engine.run("exec", "aa", "sh", "-c", "exit 9").returncode == 9
    assert "executable file" in engine.run("exec", "aa", "nosuch").stdout + engine.run("exec", "aa", "nosuch").stderr
    assert "while" in engine.docker("top", "aa")
    assert "64MiB" in engine.docker("stats", "--no-stream", "--format", "{{.MemUsage}}", "aa")
    pid, full = engine.docker("inspect", "-f", "{{.State.Pid}} {{.Id}}", "aa").split()
    assert engine.group(full) in Path(f"/proc/{pid}/cgroup").read_text()
    engine.docker("update", "-m", "96m", "--memory-swap", "128m", "aa")
    engine.docker("cp", "-", "aa:/tmp", input=busybox_tar())
    assert "busybox" in engine.docker("exec", "aa", "ls", "/tmp/bin")
    engine.docker("pause", "aa")
    engine.docker("unpause", "aa")
    engine.docker("stop", "aa")
    assert engine.docker("wait", "aa") == "7"
    engine.docker("restart", "-t", "0", "aa")
    assert engine.docker("inspect", "-f", "{{.State.Running}}", "aa") == "true"
    engine.docker("rm", "-f", "aa")
    assert not [path for path in Path("/sys/fs/cgroup").glob(f"*{engine.group(full)}")]


@pytest.mark.parametrize("name", NAMES)
def test_a_privileged_container_can_be_copied_from_and_to(engine: Engine, tmp_path: Path, name: str):
    engine.docker("run", "-d", "--name", "aa", "--privileged", "--runtime", name, "busybox", "sleep", "1000")
    engine.docker("cp", "aa:/etc/passwd", str(tmp_path / "passwd"))
    assert "web:" in (tmp_path / "passwd").read_text()
    engine.docker("cp", str(tmp_path / "passwd"), "aa:/tmp/there")
    assert "web:" in engine.docker("exec", "aa", "cat", "/tmp/there")
    engine.docker("restart", "-t", "0", "aa")
    engine.docker("cp", "aa:/tmp/there", str(tmp_path / "back"))


@pytest.mark.parametrize("name", NAMES)
def test_streams_and_exit_codes(engine: Engine, name: str):
    run = ("run", "--rm", "--runtime", name)
    ran = engine.run(*run, "busybox", "sh", "-c", "echo out; echo err >&2; exit 5")
    assert (ran.stdout, ran.stderr, ran.returncode) == ("out\n", "err\n", 5)
    assert engine.docker(*run, "-i", "busybox", "wc", "-c", input="x" * 1_000_000) == "1000000"
    assert engine.run(*run, "busybox", "sh", "-c", "kill -9 $$; sleep 1 & wait").returncode == 0  # process 1 is immune
    missing = engine.run(*run, "busybox", "nosuch")
    assert (missing.returncode, "executable file" in missing.stderr) == (127, True), missing.stderr
    out = engine.run(*run, "-u", "nosuch", "busybox", "true")
    assert "unable to find user nosuch: no matching entries in passwd file" in out.stderr
    assert engine.docker("ps", "-aq") == ""


@pytest.mark.parametrize("name", NAMES)
def test_a_terminal(engine: Engine, name: str):
    shell = pexpect.spawn(
        "docker", ["run", "--rm", "-it", "--runtime", name, "busybox", "sh"],
        env=engine.environment, encoding="utf-8", timeout=20, dimensions=(31, 101),
    )  # fmt: skip
    shell.expect("/ # ")
    shell.sendline("stty size; tty")
    shell.expect("31 101")
    shell.expect("/dev/pts/0")
    shell.sendline("exit 4")
    shell.expect(pexpect.EOF)
    shell.close()
    assert shell.exitstatus == 4
    engine.docker("run", "-d", "--name", "aa", "--runtime", name, "busybox", "sleep", "1000")
    shell = pexpect.spawn("docker", ["exec", "-it", "aa", "tty"], env=engine.environment, encoding="utf-8", timeout=20)
    shell.expect("/dev/pts/0")
    shell.expect(pexpect.EOF)
    shell.close()


@pytest.mark.parametrize("name", NAMES)
def test_the_container_is_as_confined_as_ours(engine: Engine, name: str):
    run = ("run", "--rm", "--runtime", name)
    status = engine.docker(*run, "busybox", "grep", "-E", "^(CapBnd|CapInh|Seccomp):", "/proc/self/status").split()
    assert (status[1], status[3], status[5]) == ("0" * 16, "00000000a80425fb", "2")
    assert "Read-only" in engine.run(*run, "--read-only", "busybox", "touch", "/x").stderr
    assert engine.docker(*run, "--pids-limit", "20", "--init", "busybox", "sh", "-c", "echo $PPID") == "1"
    shared = engine.docker(*run, "--network", "host", "busybox", "readlink", "/proc/self/ns/net")
    assert shared == os.readlink("/proc/self/ns/net")
    assert "eth0" in engine.docker(*run, "busybox", "ls", "/sys/class/net").split()
    gateway = engine.docker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "bridge")
    assert "0% packet loss" in engine.docker(*run, "busybox", "ping", "-c", "1", "-W", "2", gateway)


@pytest.mark.parametrize("name", NAMES)
def test_shared_memory_of_a_container_of_ours(engine: Engine, name: str):
    engine.docker("run", "-d", "--name", "aa", "--ipc", "shareable", "busybox", "sleep", "1000")
    engine.docker("exec", "aa", "sh", "-c", "echo shared > /dev/shm/file")
    words = ("--ipc", "container:aa", "busybox", "cat", "/dev/shm/file")
    assert engine.docker("run", "--rm", "--runtime", name, *words) == "shared"


@pytest.mark.parametrize("name", NAMES)
def test_volumes(engine: Engine, name: str):
    """A folder, a part of one, and a file system that is mounted for containers alone."""
    engine.docker("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "memory")
    engine.docker("run", "-d", "--name", "ours", "-v", "memory:/m", "-v", "kept:/k", "busybox", "sleep", "1000")
    engine.docker("exec", "ours", "sh", "-c", "echo in memory > /m/file; mkdir /k/part; echo in part > /k/part/file")
    part = "type=volume,source=kept,target=/p,volume-subpath=part,readonly"
    flags = ("--runtime", name, "-v", "memory:/m", "-v", "kept:/k", "--mount", part)
    script = "cat /m/file /p/file; echo back > /k/answer; touch /p/x"
    ran = engine.run("run", "--rm", *flags, "busybox", "sh", "-c", script)
    assert ran.stdout == "in memory\nin part\n"
    assert "Read-only file system" in ran.stderr
    assert engine.docker("exec", "ours", "cat", "/k/answer") == "back"
    engine.docker("rm", "-f", "ours")
    engine.docker("volume", "rm", "memory", "kept")


@pytest.mark.parametrize("name", NAMES)
def test_over_its_memory_it_is_killed_and_says_so(engine: Engine, name: str):
    flags = ("--runtime", name, "--name", "aa", "-m", "16m", "--memory-swap", "16m")
    assert engine.run("run", *flags, "busybox", "tail", "/dev/zero").returncode == 137
    assert engine.docker("inspect", "-f", "{{.State.OOMKilled}}", "aa") == "true"


@pytest.mark.parametrize("name", NAMES)
def test_it_outlives_the_engine(engine: Engine, name: str):
    script = "while :; do date; sleep 0.1; done"
    engine.docker("run", "-d", "--name", "aa", "--runtime", name, "busybox", "sh", "-c", script)
    pid = engine.docker("inspect", "-f", "{{.State.Pid}}", "aa")
    engine.crash()
    engine.start()
    assert engine.docker("inspect", "-f", "{{.State.Pid}} {{.State.Running}}", "aa") == f"{pid} true"
    assert engine.docker("exec", "aa", "echo", "still") == "still"
    engine.docker("stop", "-t", "0", "aa")


def test_annotations_reach_the_runtime(runtimes: tuple[Engine, Path]):
    engine, folder = runtimes
    engine.docker("run", "--rm", "--runtime", "watched", "--annotation", "a.b/c=d", "busybox", "true")
    assert json.loads((folder / "config.json").read_text())["annotations"] == {"a.b/c": "d"}

    def verbs() -> list[str]:
        return [line.split("json ")[1].split()[0] for line in (folder / "calls").read_text().splitlines()]

    until(lambda: len(verbs()) == 3)
    assert verbs() == ["create", "start", "delete"]


def test_mounts_of_it_are_nobody_elses(engine: Engine):
    before = mounttable.lines()
    engine.docker("run", "-d", "--name", "aa", "--runtime", "runc", "busybox", "sleep", "1000")
    assert mounttable.lines() == before


def test_runtimes_that_are_not_there(engine: Engine):
    ran = engine.run("run", "--rm", "--runtime", "nosuch", "busybox", "true")
    assert (ran.returncode, "unknown or invalid runtime name: nosuch" in ran.stderr) == (125, True)
    body = '{"Image":"busybox","Cmd":["true"],"HostConfig":{"Runtime":"nosuch"}}'
    assert engine.api("POST", "/containers/create", body)[0] == 400
    ran = engine.run("run", "--rm", "--runtime", "missing", "busybox", "true")
    assert (ran.returncode, "/nonexistent/runtime" in ran.stderr) == (127, True), ran.stderr
    assert set(json.loads(engine.docker("info", "-f", "{{json .Runtimes}}"))) >= {"wherry", "runc", "crun", "watched"}


def test_a_supervisor_that_dies_takes_it_along(engine: Engine):
    engine.docker("run", "-d", "--name", "aa", "--runtime", "crun", "busybox", "sleep", "1000")
    pid = int(engine.docker("inspect", "-f", "{{.State.Pid}}", "aa"))
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, 9)
    assert engine.docker("wait", "aa") == "137"
    until(lambda: not Path(f"/proc/{pid}").exists() or "(sleep) Z" in Path(f"/proc/{pid}/stat").read_text())


def test_a_default_runtime(own_engine: Engine):
    (own_engine.root / "daemon.json").write_text(
        json.dumps({"runtimes": {"crun": {"path": "crun"}}, "default-runtime": "crun"})
    )
    own_engine.start()
    own_engine.import_busybox()
    own_engine.docker("run", "-d", "--name", "aa", "busybox", "sleep", "1000")
    full = own_engine.docker("inspect", "-f", "{{.Id}}", "aa")
    state = own_engine.run_root / "containers" / full / "runtime"
    listed = subprocess.run(["crun", "--root", str(state), "list", "-q"], capture_output=True, text=True, check=True)
    assert listed.stdout.strip() == full
