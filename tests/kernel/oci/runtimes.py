"""`wherry-runtime` called on a real bundle, with what the tests of it share."""

from __future__ import annotations

import copy
import json
import os
import select
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from tests import waiting
from wherry.runtime import cgroups
from wherry.runtime.example import EXAMPLE

SLEEP = ["sh", "-c", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done"]


class Runtime:
    """Calls the command line with a root directory of its own; one container, named by the test."""

    def __init__(self, folder: Path, rootfs: Path) -> None:
        self.folder = folder
        self.id = f"t{os.getpid()}-{time.monotonic_ns()}"
        self.spec = copy.deepcopy(EXAMPLE)
        self.spec["root"]["path"] = str(rootfs)
        self.spec["process"]["terminal"] = False
        self.spec["linux"]["cgroupsPath"] = f"/wherry-test/{self.id}"
        self.argv = [sys.executable, "-m", "wherry.runtime.cli", "--root", str(folder / "root")]

    def program(self, *argv: str) -> None:
        self.spec["process"]["args"] = list(argv)

    def __call__(self, *argv: str, **options) -> subprocess.CompletedProcess[str]:
        (self.folder / "config.json").write_text(json.dumps(self.spec))
        given = options.pop("input", None)
        values = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        process = subprocess.Popen([*self.argv, *argv], text=True, cwd=self.folder, **values)
        out, err = communicate(process, given)
        # the text log quotes what it says
        return subprocess.CompletedProcess(argv, process.returncode, out or "", (err or "").replace('\\"', '"'))

    def ok(self, *argv: str, **options) -> str:
        result = self(*argv, **options)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def background(self, command: str = "create", *flags: str, **options) -> Path:
        """Create with output into a file, as pipes would be held open by the container."""
        out = self.folder / "out"
        with out.open("w") as file:
            result = self(command, *flags, self.id, stdout=file, stderr=file, **options)
        assert result.returncode == 0, out.read_text()
        return out

    def state(self) -> dict[str, object]:
        return json.loads(self.ok("state", self.id))

    def stopped(self) -> None:
        until(lambda: self.state()["status"] == "stopped")

    def left(self) -> list[str]:
        """What there is of the container in the file system."""
        directories = cgroups.Cgroup.open(f"/wherry-test/{self.id}").directories
        return [path for path in (*directories, f"{self.folder}/root/{self.id}") if os.path.exists(path)]


def communicate(process: subprocess.Popen[str], given: str | None) -> tuple[str, str]:
    """Wait for the process, and reap meanwhile what it left to us: a container ends when its execs are reaped."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return process.communicate(given, timeout=0.02)
        except subprocess.TimeoutExpired:
            given = None  # taken already
            reap(process.pid)
            if time.monotonic() > deadline:
                process.kill()
                raise


until = partial(waiting.until, seconds=10.0)


def reap(spare: int = 0) -> None:
    """Take note of the end of adopted children."""
    with open(f"/proc/self/task/{os.getpid()}/children") as children:
        pids = [int(word) for word in children.read().split()]
    for pid in pids:
        if pid != spare:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                continue


def read_until(master: int, text: bytes) -> bytes:
    got, deadline = b"", time.monotonic() + 10
    while text not in got and time.monotonic() < deadline:
        if select.select([master], [], [], 0.1)[0]:
            try:
                got += os.read(master, 4096)
            except OSError:
                break
    return got
