"""Attach and exec with every mix of streams, many clients at once, and clients that are slow or gone."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

from tests.engine import Engine
from tests.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.engine]

SCRIPT = "read line; echo out $line; echo err $line >&2"


class Raw:
    """A hijacked connection."""

    def __init__(self, engine: Engine, path: str, body: object = None) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.connect(
            engine,
            b"POST %b HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (path.encode(), len(data), data),
        )

    def connect(self, engine: Engine, request: bytes) -> None:
        """Send a request, and read the head of its answer."""
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(str(engine.socket))
        self.socket.sendall(request)
        self.rest = b""
        while b"\r\n\r\n" not in self.rest:
            self.rest += self.socket.recv(4096)
        head, _, self.rest = self.rest.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head

    def read_all(self) -> bytes:
        data = self.rest
        while piece := self.socket.recv(65536):
            data += piece
        return data

    def close(self) -> None:
        self.socket.close()


def count(process: subprocess.Popen[bytes], pause: float = 0.0) -> int:
    """Read what a process writes, as slowly as told, and return how much it was."""
    assert process.stdout
    total = 0
    with process.stdout as output:
        while piece := output.read(1 << 16):
            total += len(piece)
            time.sleep(pause)
    return total


def taken_apart(data: bytes) -> dict[int, bytes]:
    """The payloads of a multiplexed stream, by stream."""
    found: dict[int, bytes] = {}
    while data:
        stream, size = struct.unpack_from(">BxxxL", data)
        found[stream] = found.get(stream, b"") + data[8 : 8 + size]
        data = data[8 + size :]
    return found


def test_clients_that_leave_before_they_are_told_are_no_failure(engine: Engine) -> None:
    """What they would have been told, why an exec did not start or the log so far, meets a closed connection."""
    engine.docker("run", "-d", "--name", "aa", "busybox", "sh", "-c", "seq 1 200000; sleep 1000")
    until(lambda: engine.docker("logs", "--tail", "1", "aa") == "200000")
    assert engine.process
    before = len(os.listdir(f"/proc/{engine.process.pid}/fd"))
    for _ in range(20):
        body = json.dumps({"Cmd": ["nosuch"], "AttachStdout": True})
        made = json.loads(engine.api("POST", "/containers/aa/exec", body)[1])["Id"]
        Raw(engine, f"/exec/{made}/start", {}).close()
        Raw(engine, "/containers/aa/attach?logs=1&stream=1&stdout=1").close()
    until(lambda: len(os.listdir(f"/proc/{engine.process.pid}/fd")) <= before + 5)
    assert "unexpected failure" not in engine.log.read_text()


MIXES = [each for each in itertools.product((False, True), repeat=4) if each[1] or each[2]]


@pytest.mark.parametrize(("stdin", "stdout", "stderr", "tty"), MIXES)
def test_every_mix_of_an_attachment(engine: Engine, stdin: bool, stdout: bool, stderr: bool, tty: bool) -> None:
    flags = ["-i", *(["-t"] if tty else [])]
    engine.docker("create", *flags, "--name", "aa", "busybox", "sh", "-c", SCRIPT)
    query = f"stream=1&stdin={stdin:d}&stdout={stdout:d}&stderr={stderr:d}"
    raw = Raw(engine, f"/containers/aa/attach?{query}")
    engine.docker("start", "aa")
    if stdin:
        raw.socket.sendall(b"hi\n")
    else:
        other = Raw(engine, "/containers/aa/attach?stream=1&stdin=1")
        other.socket.sendall(b"hi\n")
    data = raw.read_all()
    raw.close()
    if not stdin:
        other.close()
    if tty:  # one stream: what goes to either is the terminal's output
        assert data.endswith(b"out hi\r\nerr hi\r\n") if stdout else True
    else:
        wanted = {1: b"out hi\n"} if stdout else {}
        assert taken_apart(data) == wanted | ({2: b"err hi\n"} if stderr else {})


@pytest.mark.parametrize(("stdin", "stdout", "stderr", "tty"), MIXES)
def test_every_mix_of_an_exec(engine: Engine, stdin: bool, stdout: bool, stderr: bool, tty: bool) -> None:
    engine.docker("run", "-d", "--name", "aa", "busybox", "sleep", "1000")
    config = {"Cmd": ["sh", "-c", SCRIPT if stdin else "echo out; echo err >&2"], "Tty": tty}
    config |= {"AttachStdin": stdin, "AttachStdout": stdout, "AttachStderr": stderr}
    status, text = engine.api("POST", "/containers/aa/exec", json.dumps(config))
    assert status == 201
    raw = Raw(engine, f"/exec/{json.loads(text)['Id']}/start", {"Detach": False, "Tty": tty})
    if stdin:
        raw.socket.sendall(b"hi\n")
    data = raw.read_all()
    raw.close()
    word = b" hi" if stdin else b""
    if tty:
        assert data.endswith(b"out%b\r\nerr%b\r\n" % (word, word)) if stdout else True
    else:
        wanted = {1: b"out%b\n" % word} if stdout else {}
        assert taken_apart(data) == wanted | ({2: b"err%b\n" % word} if stderr else {})


def test_many_clients_see_the_same(engine: Engine) -> None:
    engine.docker("run", "-di", "--name", "aa", "busybox", "cat")
    clients = [Raw(engine, "/containers/aa/attach?stream=1&stdin=1&stdout=1") for _ in range(8)]
    time.sleep(1)  # the answer comes before the supervisor has the connection; it does not say when it has
    for number, client in enumerate(clients):
        client.socket.sendall(b"line %d\n" % number)
        for each in clients:
            while b"line %d\n" % number not in each.rest:
                each.rest += each.socket.recv(65536)
    for client in clients[1:]:
        client.close()
    clients[0].socket.sendall(b"alone\n")
    while b"alone" not in clients[0].rest:
        clients[0].rest += clients[0].socket.recv(65536)
    clients[0].close()
    assert engine.docker("inspect", "-f", "{{.State.Running}}", "aa") == "true"


def test_a_client_that_is_gone_or_stopped_keeps_nothing_from_the_others(engine: Engine) -> None:
    """One client is killed, one is stopped for good; a third gets every byte, and the container ends in time."""
    engine.docker("create", "-i", "--name", "aa", "busybox", "sh", "-c", "read go; yes | head -c 40000000; exit 6")
    words = ["docker", "attach", "--no-stdin", "--sig-proxy=false", "aa"]
    engine.docker("start", "aa")
    bad = [
        subprocess.Popen(words, stdout=subprocess.PIPE, env=engine.environment, start_new_session=True)
        for _ in range(2)
    ]
    good = subprocess.Popen(words, stdout=subprocess.PIPE, env=engine.environment)
    until(lambda: engine.log.read_text().count('operation="POST /containers/{id}/attach"') >= 3)
    time.sleep(0.5)
    os.kill(bad[0].pid, signal.SIGKILL)
    os.kill(bad[1].pid, signal.SIGSTOP)
    counted: list[int] = []
    thread = threading.Thread(target=lambda: counted.append(count(good)))
    thread.start()
    start = Raw(engine, "/containers/aa/attach?stream=1&stdin=1")
    start.socket.sendall(b"go\n")
    assert engine.docker("wait", "aa", timeout=55) == "6"
    thread.join(20)
    assert counted == [40_000_000]
    assert good.wait() == 6
    start.close()
    for each in bad:
        os.kill(each.pid, signal.SIGKILL) if each.poll() is None else None
        each.communicate()


def test_a_slow_client_gets_all_of_it_and_the_code(engine: Engine) -> None:
    run = subprocess.Popen(
        ["docker", "run", "--rm", "--log-driver", "none", "busybox", "sh", "-c", "yes | head -c 30000000; exit 4"],
        stdout=subprocess.PIPE,
        env=engine.environment,
    )
    time.sleep(2)
    assert (count(run, 0.002), run.wait()) == (30_000_000, 4)


@pytest.mark.slow
def test_a_gibibyte(engine: Engine) -> None:
    script = "head -c 1073741824 /dev/zero; exit 9"
    words = ["docker", "run", "--rm", "--log-driver", "none", "busybox", "sh", "-c", script]
    run = subprocess.Popen(words, stdout=subprocess.PIPE, env=engine.environment)
    assert (count(run), run.wait()) == (1 << 30, 9)
