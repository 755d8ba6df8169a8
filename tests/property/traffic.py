"""Requests out of a schema, sent to an engine, and what is wrong with the answers."""

from __future__ import annotations

import http.client
import json
import random
import socket
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from tests import tars
from tests.engine import Engine
from tests.property.answers import complaint
from tests.property.harmless import CHECKS, PROGRAMS, harmless
from tests.property.schema import Operation, operations
from tests.property.values import Values

VERSIONS = ("", "", "", "/v1.24", "/v1.30", "/v1.40", "/v1.43", "/v1.44", "/v1.51")
NAMES = ("aa", "bb", "cc", "dd", "ee")
ENDLESS = {
    "GET /events", "GET /containers/{id}/stats", "GET /containers/{id}/logs", "POST /containers/{id}/wait",
    "POST /containers/{id}/attach", "GET /containers/{id}/attach/ws", "POST /exec/{id}/start",
}  # fmt: skip
PATIENT = {"POST /containers/{id}/stop", "POST /containers/{id}/restart"}
"""The client says how long they may take."""
NEEDED = ("path", "container", "h", "w", "name")
PATIENCE = 60.0
FILTERS = (
    "id", "name", "label", "exited", "status", "ancestor", "before", "since", "volume", "network", "publish", "expose",
    "health", "isolation", "is-task", "dangling", "until", "reference", "driver", "scope", "type", "container", "event",
    "image", "daemon", "nosuch", "label!", "all", "enable", "capability", "",
)  # fmt: skip
CONTENT_TYPES = ("text/plain", "application/json; charset=utf-8", "")
FILTER_VALUES = ("running", "exited", "true", "false", "0", "1", "a=b", "10m", "80/tcp", "busybox", "bridge", "healthy")


@dataclass(slots=True)
class Pool:
    """What there is to ask for, shared by all clients; a list is replaced as a whole."""

    containers: list[str] = field(default_factory=lambda: ["nosuch"])
    images: list[str] = field(default_factory=lambda: ["busybox"])
    volumes: list[str] = field(default_factory=lambda: ["nosuch"])
    networks: list[str] = field(default_factory=lambda: ["bridge", "none", "host"])
    execs: list[str] = field(default_factory=lambda: ["nosuch"])


@dataclass(frozen=True, slots=True)
class Sent:
    """One request."""

    operation: Operation
    target: str
    headers: dict[str, str]
    body: bytes

    def __str__(self) -> str:
        return f"{self.operation.method} {self.target} {self.headers} {self.body[:3000]!r}"


