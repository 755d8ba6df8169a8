"""Followers of a log that do not read, stand still or die: who reads has all, and nobody else pays for the rest."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.engine import Engine
from tests.waiting import until

pytestmark = [pytest.mark.root]

COUNT = 250_000
REST = "x" * 74
"""Lines that make some 20 MB."""
PATIENCE = 60.0


def resident(pid: int) -> int:
    """Return the private memory of a process in bytes."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_")) * 1024


class Follower:
    """docker logs -f in a process of its own."""

    def __init__(self, engine: Engine) -> None:
        command = ["docker", "logs", "-f", "aa"]
        self.process = subprocess.Popen(
            command, env=engine.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self.digest = hashlib.sha256()
        self.size = 0
        self.thread: threading.Thread | None = None
        assert self.process.stdout is not None
        first = self.process.stdout.readline()
        assert first == b"ready\n"

    def read(self) -> None:
        """Read to the end, in a thread."""
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        while data := self.process.stdout.read1(1 << 20):
            self.digest.update(data)
            self.size += len(data)

    def join(self) -> str:
        """Wait for the end and return the digest of what was read."""
        assert self.thread is not None
        self.thread.join(120)
        assert not self.thread.is_alive()
        self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.digest.hexdigest()


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_followers_that_stop_reading_hold_up_nobody(engine: Engine, driver: str) -> None:
    lines = f"seq {COUNT} | sed 's/$/{REST}/'"
    script = f"echo ready; while [ ! -e /go ]; do sleep 0.05; done; {lines}; echo done > /out; sleep 1000"
    words = ("--log-driver", driver, "--log-opt", "max-size=1g")
    engine.docker("run", "-d", "--name", "aa", "--network", "none", *words, "busybox", "sh", "-c", script)
    followers = [Follower(engine) for _ in range(8)]
    reading, stuck, standing, killed = followers[:3], followers[3:6], followers[6], followers[7]
    try:
        for each in reading:
            each.read()
        standing.process.send_signal(signal.SIGSTOP)
        assert engine.process is not None
        before = resident(engine.process.pid)
        engine.docker("exec", "aa", "touch", "/go")
        until(lambda: engine.run("exec", "aa", "cat", "/out").stdout == "done\n", seconds=PATIENCE)
        killed.process.kill()
        written = b"".join(b"%d%b\n" % (number, REST.encode()) for number in range(1, COUNT + 1))
        until(lambda: all(each.size == len(written) for each in reading), seconds=PATIENCE)
        # five that read nothing: 100 MB if the engine kept it for them
        assert resident(engine.process.pid) - before < 25_000_000
        standing.process.send_signal(signal.SIGCONT)
        for each in (*stuck, standing):
            each.read()  # what they have not read is still theirs
        engine.docker("kill", "aa")
        assert {each.join() for each in (*reading, *stuck, standing)} == {hashlib.sha256(written).hexdigest()}
    finally:
        for each in followers:
            each.process.kill()
            each.process.wait()
            if each.process.stdout is not None:
                each.process.stdout.close()


@pytest.mark.slow
def test_ten_gigabytes_are_as_quick_as_ten_lines(engine: Engine) -> None:
    """Their tail, and what was logged since some time: by the time, and by the bytes that the engine reads."""
    engine.docker("run", "--name", "aa", "--log-opt", "max-size=-1", "busybox", "echo", "last")
    path = Path(engine.docker("inspect", "-f", "{{.LogPath}}", "aa"))
    last = path.read_bytes()
    text = b"x" * 1000
    with path.open("wb") as file:
        for second in range(10_000):  # from 00:13:20 to 03:00:00, a megabyte in each
            hour, rest = divmod(second + 800, 3600)
            stamp = b"2026-01-01T%02d:%02d:%02d.5Z" % (hour, rest // 60, rest % 60)
            line = b'{"log":"%05d %b\\n","stream":"stdout","time":"%b"}\n' % (second, text, stamp)
            file.write(line * (1 + (1_000_000 // len(line))))
        file.write(last)
    try:
        assert path.stat().st_size > 10_000_000_000
        _check_windows(engine)
    finally:
        path.unlink()


def _check_windows(engine: Engine) -> None:
    assert engine.process is not None
    io = Path(f"/proc/{engine.process.pid}/io")
    for words, first, end in (
        (("--tail", "10"), b"09999", b"last\n"),
        (("--since", "2026-01-01T02:59:59Z"), b"09999", b"last\n"),
        (("--since", "2026-01-01T01:00:00.2Z", "--until", "2026-01-01T01:00:01Z"), b"02800", b"\n"),
        (("--until", "2026-01-01T00:13:21Z"), b"00000", b"\n"),
        (("--since", "2026-06-01T00:00:00Z", "--until", "2026-06-01T00:00:01Z"), b"", b""),
    ):
        read, begin = int(io.read_text().split()[1]), time.monotonic()
        command = ["docker", "logs", *words, "aa"]
        shown = subprocess.run(command, env=engine.environment, capture_output=True, check=True).stdout
        assert time.monotonic() - begin < 3
        assert int(io.read_text().split()[1]) - read < 20_000_000
        assert shown.startswith(first)
        assert shown.endswith(end)
        assert shown.count(b"\n") < 3000
