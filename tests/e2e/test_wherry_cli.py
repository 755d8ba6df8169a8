"""Our own command line against a real engine, beside docker's where both can be asked."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pexpect
import pytest

from tests.engine import Engine, busybox_tar
from tests.volumes import remove_volumes

pytestmark = [
    pytest.mark.root,
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
]

MAIN = [sys.executable, "-I", "-m", "wherry.cli.main"]


def wherry(engine: Engine, *words: str, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    given = {"stdin": subprocess.DEVNULL} if data is None else {"input": data}
    return subprocess.run([*MAIN, "-H", engine.host, *words], capture_output=True, timeout=60, **given)  # type: ignore[call-overload,no-any-return]


def out(engine: Engine, *words: str, data: bytes | None = None) -> str:
    ran = wherry(engine, *words, data=data)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.decode().removesuffix("\n")


def test_run_copies_output_and_exit_codes(engine: Engine) -> None:
    ran = wherry(engine, "run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (ran.returncode, ran.stdout, ran.stderr) == (7, b"out\n", b"err\n")
    assert wherry(engine, "run", "--rm", "busybox", "nosuch").returncode == 127
    assert wherry(engine, "run", "--rm", "busybox", "/etc").returncode == 126
    assert wherry(engine, "run", "--rm", "--network", "nosuch", "busybox", "true").returncode == 125
    assert out(engine, "ps", "-aq") == ""


def test_a_megabyte_through_stdin_and_back(engine: Engine) -> None:
    data = os.urandom(1 << 20)
    ran = wherry(engine, "run", "-i", "--rm", "busybox", "cat", data=data)
    assert ran.stdout == data


def test_the_life_of_a_container(engine: Engine) -> None:
    identity = out(engine, "create", "--name", "life", "-e", "A=1", "busybox", "sh", "-c", "echo $A; sleep 1000")
    assert re.fullmatch(r"[0-9a-f]{64}", identity)
    assert out(engine, "start", "life") == "life"
    assert out(engine, "exec", "-e", "B=2", "-w", "/tmp", "life", "sh", "-c", "echo $B $PWD") == "2 /tmp"
    assert wherry(engine, "exec", "life", "sh", "-c", "exit 9").returncode == 9
    assert out(engine, "rename", "life", "death") == ""
    assert out(engine, "ps", "--format", "{{.Names}} {{.State}}") == "death running"
    assert out(engine, "pause", "death") == "death"
    assert out(engine, "inspect", "-f", "{{.State.Status}}", "death") == "paused"
    assert out(engine, "unpause", "death") == "death"
    assert "sleep 1000" in out(engine, "top", "death")
    assert out(engine, "logs", "death") == "1"
    assert out(engine, "stop", "-t", "0", "death") == "death"
    assert out(engine, "wait", "death") == "137"
    assert out(engine, "inspect", "-f", "{{.State.ExitCode}}", "death") == "137"
    assert out(engine, "restart", "-t", "0", "death") == "death"
    assert out(engine, "kill", "death") == "death"
    assert out(engine, "rm", "-f", "death") == "death"
    assert wherry(engine, "rm", "death").returncode == 1


SAME = [
    # "3 seconds ago" would be "4 seconds ago" a moment later: no column that tells an age.
    ["ps", "-a", "--no-trunc", "--format", "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.Ports}}\t{{.Names}}"],
    ["ps", "-a", "--format", "{{.ID}} {{.Image}} {{.Command}} {{.Names}} {{.Networks}} {{.Ports}} {{.State}}"],
    ["images", "--format", "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.Size}}"],
    ["images", "-q", "--no-trunc"],
    ["inspect", "same"],
    ["inspect", "-f", "{{.Id}} {{.Config.Env}} {{json .HostConfig.Memory}}", "same"],
    ["inspect", "-f", "{{range $k, $v := .NetworkSettings.Networks}}{{$k}}={{$v.Gateway}};{{end}}", "same"],
    ["inspect", "nosuch"],
    ["logs", "same"],
    ["logs", "--tail", "1", "same"],
    ["wait", "same"],
    ["start", "nosuch"],
    ["stop", "nosuch"],
    ["rename", "nosuch", "other"],
    ["tag", "nosuch", "x"],
    ["exec", "same", "true"],
    ["volume", "ls"],
    ["volume", "ls", "-q", "--filter", "name=^same"],
    ["volume", "ls", "--format", "{{.Name}} {{.Labels}} {{.Scope}} {{.Mountpoint}}"],
    ["volume", "inspect", "same"],
    ["volume", "inspect", "-f", "{{.Name}} {{.Driver}}", "same", "nosuch"],
    ["volume", "create", "-d", "nosuch", "other"],
    ["volume", "create", "a"],
    ["volume", "rm", "nosuch"],
    ["volume", "rm", "same"],
    ["volume", "prune", "-f"],
    ["ps", "-a", "--format", "{{.Mounts}} {{.LocalVolumes}}"],
    ["version", "-f", "{{.Server.Version}}"],
    ["info", "-f", "{{.Driver}} {{.NCPU}}"],
]


def answers(engine: Engine, words: tuple[str, ...] | list[str]) -> tuple[object, object]:
    """What docker and wherry answer to the same words."""
    theirs = engine.run(*words)
    ours = wherry(engine, *words)
    stderr = theirs.stderr.replace("docker", "wherry")
    found = (ours.returncode, ours.stdout.decode(), ours.stderr.decode())
    return found, (theirs.returncode, theirs.stdout, stderr)


# Older clients, such as Debian 12's, say these in other words, or ask for an older image format.
SAME_SINCE_28 = [
    ["inspect", "busybox"],
    ["rm", "nosuch"],
    ["rmi", "nosuch"],
    ["run", "--name", "same", "busybox", "true"],
    ["run", "-e", "=x", "busybox", "true"],
]


def docker_major() -> int:
    text = subprocess.run(["docker", "--version"], capture_output=True, text=True, check=True).stdout
    return int(text.split()[2].split(".")[0])


def test_the_same_words_give_the_same_answers_as_docker(engine: Engine) -> None:
    words = ["-m", "32m", "-v", "same:/v", "busybox", "sh", "-c", "echo one; echo two >&2; exit 4"]
    engine.run("run", "--name", "same", *words)
    modern = docker_major() >= 28
    for words in SAME + SAME_SINCE_28:
        theirs = engine.run(*words)
        ours = wherry(engine, *words)
        assert ours.returncode == theirs.returncode, words
        if modern or words in SAME:
            assert ours.stdout.decode() == theirs.stdout, words
            assert ours.stderr.decode() == theirs.stderr.replace("docker", "wherry"), words


def test_events_come_as_they_happen(engine: Engine) -> None:
    command = [*MAIN, "-H", engine.host, "events", "--format", "{{.Action}}", "--filter", "type=container"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        time.sleep(0.5)
        out(engine, "run", "--rm", "busybox", "true")
        actions = [process.stdout.readline().strip() for _ in range(5)]
        process.terminate()  # SIGINT may be ignored: a shell that runs us in the background has it so
    assert actions[0] == "create"
    assert {"start", "die", "destroy"} <= set(actions)


def test_a_terminal_with_resize_and_ctrl_c(engine: Engine) -> None:
    argv = [*MAIN[1:], "-H", engine.host, "run", "-it", "--rm", "busybox", "sh"]
    shell = pexpect.spawn(MAIN[0], argv, timeout=10, dimensions=(30, 100))
    shell.expect("/ # ")
    shell.sendline("stty size")
    shell.expect("30 100")
    shell.expect("/ # ")
    shell.setwinsize(41, 121)
    time.sleep(0.5)
    shell.sendline("stty size")
    shell.expect("41 121")
    shell.expect("/ # ")
    shell.sendline("sleep 1000")
    time.sleep(0.5)
    shell.send("\x03")
    shell.expect("/ # ")
    shell.sendline("exit 5")
    shell.expect(pexpect.EOF)
    shell.close()
    assert shell.exitstatus == 5


def test_the_detach_keys_let_go_and_attach_comes_back(engine: Engine) -> None:
    argv = [*MAIN[1:], "-H", engine.host, "run", "-it", "--name", "aa", "busybox", "sh"]
    shell = pexpect.spawn(MAIN[0], argv, timeout=10)
    shell.expect("/ # ")
    shell.send("\x10\x11")
    shell.expect("read escape sequence")
    shell.expect(pexpect.EOF)
    shell.close()
    assert shell.exitstatus == 0
    assert out(engine, "inspect", "-f", "{{.State.Running}}", "aa") == "true"
    again = pexpect.spawn(MAIN[0], [*MAIN[1:], "-H", engine.host, "attach", "aa"], timeout=10)
    time.sleep(0.3)
    again.sendline("exit 6")
    again.expect(pexpect.EOF)
    again.close()
    assert again.exitstatus == 6


def test_a_signal_to_the_command_reaches_the_container(engine: Engine) -> None:
    script = "trap 'echo caught; exit 3' TERM; echo ready; while true; do sleep 0.1; done"
    command = [*MAIN, "-H", engine.host, "run", "--rm", "busybox", "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        process.terminate()
        assert process.stdout.read() == b"caught\n"
        assert process.wait(10) == 3


def test_images_are_imported_tagged_and_removed(engine: Engine) -> None:
    identity = out(engine, "import", "-c", "CMD echo made", "-", "cli:one", data=busybox_tar())
    assert identity.startswith("sha256:")
    out(engine, "tag", "cli:one", "cli:two")
    assert out(engine, "run", "--rm", "cli:two") == "made"
    assert json.loads(out(engine, "inspect", "-f", "{{json .RepoTags}}", "cli:one")) == ["cli:one", "cli:two"]
    assert out(engine, "rmi", "cli:two") == "Untagged: cli:two"
    assert "Deleted: sha256:" in out(engine, "rmi", "cli:one")


def test_dial_stdio_carries_a_request(engine: Engine) -> None:
    request = b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert wherry(engine, "system", "dial-stdio", data=request).stdout.endswith(b"OK")


BACKGROUND = """
set -e
ip link set lo up
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib
"$@" import - busybox </dev/fd/3 2>/run/first
cat /run/first
"$@" run --rm busybox echo ran
"$@" run --rm busybox echo again
"$@" inspect -f '{{.Id}}' busybox
"""


def test_with_no_engine_running_one_is_started_and_says_so(tmp_path: Path) -> None:
    """In mount and network namespaces of its own: the default folders and the default bridge are the machine's."""
    archive = tmp_path / "busybox.tar"
    archive.write_bytes(busybox_tar())
    command = ["unshare", "--mount", "--net", "sh", "-c", f"exec 3<{archive}\n{BACKGROUND}", "sh", *MAIN]
    environment = {"PATH": os.environ["PATH"]}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, cwd=tmp_path)
    started = re.search(r"wherry: started wherryd in the background \(pid (\d+), log (\S+)\)", ran.stdout)
    assert started, ran.stdout + ran.stderr
    pid = int(started.group(1))
    try:
        assert ran.returncode == 0, ran.stderr
        assert "\nran\nagain\nsha256:" in ran.stdout
        assert ran.stdout.count("started wherryd") == 1
        assert "started wherryd" not in ran.stderr
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        assert os.getsid(pid) == pid
    finally:
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 20
        while _runs(pid):
            assert time.monotonic() < deadline, "the engine does not stop"
            time.sleep(0.05)
        for group in Path("/sys/fs/cgroup").glob("*/wherry"):
            group.rmdir()


