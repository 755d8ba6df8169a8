"""`docker exec CONTAINER true` in a running container: through the docker command, and the engine's part of it alone.

The docker command itself takes a large part of the first line: the third line is the command against a server that
answers at once. The second is the same requests sent by this process, from the first to the exit code.
"""

from __future__ import annotations

import json
import socket
import time
from http.client import HTTPConnection

from bench import canned, harness

NAME = "wherry-bench-exec"
WORK, BUDGET = "exec true", 18.0
CONFIG = {"AttachStdout": True, "AttachStderr": True, "Cmd": ["true"]}


class _Connection(HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)

    def ask(self, method: str, path: str, body: object = None) -> bytes:
        """Send one request and return the answer's body."""
        text = None if body is None else json.dumps(body)
        self.request(method, path, text, {"Content-Type": "application/json"})
        answer = self.getresponse()
        data = answer.read()
        if answer.status >= 300:
            raise SystemExit(f"bench: {method} {path}: {data.decode()}")
        return data


def by_api(side: harness.Side) -> float:
    """Milliseconds of one exec: the requests of the docker command, until its exit code is known."""
    path = side.host.removeprefix("unix://")
    begin = time.perf_counter()
    control, stream = _Connection(path), _Connection(path)
    control.ask("HEAD", "/_ping")
    control.ask("GET", f"/containers/{NAME}/json")
    exec_id = json.loads(control.ask("POST", f"/containers/{NAME}/exec", CONFIG))["Id"]
    stream.connect()
    body = b'{"Detach":false,"Tty":false}'
    stream.sock.sendall(
        b"POST /exec/%b/start HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: %d\r\n\r\n%b" % (exec_id.encode(), len(body), body)
    )
    while stream.sock.recv(65536):
        pass
    code = json.loads(control.ask("GET", f"/exec/{exec_id}/json"))["ExitCode"]
    control.close()
    stream.close()
    if code != 0:
        raise SystemExit(f"bench: exec: exit code {code}")
    return (time.perf_counter() - begin) * 1e3


def measure(options: harness.argparse.Namespace) -> list[harness.Line]:
    """The lines of this script."""
    with harness.sides(options) as (ours, peer), canned.running() as nothing:
        both = [side for side in (ours, peer) if side]
        for side in both:
            side.run("run", "-d", "--name", NAME, harness.IMAGE, "sleep", "100000")
        calls = [lambda side=side: harness.timed(side.docker("exec", NAME, "true")) for side in (*both, nothing)]
        *command, floor = harness.in_turns(calls, options.rounds)
        engine = harness.in_turns([lambda side=side: by_api(side) for side in both], options.rounds)
    name = peer.name if peer else ""
    lines = [
        harness.Line(work, medians[0], medians[1] if peer else None, name, budget)
        for work, medians, budget in ((WORK, command, BUDGET), ("  its part of the engine, by the API", engine, None))
    ]
    return [*lines, harness.Line("  the docker command against no engine", floor, None, "", None)]


if __name__ == "__main__":
    harness.show(measure(harness.arguments(__doc__ or "")))
