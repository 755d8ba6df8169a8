"""What random requests found (tests/property), each as one plain case."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.engine import Engine
from tests.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.engine]


@pytest.mark.parametrize(("height", "width"), [(70000, 80), (24, 65536), (1 << 31, 1)])
def test_a_terminal_too_large_for_the_kernel_is_refused_and_ends_nothing(
    engine: Engine, height: int, width: int
) -> None:
    """struct winsize has 16 bits (ioctl_tty(2)); a larger number ended the supervisor, and with it the container."""
    engine.docker("run", "-dt", "--name", "aa", "busybox", "sleep", "1000")
    status, text = engine.api("POST", f"/containers/aa/resize?h={height}&w={width}")
    assert status == 400
    assert "value out of range" in text
    wanted = {"Image": "busybox", "Cmd": ["true"], "Tty": True, "HostConfig": {"ConsoleSize": [height, width]}}
    status, text = engine.api("POST", "/containers/create", json.dumps(wanted))
    assert (status, "console size" in text) == (400, True)
    for where in ("exec", "start"):
        size = {"ConsoleSize": [height, width]}
        made = {"Cmd": ["true"], "Tty": True, **(size if where == "exec" else {})}
        status, text = engine.api("POST", "/containers/aa/exec", json.dumps(made))
        if where == "start":
            started = {"Detach": True, "Tty": True, **size}
            status, text = engine.api("POST", f"/exec/{json.loads(text)['Id']}/start", json.dumps(started))
        assert (status, "console size" in text) == (400, True)
    assert engine.docker("inspect", "-f", "{{.State.Running}}", "aa") == "true"
    assert engine.docker("exec", "aa", "echo", "alive") == "alive"


class Held:
    """A copy of a stopped container that is not read on: whoever wants to start or remove it waits."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(30)
        self._sock.connect(str(engine.socket))
        self._sock.sendall(f"GET /containers/{name}/export HTTP/1.1\r\nHost: e\r\n\r\n".encode())
        assert self._sock.recv(100).startswith(b"HTTP/1.1 200")

    def release(self) -> None:
        """Let the copy end."""
        self._sock.close()


def _ask(engine: Engine, method: str, path: str, answers: dict[str, int], body: str | None = None) -> threading.Thread:
    def work() -> None:
        answers[f"{method} {path}"] = engine.api(method, path, body)[0]

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.mark.parametrize(
    "removal", ["DELETE /containers/aa", "DELETE /containers/aa?force=1", "POST /containers/prune"]
)
def test_a_container_that_is_started_before_its_removal_has_its_turn(engine: Engine, removal: str) -> None:
    """It was forgotten while it ran, and nobody could stop it any more."""
    engine.docker("create", "--name", "aa", "busybox", "sleep", "1000")
    held = Held(engine, "aa")
    answers: dict[str, int] = {}
    started = _ask(engine, "POST", "/containers/aa/start", answers)
    time.sleep(0.3)
    removed = _ask(engine, *removal.split(" "), answers)
    time.sleep(0.3)
    held.release()
    for thread in (started, removed):
        thread.join(30)
        assert not thread.is_alive()
    assert answers["POST /containers/aa/start"] == 204
    if "force" in removal:
        assert answers[removal] == 204
        assert engine.docker("ps", "-aq") == ""
        return
    assert answers[removal] == (200 if "prune" in removal else 409)
    assert engine.docker("inspect", "-f", "{{.State.Running}}", "aa") == "true"
    engine.docker("rm", "-f", "aa")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/containers/aa/start", None),
        ("/containers/aa/rename?name=bb", None),
        ("/containers/aa/update", {"CpuShares": 3}),
        ("/networks/bridge/connect", {"Container": "aa"}),
        ("/networks/bridge/disconnect", {"Container": "aa"}),
    ],
)
def test_what_is_removed_before_its_turn_is_not_found(engine: Engine, path: str, body: object) -> None:
    engine.docker("create", "--name", "aa", "busybox", "true")
    held = Held(engine, "aa")
    answers: dict[str, int] = {}
    removed = _ask(engine, "DELETE", "/containers/aa", answers)
    time.sleep(0.3)
    changed = _ask(engine, "POST", path, answers, json.dumps(body) if body else None)
    time.sleep(0.3)
    held.release()
    for thread in (changed, removed):
        thread.join(30)
        assert not thread.is_alive()
    assert answers == {"DELETE /containers/aa": 204, f"POST {path}": 404}