def _runs(pid: int) -> bool:
    """Whether it is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_volumes_and_mounts(engine: Engine) -> None:
    remove_volumes(engine)
    assert out(engine, "volume", "create", "--label", "a=b", "vv") == "vv"
    script = "echo 1 > /v/f; grep -c -E ' /(t|n) ' /proc/self/mountinfo"
    words = ("-v", "vv:/v", "--tmpfs", "/t", "--mount", "type=volume,dst=/n", "-v", "/an", "busybox")
    assert out(engine, "run", "--name", "aa", *words, "sh", "-c", script) == "2"
    assert out(engine, "run", "--rm", "--volumes-from", "aa:ro", "busybox", "cat", "/v/f") == "1"
    assert len(out(engine, "volume", "ls", "-q").split()) == 3
    assert "remove vv: volume is in use - [" in wherry(engine, "volume", "rm", "vv").stderr.decode()
    assert out(engine, "rm", "-v", "aa") == "aa"
    assert out(engine, "volume", "ls", "-q") == "vv"
    assert out(engine, "volume", "inspect", "-f", "{{.Labels.a}}", "vv") == "b"
    assert wherry(engine, "volume", "prune", "-a", data=b"n\n").returncode == 1
    assert out(engine, "volume", "prune", "-af").startswith("Deleted Volumes:\nvv")
    assert out(engine, "volume", "ls", "-q") == ""
