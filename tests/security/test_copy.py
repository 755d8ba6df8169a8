"""docker cp against those who race it: links that change while paths are walked, and clients that go away.

The ways of CVE-2018-15664 and CVE-2019-14271. The attacker works on a volume from outside, where nothing slows it down.
"""

from __future__ import annotations

import http.client
import os
import shutil
import socket
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests import tars
from tests.engine import Engine

pytestmark = [pytest.mark.root, pytest.mark.engine]

ROUNDS = 1000
SECRET = b"belongs to the host"


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


def _fill(folder: Path) -> None:
    (folder / "e").mkdir(parents=True, exist_ok=True)
    (folder / "f").write_bytes(b"belongs to the container")
    (folder / "e/f").write_bytes(b"belongs to the container")


def _clear(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


class Swapper(threading.Thread):
    """Puts a link in the place of a directory, and the directory back, as fast as it goes."""

    def __init__(self, folder: Path, target: Path) -> None:
        super().__init__(daemon=True)
        self.folder, self.target = folder, target
        self.turns = 0
        self.stop = False

    def run(self) -> None:
        """Swap until told to stop; a copy may have made something at the place meanwhile, which gives way."""
        aside = self.folder.with_name("aside")
        while not self.stop:
            try:
                os.rename(self.folder, aside)
                os.symlink(self.target, self.folder)
                self.turns += 1
                time.sleep(0)
                _clear(self.folder)
                os.rename(aside, self.folder)
            except OSError:
                _clear(self.folder)
                _clear(aside)
                _fill(self.folder)
            time.sleep(0)


@contextmanager
def swapping(folder: Path, target: Path) -> Iterator[Swapper]:
    swapper = Swapper(folder, target)
    swapper.start()
    try:
        yield swapper
    finally:
        swapper.stop = True
        swapper.join()


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A directory of the host that the container has no way to."""
    (tmp_path / "canary").mkdir()
    (tmp_path / "canary/f").write_bytes(SECRET)
    return tmp_path / "canary"


@pytest.fixture
def volume(engine: Engine, tmp_path: Path) -> Path:
    """A volume at /v of the running container aa, with a directory in it."""
    made = tmp_path / "v"
    _fill(made / "d")
    engine.docker("run", "-d", "--name", "aa", "-v", f"{made}:/v", "busybox", "sleep", "1000")
    return made


@pytest.mark.parametrize("path", ["/v/d", "/v/d/f", "/v/d/.", "/v"])
def test_nothing_of_the_host_comes_out(engine: Engine, volume: Path, canary: Path, path: str) -> None:
    statuses = set()
    with closing(Connection(engine)) as connection, swapping(volume / "d", canary) as swapper:
        for _ in range(ROUNDS):
            status, data = connection.ask("GET", f"/containers/aa/archive?path={path}")
            statuses.add(status)
            assert SECRET not in data
            assert status in (200, 400, 404)
    assert swapper.turns > 100
    assert 200 in statuses


@pytest.mark.parametrize("path", ["/v/d", "/v"])
def test_nothing_of_the_host_is_written(engine: Engine, volume: Path, canary: Path, path: str) -> None:
    below = "d/" if path == "/v" else ""
    data = tars.archive(
        [
            tars.folder(f"{below}n"),
            tars.file(f"{below}n/x", b"x"),
            tars.file(f"{below}f", b"x"),
            tars.node(f"{below}p", tarfile.FIFOTYPE),
        ]
    )
    before = canary.stat()
    statuses = set()
    with closing(Connection(engine)) as connection, swapping(volume / "d", canary) as swapper:
        for _ in range(ROUNDS):
            statuses.add(connection.ask("PUT", f"/containers/aa/archive?path={path}", data)[0])
    assert swapper.turns > 100
    assert 200 in statuses
    assert statuses <= {200, 400, 404, 500}
    assert os.listdir(canary) == ["f"]
    assert (canary / "f").read_bytes() == SECRET
    assert (canary.stat().st_mtime_ns, canary.stat().st_mode) == (before.st_mtime_ns, before.st_mode)


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
    process = Path(f"/proc/{engine.process.pid}")
    return len(os.listdir(process / "fd")), len((process / "mountinfo").read_text().splitlines())


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
