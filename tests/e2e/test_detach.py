"""Clients that leave by their detach keys, and the events that tell of it.

The docker CLI takes the keys out of its input and closes the connection, so that no engine hears of them. A client that
passes all on, as a browser over a WebSocket, leaves it to the engine.
"""

from __future__ import annotations

import json
import time

import pytest

from tests.e2e.test_streams import Raw
from tests.engine import Engine
from tests.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.engine]


def _events(engine: Engine, since: str) -> list[tuple[str, str]]:
    """The container's events, each with the exec that it is about."""
    text = engine.docker("events", "--since", since, "--until", f"{time.time():.9f}", "--format", "json")
    found = [json.loads(line) for line in text.splitlines()]
    return [
        (each["Action"].split(":")[0], each["Actor"]["Attributes"].get("execID", ""))
        for each in found
        if each["Type"] == "container"
    ]


def _exec(engine: Engine, **more: object) -> str:
    body = {"Cmd": ["sh"], "AttachStdin": True, "AttachStdout": True, "Tty": True, **more}
    made: str = json.loads(engine.api("POST", "/containers/aa/exec", json.dumps(body))[1])["Id"]
    return made


@pytest.fixture
def since(engine: Engine) -> str:
    """A running shell in a terminal, and the time after its start."""
    engine.docker("run", "-dit", "--name", "aa", "busybox", "sh")
    return f"{time.time():.9f}"


def test_the_container_s_own_terminal(engine: Engine, since: str) -> None:
    for turn, (keys, typed) in enumerate((("", b"\x10\x11"), ("&detachKeys=ctrl-a,b", b"echo x\n\x01b")), 1):
        raw = Raw(engine, f"/containers/aa/attach?stream=1&stdin=1&stdout=1{keys}")
        raw.socket.sendall(typed)
        raw.read_all()
        raw.close()  # the stream ends a moment before the event comes
        wanted = [("attach", ""), ("detach", "")] * turn
        until(lambda wanted=wanted: _events(engine, since) == wanted)
    assert engine.docker("inspect", "-f", "{{.State.Running}}", "aa") == "true"


def test_an_exec_goes_on_alone(engine: Engine, since: str) -> None:
    made = _exec(engine)
    raw = Raw(engine, f"/exec/{made}/start", {"Tty": True})
    raw.socket.sendall(b"\x10\x11")
    raw.read_all()
    raw.close()
    until(lambda: _events(engine, since) == [("exec_create", made), ("exec_start", made), ("exec_detach", made)])
    assert json.loads(engine.api("GET", f"/exec/{made}/json")[1])["Running"]
    engine.docker("kill", "aa")
    until(lambda: ("exec_die", made) in _events(engine, since))


def test_keys_that_came_with_the_request(engine: Engine, since: str) -> None:
    """They are there before anybody can listen for them."""
    made = _exec(engine, DetachKeys="q")
    body = b'{"Tty": true}'
    head = (
        b"POST /exec/%b/start HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    )
    raw = Raw.__new__(Raw)  # with a request of our own
    raw.connect(engine, head % (made.encode(), len(body)) + body + b"q")
    raw.read_all()
    raw.close()
    until(lambda: ("exec_detach", made) in _events(engine, since))


def test_whoever_just_leaves_has_not_detached(engine: Engine, since: str) -> None:
    gone = Raw(engine, "/containers/aa/attach?stream=1&stdin=1&stdout=1")
    gone.close()
    raw = Raw(engine, "/containers/aa/attach?stream=1&stdin=1&stdout=1")
    raw.socket.sendall(b"exit\n")
    raw.read_all()
    raw.close()
    until(lambda: ("die", "") in _events(engine, since))
    assert [each for each, _ in _events(engine, since)] == ["attach", "attach", "die"]
