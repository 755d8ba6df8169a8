"""Descriptors and terminals that `wherry-runtime` gives to a container."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import socket
import time
from pathlib import Path

import pytest

from tests.kernel.oci.runtimes import read_until

pytestmark = pytest.mark.root


def test_no_descriptor_of_the_caller_gets_in_unless_asked(runtime):
    read, write = os.pipe()
    runtime.program("sh", "-c", "ls -C /proc/self/fd; echo kept >&3")
    place = {"close_fds": False, "preexec_fn": lambda: os.dup2(write, 3)}
    try:
        plain = runtime("run", runtime.id, **place)
        assert plain.stdout.split() == ["0", "1", "2", "3"]  # 3 is the directory that ls reads
        assert not select.select([read], [], [], 0)[0]
        runtime.ok("run", "--preserve-fds", "1", runtime.id, **place)
        assert os.read(read, 100) == b"kept\n"
    finally:
        os.close(read)
        os.close(write)


def console(folder: Path, call) -> int:
    """Listen on a console socket while `call(path)` runs; return the terminal that came."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        path = folder / (f"console{time.monotonic_ns()}" + "x" * 60)
        with contextlib.chdir(folder):
            listener.bind(path.name)
        listener.listen(1)
        call(str(path))
        with listener.accept()[0] as sock:
            return socket.recv_fds(sock, 100, 1)[1][0]


def test_the_console_socket(runtime):
    runtime.spec["process"].update(terminal=True, consoleSize={"height": 33, "width": 99})
    runtime.program("sh", "-c", "tty; stty size; echo end; sleep 100")
    refused = runtime("create", runtime.id)
    assert "cannot allocate tty if the runtime will detach without setting console socket" in refused.stderr
    master = console(runtime.folder, lambda path: runtime.background("create", "--console-socket", path))
    try:
        runtime.ok("start", runtime.id)
        assert read_until(master, b"end").split() == [b"/dev/pts/0", b"33", b"99", b"end"]
        terminal = console(
            runtime.folder,
            lambda path: runtime.ok(
                "exec", "-d", "-t", "--console-socket", path, runtime.id, "sh", "-c", "tty; echo end"
            ),
        )
        assert read_until(terminal, b"end").split()[0].startswith(b"/dev/pts/")
        os.close(terminal)
    finally:
        os.close(master)


def test_a_console_socket_without_a_terminal_is_refused(runtime):
    assert "cannot use console socket" in runtime("create", "--console-socket", "/x", runtime.id).stderr


def test_run_in_the_foreground_of_a_terminal(runtime):
    runtime.spec["process"]["terminal"] = True
    runtime.program("sh", "-c", "trap 'echo interrupted; exit 4' INT; echo ready; while :; do sleep 0.05; done")
    (runtime.folder / "config.json").write_text(json.dumps(runtime.spec))
    pid, master = pty.fork()
    if pid == 0:
        os.execv(runtime.argv[0], [*runtime.argv, "run", "-b", str(runtime.folder), runtime.id])
    try:
        assert b"ready" in read_until(master, b"ready")
        os.write(master, b"\x03")
        assert b"interrupted" in read_until(master, b"interrupted")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 4
    finally:
        os.close(master)
    assert runtime.left() == []
