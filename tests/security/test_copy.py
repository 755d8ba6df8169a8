"""docker cp of containers that come and go meanwhile, and for clients that go away.

Links that change while paths are walked are in test_copy_races.
"""

from __future__ import annotations

import http.client
import os
import socket
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests import mounttable, tars
from tests.engine import Engine

pytestmark = [pytest.mark.root, pytest.mark.engine]


class Connection(http.client.HTTPConnection):
    """HTTP over an engine's socket."""

    def __init__(self, engine: Engine) -> None:
        super().__init__("engine", timeout=60)
        self._path = str(engine.socket)

    def connect(self) -> None:
        """Connect."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self._path)

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Make one request; return status and body."""
        self.request(method, path, body)
        answer = self.getresponse()
        return answer.status, answer.read()


def test_a_container_in_a_user_namespace_of_its_own_is_not_looked_into(engine: Engine, tmp_path: Path) -> None:
    """In there it may mount a file system whose server it is, and let the engine wait for it."""
    words = ["--security-opt", "seccomp=unconfined", "busybox", "unshare", "-U", "-m", "-r", "sleep", "1000"]
    engine.docker("run", "-d", "--name", "aa", *words)
    deadline = time.monotonic() + 20
    pid = engine.docker("inspect", "-f", "{{.State.Pid}}", "aa")
    while os.readlink(f"/proc/{pid}/ns/user") == os.readlink("/proc/self/ns/user"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    refused = engine.run("cp", "aa:/etc/passwd", str(tmp_path / "x"))
    assert refused.returncode == 1
    assert "a user namespace of its own" in refused.stderr
    engine.docker("rm", "-f", "aa")


def _held(engine: Engine) -> tuple[int, int]:
    """Count the descriptors of the engine, and the mounts that it sees."""
    assert engine.process
    return len(os.listdir(f"/proc/{engine.process.pid}/fd")), len(mounttable.lines(engine.process.pid))


def _kept(engine: Engine, before: tuple[int, int]) -> bool:
    """Say whether no more is held than `before`; a few descriptors come and go with networks that are kept ready."""
    descriptors, mounts = _held(engine)
    return descriptors <= before[0] + 5 and mounts <= before[1]


@pytest.mark.parametrize("running", [True, False])
def test_clients_that_go_away_leave_nothing_behind(engine: Engine, running: bool) -> None:
    engine.docker("run", "-d", "--name", "aa", "busybox", "sh", "-c", "head -c 9000000 /dev/zero >/big; sleep 1000")
    while engine.run("exec", "aa", "test", "-s", "/big").returncode:
        time.sleep(0.05)
    if not running:
        engine.docker("kill", "aa")
        engine.docker("wait", "aa")
    heads = [
        b"GET /containers/aa/archive?path=/big HTTP/1.1\r\nHost: e\r\n\r\n",
        b"GET /containers/aa/export HTTP/1.1\r\nHost: e\r\n\r\n",
        b"PUT /containers/aa/archive?path=/ HTTP/1.1\r\nHost: e\r\nContent-Length: 99999\r\n\r\nhalf",
        b"PUT /containers/aa/archive?path=/none HTTP/1.1\r\nHost: e\r\nContent-Length: 99999\r\n\r\nhalf",
    ]
    before = _held(engine)
    for turn in range(200):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(60)
            client.connect(str(engine.socket))
            client.sendall(heads[turn % len(heads)])
            if turn % 8 < 4 and turn % 4 != 2:
                client.recv(1000)
    deadline = time.monotonic() + 20
    while not _kept(engine, before) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _kept(engine, before), (before, _held(engine))
    engine.docker("start", "aa")
    engine.docker("rm", "-f", "aa")


def test_lives_that_change_while_they_are_copied(engine: Engine, tmp_path: Path) -> None:
    """Each answer is one or the other, and in the end the container can be started and removed."""
    engine.docker("create", "--name", "aa", "busybox", "sleep", "1000")
    stop = threading.Event()
    statuses: set[int] = set()
    faults: list[bytes] = []

    def copy(method: str, path: str, body: bytes | None) -> None:
        with closing(Connection(engine)) as connection:
            while not stop.is_set():
                status, said = connection.ask(method, path, body)
                statuses.add(status)
                if status not in (200, 404, 409):
                    faults.append(said)

    data = tars.archive([tars.file("f", b"x")])
    asked = [
        ("GET", "/containers/aa/archive?path=/etc", None),
        ("PUT", "/containers/aa/archive?path=/tmp", data),
        ("GET", "/containers/aa/export", None),
    ]
    threads = [threading.Thread(target=copy, args=each) for each in asked]
    before = _held(engine)
    for thread in threads:
        thread.start()
    try:
        with closing(Connection(engine)) as connection:
            for _ in range(20):
                assert connection.ask("POST", "/containers/aa/start")[0] in (204, 304)
                assert connection.ask("POST", "/containers/aa/restart?t=0")[0] == 204
                assert connection.ask("POST", "/containers/aa/kill")[0] in (204, 409)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not faults, faults[:3]
    assert 200 in statuses
    engine.docker("rm", "-f", "aa")
    deadline = time.monotonic() + 20
    while not _kept(engine, before) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _kept(engine, before), (before, _held(engine))