class Client:
    """Makes requests from a seed and judges the answers. folder: what containers may mount."""

    def __init__(self, engine: Engine, seed: int, pool: Pool, folder: str) -> None:
        self._engine, self._pool, self._folder = engine, pool, folder
        self._seed = random.Random(seed)
        self._values = Values(self._seed, self._likely())
        self.statuses: dict[tuple[str, int], int] = {}

    def _likely(self) -> dict[str, Any]:
        pick = self._seed.choice
        numbered = {"h": 24, "w": 80, "t": 0, "Size": 100}
        folder = self._folder
        again = [None, {"Name": "always"}, {"Name": "on-failure", "MaximumRetryCount": 2}]
        simple = {
            "Image": ["busybox", "busybox:latest", "nosuch"], "Cmd": PROGRAMS, "Test": CHECKS, "RestartPolicy": again,
            "Entrypoint": [None, [], ["sh", "-c", "true"]], "User": ["", "0", "web", "nosuch", "1000:29"],
            "Binds": [[], [f"{folder}:/m"], ["vol:/v:ro"], [f"{folder}:/m:rslave", "vol:/w"]],
            "NetworkMode": ["none", "bridge", "default", "", "host", "container:aa", "nosuch"],
            "signal": ["", "TERM", "SIGKILL", "9", "HUP", "RTMIN+3", "99"], "t": ["0", "1", "-1", ""],
            "condition": ["", "not-running", "next-exit", "removed"], "timeout": ["0", "5"],
            "path": ["/", "/etc", "/etc/passwd", "/tmp/x", "tmp", "/m", "/v", "/proc", "/nosuch", "/bin/sh/x"],
            "name": NAMES, "container": self._pool.containers, "Container": self._pool.containers,
            "from": ["busybox"], "fromSrc": ["-"], "fromImage": [""], "repo": ["made", "made/it"],
            "tag": ["", "a", "b"], "names": ["busybox"], "ps_args": ["", "-ef", "aux", "-o pid,comm"],
            "since": ["0", "1", "10m"], "until": ["0", "1", "9999999999.5"], "stream": ["0", "1"],
            "MacAddress": [None, "", "02:42:ac:11:00:99"], "Driver": ["", "bridge", "local"], "Ulimits": [None],
            "Name": ["vol", "net", "always", "no", "on-failure"], "EndpointID": [""], "limit": ["", "0", "3"],
            "Devices": [None, []], "Tty": [True, False], "AttachStdin": [True, False], "OpenStdin": [True, False],
            "Detach": [True, False], "changes": ["CMD true", "ENV a=b", "X"], "Target": ["/a", "/b"],
            "Type": ["volume", "tmpfs", "bind", "json-file", "local", "none"], "Source": ["vol", folder],
            "Memory": [0, 64 << 20, 1], "MemorySwap": [0, -1, 128 << 20], "NanoCpus": [0, 10**9],
            "CpuShares": [0, 2, 512], "WorkingDir": ["", "/", "/tmp", "/new", "relative"],
        }  # fmt: skip
        likely = {name: (lambda values=values: pick(list(values))) for name, values in simple.items()}
        likely |= {name: (lambda value=value: value) for name, value in numbered.items() if name not in likely}
        return likely | {"filters": self._filters, "cachefrom": lambda: "[]"}

    def _filters(self) -> str:
        pick, made = self._seed.choice, {}
        for _ in range(self._seed.choice((0, 1, 1, 2))):
            value = pick((*FILTER_VALUES, *self._pool.containers)) if self._seed.random() < 0.7 else self._values.text()
            made[pick(FILTERS)] = {value: True} if self._seed.random() < 0.3 else [value]
        return json.dumps(made)

    # One request

    def make(self) -> Sent:
        """Return the next request."""
        seed = self._seed
        self._values.wild = seed.choice((0.02, 0.1, 0.5))
        operation = seed.choice(operations())
        path, query = operation.path, []
        headers: dict[str, str] = {"Host": "engine"}
        for place, name, kind in operation.parameters:
            if place == "path":
                found = quote(self._object(operation.path), safe="" if name == "id" else "/:")
                path = path.replace(f"{{{name}}}", found)
            elif place == "header":
                headers |= {name: str(self._values.of(kind)).encode("ascii", "replace").decode().translate(CONTROLS)}
            elif seed.random() < (0.9 if name in NEEDED else 0.4):
                query.append(f"{quote(name)}={quote(_text(self._values.named(name, kind)))}")
        body = self._body(operation, headers)
        if operation.path in ("/containers/{id}/attach", "/exec/{id}/start") and seed.random() < 0.7:
            headers |= {"Connection": "Upgrade", "Upgrade": "tcp"}
        if operation.path.endswith("/ws") and seed.random() < 0.9:
            headers |= {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
            headers["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
        target = seed.choice(VERSIONS) + path + ("?" + "&".join(query) if query else "")
        return Sent(operation, target, headers, body)

    def _object(self, path: str) -> str:
        if self._seed.random() < self._values.wild / 2:
            return self._values.text() or "x"
        pool = self._pool
        area = path.split("/")[1]
        known = {"containers": pool.containers, "exec": pool.execs, "images": pool.images}
        known |= {"volumes": pool.volumes, "networks": pool.networks}
        found = self._seed.choice(known[area])
        return found[: self._seed.randrange(2, 64)] if len(found) == 64 and self._seed.random() < 0.2 else found

    def _body(self, operation: Operation, headers: dict[str, str]) -> bytes:
        seed = self._seed
        if operation.body is None:
            return b"" if seed.random() < 0.95 else b"{}"
        if operation.body in ("binary", "string") or "archive" in operation.path or "load" in operation.path:
            good = tars.archive([tars.folder("n"), tars.file("n/x", b"x"), tars.file(seed.choice(NAMES), b"y" * 600)])
            return seed.choice((good, good[: seed.randrange(len(good))], seed.randbytes(700), b""))
        headers["Content-Type"] = "application/json" if seed.random() < 0.9 else seed.choice(CONTENT_TYPES)
        made = json.dumps(harmless(self._values.of(operation.body), self._folder)).encode()
        if seed.random() < self._values.wild / 5:
            return seed.choice((made[: len(made) // 2], made + b"{}", b"[" * 5000, b"\xff" + made, b"", b"nul", b'"x"'))
        return made

    # Its answer

    def turn(self) -> str:
        """Send one request; return what is wrong with its answer, "" when nothing is."""
        sent = self.make()
        wrong = ""
        try:
            wrong = self._exchange(sent)
        except (http.client.HTTPException, OSError) as error:
            wrong = f"no answer: {type(error).__name__} {error}"
        return f"{sent.operation.name}: {wrong}\n    {sent}" if wrong else ""

    def _exchange(self, sent: Sent) -> str:
        name = sent.operation.name
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(str(self._engine.socket))
            head = "".join(f"{key}: {value}\r\n" for key, value in sent.headers.items())
            length = f"Content-Length: {len(sent.body)}\r\n" if sent.operation.method in ("POST", "PUT") else ""
            data = f"{sent.operation.method} {sent.target} HTTP/1.1\r\n{head}{length}\r\n".encode() + sent.body
            sock.sendall(data)
            if name in PATIENT:
                sock.settimeout(2.0)
            answer = http.client.HTTPResponse(sock, method=sent.operation.method)
            try:
                answer.begin()
            except TimeoutError:
                if name in PATIENT:
                    return ""
                raise
            key = name, answer.status
            self.statuses[key] = self.statuses.get(key, 0) + 1
            if answer.status == 101 or (name in ENDLESS and answer.status == 200):
                _look_in(sock, self._seed.choice((b"", b"x\n", b"\x10\x11", b"\x81\x85")))
                return ""
            text = answer.read()
        return complaint(sent.operation, answer, text)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    return json.dumps(value)


CONTROLS = dict.fromkeys([*range(32), 127], "?")


def _look_in(sock: socket.socket, typed: bytes) -> None:
    """Read a stream for a moment, and leave."""
    deadline = time.monotonic() + 0.2
    sock.settimeout(0.1)
    try:
        sock.sendall(typed)
        while time.monotonic() < deadline and sock.recv(65536):
            pass
    except OSError:  # nothing came; or the engine was quicker to leave
        return
