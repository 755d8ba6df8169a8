"""The life cycle of a container under `wherry-runtime`, and what does not work."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.kernel.oci.runtimes import SLEEP, until
from wherry.runtime import cgroups
from wherry.runtime.example import EXAMPLE

pytestmark = pytest.mark.root


def test_run_gives_the_output_and_the_exit_code(runtime):
    runtime.program("sh", "-c", "echo out; echo err >&2; cat; hostname; exit 7")
    result = runtime("run", runtime.id, stdin=subprocess.PIPE, input="in\n")
    assert (result.returncode, result.stdout, result.stderr) == (7, "out\nin\nwherry\n", "err\n")
    assert runtime.left() == []


def test_run_tells_of_a_signal_and_passes_signals_on(runtime):
    runtime.program("sh", "-c", "kill -9 $$")
    assert runtime("run", runtime.id).returncode in (0, 137)  # the first process of a namespace is spared its own
    runtime.program(*SLEEP)
    process = subprocess.Popen([*runtime.argv, "run", runtime.id], cwd=runtime.folder, stdout=subprocess.PIPE)
    (runtime.folder / "config.json").write_text(json.dumps(runtime.spec))
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 5
    process.stdout.close()
    assert runtime.left() == []


def test_create_start_state_delete(runtime):
    runtime.program("sh", "-c", "echo hi; exit 3")
    pid_file = runtime.folder / "pid"
    out = runtime.background("create", "--pid-file", str(pid_file))
    created = runtime.state()
    assert created["status"] == "created"
    assert created["pid"] == int(pid_file.read_text())
    assert created["bundle"] == str(runtime.folder)
    assert created["ociVersion"].startswith("1.")
    assert out.read_text() == ""
    assert "container with given ID already exists" in runtime("create", runtime.id).stderr
    runtime.ok("start", runtime.id)
    runtime.stopped()
    assert out.read_text() == "hi\n"
    assert runtime.state()["pid"] == 0
    assert "cannot start a container that has stopped" in runtime("start", runtime.id).stderr
    assert "container not running" in runtime("kill", runtime.id).stderr
    runtime.ok("delete", runtime.id)
    assert runtime.left() == []
    assert "container does not exist" in runtime("state", runtime.id).stderr


def test_the_running_one(runtime):
    runtime.program(*SLEEP)
    out = runtime.background("run", "-d")
    until(lambda: out.read_text() == "ready\n")
    assert runtime.state()["status"] == "running"
    assert "cannot start an already running container" in runtime("start", runtime.id).stderr
    assert f"cannot delete container {runtime.id} that is not stopped: running" in runtime("delete", runtime.id).stderr
    assert runtime.id in runtime.ok("list", "-q").split()
    assert json.loads(runtime.ok("list", "-f", "json"))[0]["id"] == runtime.id
    pid = runtime.state()["pid"]
    assert pid in json.loads(runtime.ok("ps", "-f", "json", runtime.id))
    assert str(pid) in runtime.ok("ps", runtime.id)
    assert 'unknown signal "BOGUS"' in runtime("kill", runtime.id, "BOGUS").stderr
    runtime.ok("kill", runtime.id, "TERM")
    runtime.stopped()


def test_delete_kills_a_created_one_and_with_force_a_running_one(runtime):
    runtime.program(*SLEEP)
    runtime.background("create")
    runtime.ok("delete", runtime.id)
    assert runtime.left() == []
    runtime.background("run", "-d")
    runtime.ok("delete", "--force", runtime.id)
    assert runtime.left() == []


def test_nobody_can_write_to_the_interpreter_through_the_container(runtime):
    """CVE-2019-5736. While any interpreter runs, writing is refused with ETXTBSY; later only the mount refuses it."""
    runtime.program(*SLEEP)
    runtime.background("create")
    executable = f"/proc/{runtime.state()['pid']}/exe"
    assert os.path.samefile(executable, "/proc/self/exe")
    assert os.statvfs(executable).f_flag & os.ST_RDONLY
    assert not os.statvfs("/proc/self/exe").f_flag & os.ST_RDONLY


def test_a_start_that_dies_half_way_ends_the_container(runtime):
    runtime.program("touch", "/tmp/ran")
    runtime.background("create")
    folder = f"{runtime.folder}/root/{runtime.id}"  # the path may be longer than a socket address
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock, contextlib.chdir(folder):
        sock.connect("start.sock")
    runtime.stopped()
    assert runtime("start", runtime.id).returncode == 1


@pytest.mark.parametrize(
    ("argv", "cwd", "message"),
    [
        (["no-such"], "/", 'exec: "no-such": executable file not found in $PATH'),
        (["/no/such"], "/", 'exec: "/no/such": stat /no/such: no such file or directory'),
        (["/etc"], "/", 'exec: "/etc": is a directory'),
        (["/etc/passwd"], "/", 'exec: "/etc/passwd": permission denied'),
    ],
)
def test_programs_that_cannot_be_run(runtime, argv, cwd, message):
    runtime.program(*argv)
    result = runtime("run", runtime.id)
    assert result.returncode == 1
    assert (
        f"wherry-runtime run failed: unable to start container process: error during container init: {message}"
        in result.stderr
    )
    assert runtime.left() == []


@pytest.mark.parametrize(
    "flags", [["--pid-file", "/no/such/folder/pid"], ["--pidfd-socket", "/no/such/socket"]], ids=lambda flags: flags[0]
)
def test_a_create_that_cannot_tell_undoes_everything(runtime, flags):
    runtime.program(*SLEEP)
    result = runtime("create", *flags, runtime.id)
    assert result.returncode == 1
    assert f"wherry-runtime create failed: {flags[1].rpartition('/')[0]}" in result.stderr
    assert runtime.left() == []


def test_a_console_socket_that_is_not_there_undoes_everything(runtime):
    runtime.spec["process"]["terminal"] = True
    result = runtime("create", "--console-socket", "/no/such/socket", runtime.id)
    assert (result.returncode, "/no/such/socket" in result.stderr) == (1, True)
    assert runtime.left() == []


def test_a_group_with_others_in_it_is_left_alone(runtime):
    group = cgroups.Cgroup.create(f"/wherry-test/{runtime.id}", {})
    other = subprocess.Popen(["sleep", "100"])
    try:
        group.add(other.pid)
        result = runtime("create", runtime.id)
        assert (result.returncode, "busy" in result.stderr) == (1, True)
        assert other.poll() is None
        assert group.pids() == [other.pid]
    finally:
        other.kill()
        other.wait()
        group.remove()


def test_a_create_that_is_killed_can_be_deleted(runtime):
    """The hook holds it at the moment when everything is half made."""
    runtime.program(*SLEEP)
    runtime.spec["hooks"] = {"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "100"]}]}
    (runtime.folder / "config.json").write_text(json.dumps(runtime.spec))
    process = subprocess.Popen([*runtime.argv, "create", runtime.id], cwd=runtime.folder)
    hook = f"/proc/{process.pid}/task/{process.pid}/children"
    until(lambda: len(Path(hook).read_text().split()) == 2)
    children = [int(pid) for pid in Path(hook).read_text().split()]
    process.kill()
    process.wait()
    runtime.ok("delete", "--force", runtime.id)
    assert runtime.left() == []
    for pid in children:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def test_a_missing_bind_source_undoes_everything(runtime):
    runtime.spec["mounts"].append(
        {"destination": "/mnt", "type": "bind", "source": "/no/such/source", "options": ["bind"]}
    )
    result = runtime("create", runtime.id)
    assert result.returncode == 1
    assert "/no/such/source" in result.stderr
    assert runtime.left() == []


def test_the_json_log_has_the_reason_and_stderr_too(runtime):
    log = runtime.folder / "log.json"
    result = runtime("--log", str(log), "--log-format", "json", "state", "nope")
    assert (result.returncode, result.stderr) == (1, "container does not exist\n")
    entry = json.loads(log.read_text())
    assert (entry["level"], entry["msg"]) == ("error", "container does not exist")


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["state"], 1, 'wherry-runtime: "state" requires exactly 1 argument(s)'),
        (["frobnicate"], 3, "no such command: frobnicate"),
        (["create", "--bundle", "/no/such", "x"], 1, "wherry-runtime create failed: chdir /no/such: no such file"),
        (["create", "a/b"], 1, "wherry-runtime create failed: invalid container ID format"),
        (["exec", "nope", "true"], 255, "exec failed: container does not exist"),
        (["--systemd-cgroup", "list"], 1, "systemd does not run on this machine: leave out"),
        (["delete", "nope"], 1, "container does not exist"),
        (["pause", "nope"], 1, "container does not exist"),
    ],
)
def test_refusals(runtime, argv, code, message):
    result = runtime(*argv)
    assert result.returncode == code
    assert message in result.stderr


def test_documents(runtime):
    assert json.loads(runtime.ok("features"))["linux"]["cgroup"]["v1"] is True
    assert runtime.ok("--version").startswith("wherry-runtime version ")
    assert "create" in runtime.ok("--help")
    folder = runtime.folder / "fresh"
    folder.mkdir()
    runtime.ok("spec", "-b", str(folder))
    assert json.loads((folder / "config.json").read_text()) == EXAMPLE
    assert "exists. Remove it first" in runtime("spec", "-b", str(folder)).stderr
