"""The small init as the first process of a PID namespace: orphans, signals, terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import time

import pytest

from wherry.runtime import tinyinit

pytestmark = pytest.mark.root
FORWARDED = sorted(set(signal.valid_signals()) - {9, 17, 19, 20, 21, 22, 18})


@pytest.fixture
def init(tmp_path):
    path = tmp_path / "docker-init"
    tinyinit.write(str(path))
    return str(path)


def in_namespace(init: str, script: str, **options) -> subprocess.Popen[str]:
    argv = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", init, "--", "/bin/sh", "-c", script]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, **options)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=20)
    return process.returncode, output


def test_orphans_are_reaped(init):
    script = """
        for i in 1 2 3 4 5; do (sleep 0.05 & exec true); done
        sleep 0.3
        grep -l 'State:.Z' /proc/[0-9]*/status | wc -l
        ls -d /proc/[0-9]* | wc -l
    """
    code, output = finish(in_namespace(init, script))
    zombies, processes = output.split()
    assert (code, zombies) == (0, "0")
    assert int(processes) <= 4  # init, sh, ls, wc


def test_it_is_the_first_process_and_its_command_leads_a_group(init):
    script = "read pid comm state ppid pgrp rest </proc/self/stat; echo $ppid $$ $(cut -d' ' -f5 /proc/$$/stat)"
    assert finish(in_namespace(init, script))[1].split()[1:] == ["2", "2"]


def test_a_wait_status_of_the_namespace_is_the_command_s(init):
    assert finish(in_namespace(init, "sleep 100 & exit 42"))[0] == 42


@pytest.mark.parametrize("number", FORWARDED)
def test_signals_are_handed_on(init, number):
    script = f"trap 'echo got' {number}; echo ready; kill -{number} 1; sleep 0.01; for i in 1 2 3; do sleep 0.02; done"
    code, output = finish(in_namespace(init, script))
    assert (code, output) == (0, "ready\ngot\n")


def test_a_signal_kills_the_command_and_the_status_says_so(init):
    process = in_namespace(init, "echo ready; exec sleep 100")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as children:
        first = int(children.read())
    os.kill(first, signal.SIGTERM)
    assert finish(process)[0] == 143


def test_the_signal_mask_of_the_command_is_the_one_we_were_given(init):
    grep = ("grep", "SigBlk", "/proc/self/status")
    plain = subprocess.run(grep, capture_output=True, check=True).stdout
    assert subprocess.run([init, "--", *grep], capture_output=True, check=True).stdout == plain


def test_an_ignored_child_signal_does_not_hang_it(init):
    result = subprocess.run(
        [init, "--", "/bin/sh", "-c", "exit 5"], check=False, timeout=10,
        preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
    )  # fmt: skip
    assert result.returncode == 5


def read_until(master: int, text: bytes) -> bytes:
    got, deadline = b"", time.monotonic() + 10
    while text not in got and time.monotonic() < deadline:
        if select.select([master], [], [], 0.1)[0]:
            got += os.read(master, 1024)
    return got


def test_on_a_terminal_the_command_gets_the_interrupt_key(init):
    pid, master = pty.fork()
    if pid == 0:
        script = "trap 'echo interrupted; exit 9' INT; echo ready; while :; do sleep 0.05; done"
        os.execv(init, [init, "--", "/bin/sh", "-c", script])
    try:
        assert b"ready" in read_until(master, b"ready")
        os.write(master, b"\x03")
        assert b"interrupted" in read_until(master, b"interrupted")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    finally:
        os.close(master)
