"""Further processes in a container under `wherry-runtime`."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.kernel.oci.runtimes import until

pytestmark = pytest.mark.root


def test_exec_in_the_foreground(running):
    result = running("exec", "-e", "A=b", "--cwd", "/tmp", running.id, "sh", "-c", "pwd; echo $A; cat; exit 9",
                     stdin=subprocess.PIPE, input="in\n")  # fmt: skip
    assert (result.returncode, result.stdout, result.stderr) == (9, "/tmp\nb\nin\n", "")
    inside = "for n in ipc mnt net pid uts cgroup; do ls -l /proc/self/ns/$n; done"
    first = "for n in ipc mnt net pid uts cgroup; do ls -l /proc/1/ns/$n; done"
    links = [
        [line.split("-> ")[1] for line in running.ok("exec", running.id, "sh", "-c", script).splitlines()]
        for script in (inside, first)
    ]
    assert links[0] == links[1]
    assert len(links[0]) == 6


def test_exec_users(running):
    assert running.ok("exec", "-u", "5:6", running.id, "id").split()[:2] == ["uid=5", "gid=6"]
    assert running.ok("exec", "-u", "web", running.id, "id").split()[0] == "uid=33(web)"


def test_exec_by_process_file_detached(running):
    process = {**running.spec["process"], "args": ["sh", "-c", "echo from file >/dev/shm/x; sleep 30"]}
    (running.folder / "process.json").write_text(json.dumps(process))
    pid_file = running.folder / "exec.pid"
    running.ok("exec", "-d", "-p", "process.json", "--pid-file", str(pid_file), running.id, stdout=None, stderr=None)
    until(lambda: running("exec", running.id, "cat", "/dev/shm/x").stdout == "from file\n")
    assert int(pid_file.read_text()) in json.loads(running.ok("ps", "-f", "json", running.id))


def test_exec_failures(running):
    for argv, message in (
        (["no-such"], 'exec: "no-such": executable file not found in $PATH'),
        (["/etc"], "is a directory"),
        ([], "exec args cannot be empty"),
    ):
        result = running("exec", running.id, *argv)
        assert result.returncode == 255
        assert message in result.stderr
    result = running("exec", "--cwd", "/no/such", running.id, "true")
    assert result.returncode == 255
    assert 'chdir to cwd ("/no/such") set in config.json failed: no such file' in result.stderr