def test_a_limit_that_the_kernel_does_not_take_is_bad_input(engine: Engine) -> None:
    """The engine's groups have no budget of real time to give; what holds 30 MB cannot be limited to 6."""
    command = "x=$(head -c 30000000 /dev/zero | tr '\\0' a); echo ready; sleep 1000"
    engine.docker("run", "-d", "--name", "aa", "busybox", "sh", "-c", command)
    until(lambda: engine.docker("logs", "aa") == "ready")
    for limit in ({"CpuRealtimeRuntime": 1}, {"Memory": 6 << 20, "MemorySwap": 6 << 20}):
        status, text = engine.api("POST", "/containers/aa/update", json.dumps(limit))
        if status != 200:  # version 2 ends processes until the limit holds
            assert (status, "Cannot update container" in text) == (400, True), text


def test_what_ends_while_it_is_to_be_frozen_does_not_run(engine: Engine) -> None:
    """Its control group goes a moment before the engine hears of its end; here the supervisor is made to wait."""
    engine.docker("run", "-d", "--name", "aa", "busybox", "sleep", "1000")
    words = engine.docker("inspect", "-f", "{{.State.Pid}} {{.Id}}", "aa").split()
    status = Path(f"/proc/{words[0]}/status").read_text()
    supervisor = int(status.partition("PPid:")[2].split()[0])
    os.kill(supervisor, signal.SIGSTOP)
    try:
        os.kill(int(words[0]), signal.SIGKILL)
        until(lambda: "State:\tZ" in Path(f"/proc/{words[0]}/status").read_text())
        for group in Path("/sys/fs/cgroup").glob(f"**{engine.cgroup_parent}/{words[1]}"):
            group.rmdir()
        code, text = engine.api("POST", "/containers/aa/pause")
        assert (code, "is not running" in text) == (409, True), text
        assert engine.api("POST", "/commit?container=aa")[0] == 201
    finally:
        os.kill(supervisor, signal.SIGCONT)
    until(lambda: engine.docker("inspect", "-f", "{{.State.Status}}", "aa") == "exited")


def test_a_place_with_a_name_that_is_too_long_is_bad_input(engine: Engine) -> None:
    body = json.dumps({"Image": "busybox", "Cmd": ["true"], "Volumes": {"/" + "x" * 256: {}}})
    status, text = engine.api("POST", "/containers/create", body)
    assert (status, "File name too long" in text) == (400, True)
    assert engine.docker("volume", "ls", "-q") == ""


def test_a_user_that_is_not_there_is_bad_input(engine: Engine) -> None:
    engine.docker("create", "--name", "aa", "-u", "nosuch", "busybox", "true")
    status, text = engine.api("POST", "/containers/aa/start")
    assert (status, "unable to find user nosuch" in text) == (400, True)


def test_a_client_s_mistake_is_no_failure_of_the_engine(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "aa", "busybox", "sleep", "1000")
    for method, path, body, wanted, sentence in (
        ("GET", "/networks?filters=%7B%22type%22%3A%5B%22x%22%5D%7D", None, 400, "invalid filter: 'type'='x'"),
        ("POST", "/networks/none/disconnect", '{"Container": "aa"}', 404, "is not connected to network none"),
        ("GET", "/containers/aa/top?ps_args=--nosuch", None, 400, "ps: "),
        ("GET", "/containers/aa/top?ps_args=%00", None, 400, "holds a NUL"),
    ):
        status, text = engine.api(method, path, body)
        assert (status, sentence in text) == (wanted, True), text
