"""What the docker command asks of an engine, sent by this process: the engine's part of a figure, without the command.

Each function returns milliseconds from the first request to the answer that tells the exit code.
"""

from __future__ import annotations

import json
import socket
import time
from http.client import HTTPConnection, HTTPResponse

from bench import harness

STREAMS = {"AttachStdout": True, "AttachStderr": True, "Cmd": ["true"]}


class Connection(HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, side: harness.Side) -> None:
        super().__init__("localhost")
        self._path = side.host.removeprefix("unix://")

    def connect(self) -> None:
        """Connect to the engine."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)

    def send_json(self, method: str, path: str, body: object = None) -> HTTPResponse:
        """Send one request and return the answer, its head read."""
        text = None if body is None else json.dumps(body)
        self.request(method, path, text, {"Content-Type": "application/json"})
        answer = self.getresponse()
        if answer.status >= 300:
            raise SystemExit(f"bench: {method} {path}: {answer.read().decode()}")
        return answer

    def ask(self, method: str, path: str, body: object = None) -> bytes:
        """Send one request and return the answer's body."""
        return self.send_json(method, path, body).read()

    def upgrade(self, path: str, body: bytes = b"") -> None:
        """Ask for a raw stream; its answer comes with `drain`."""
        self.connect()
        self.sock.sendall(
            b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: Upgrade\r\n"
            b"Upgrade: tcp\r\nContent-Length: %d\r\n\r\n%b" % (path.encode(), len(body), body)
        )

    def drain(self) -> None:
        """Read the stream to its end."""
        while self.sock.recv(65536):
            pass


def exec_true(side: harness.Side, container: str) -> float:
    """docker exec CONTAINER true."""
    begin = time.perf_counter()
    control, stream = Connection(side), Connection(side)
    control.ask("HEAD", "/_ping")
    control.ask("GET", f"/containers/{container}/json")
    exec_id = json.loads(control.ask("POST", f"/containers/{container}/exec", STREAMS))["Id"]
    stream.upgrade(f"/exec/{exec_id}/start", b'{"Detach":false,"Tty":false}')
    stream.drain()
    code = json.loads(control.ask("GET", f"/exec/{exec_id}/json"))["ExitCode"]
    control.close()
    stream.close()
    return _took(begin, code)


def run_true(side: harness.Side, network: str) -> float:
    """docker run --rm --network NETWORK IMAGE true."""
    begin = time.perf_counter()
    control, stream, waiter = Connection(side), Connection(side), Connection(side)
    control.ask("HEAD", "/_ping")
    host = {"NetworkMode": network, "AutoRemove": True}
    made = control.ask("POST", "/containers/create", {"Image": harness.IMAGE, **STREAMS, "HostConfig": host})
    container = json.loads(made)["Id"]
    stream.upgrade(f"/containers/{container}/attach?stream=1&stdout=1&stderr=1")
    waiting = waiter.send_json("POST", f"/containers/{container}/wait?condition=removed")
    control.ask("POST", f"/containers/{container}/start")
    stream.drain()
    code = json.loads(waiting.read())["StatusCode"]
    for each in (control, stream, waiter):
        each.close()
    return _took(begin, code)


def stats(side: harness.Side, container: str) -> float:
    """docker stats --no-stream CONTAINER; the answer tells the load, so there are two samples in it."""
    begin = time.perf_counter()
    control = Connection(side)
    answer = json.loads(control.ask("GET", f"/containers/{container}/stats?stream=false"))
    control.close()
    return _took(begin, 0 if answer["preread"] > "1" else "no load in it")


def archive(side: harness.Side, container: str, path: str) -> float:
    """docker cp CONTAINER:PATH -, read as fast as it comes."""
    begin = time.perf_counter()
    control = Connection(side)
    answer = control.send_json("GET", f"/containers/{container}/archive?path={path}")
    total = 0
    while piece := answer.read(1 << 20):
        total += len(piece)
    control.close()
    return _took(begin, 0 if total > 1 << 20 else "a short archive")


def inspect(side: harness.Side, container: str) -> float:
    """docker inspect CONTAINER."""
    begin = time.perf_counter()
    control = Connection(side)
    found = json.loads(control.ask("GET", f"/containers/{container}/json"))
    control.close()
    return _took(begin, 0 if found["State"]["Running"] else "it does not run")


def listing(side: harness.Side, least: int) -> float:
    """docker ps -a, of so many containers at least."""
    begin = time.perf_counter()
    control = Connection(side)
    control.ask("HEAD", "/_ping")
    found = json.loads(control.ask("GET", "/containers/json?all=1"))
    control.close()
    return _took(begin, 0 if len(found) >= least else f"{len(found)} containers")


def event(side: harness.Side, container: str) -> float:
    """From a signal that a container ignores to its event at a listener."""
    listener, control = Connection(side), Connection(side)
    heard = listener.send_json("GET", "/events?filters=%7B%22event%22%3A%5B%22kill%22%5D%7D")
    control.ask("HEAD", "/_ping")
    begin = time.perf_counter()
    control.ask("POST", f"/containers/{container}/kill?signal=CONT")
    told = json.loads(heard.readline())
    took = _took(begin, 0 if told["Actor"]["Attributes"]["signal"] == "18" else told)
    listener.close()
    control.close()
    return took


def _took(begin: float, code: object) -> float:
    if code != 0:
        raise SystemExit(f"bench: exit code {code}")
    return (time.perf_counter() - begin) * 1e3
