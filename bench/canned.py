"""A server that answers what docker's run, exec, start, wait and logs ask: python -m bench.canned SOCKET.

What the docker command takes against it is its own share of every figure, which no engine can go below.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import harness

_START = b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n"
_UPGRADE = b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"


def _reply(status: str, body: str) -> bytes:
    head = f"HTTP/1.1 {status}\r\nApi-Version: 1.51\r\nContent-Type: application/json\r\nOstype: linux\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


LINES = 1_250_000
_FRAMES = 2_500
_STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)


def _send_logs(connection: socket.socket) -> None:
    """Send `LINES` lines of 80 bytes, a frame each."""
    frames = (b"\1\0\0\0\0\0\0\x50" + b"x" * 79 + b"\n") * _FRAMES
    chunk = b"%x\r\n%b\r\n" % (len(frames), frames)
    connection.sendall(_STREAM)
    for _ in range(LINES // _FRAMES):
        connection.sendall(chunk)
    connection.sendall(b"0\r\n\r\n")


def _answer(method: str, path: str) -> bytes:
    if path.endswith("/_ping"):
        return _reply("200 OK", "" if method == "HEAD" else "OK")
    if path.endswith("/start"):
        return _START + _UPGRADE if "/exec/" in path else b"HTTP/1.1 204 No Content\r\n\r\n"
    if "/exec/" in path:
        return _reply("200 OK", '{"ID":"abc","Running":false,"ExitCode":0}')
    if path.endswith("/wait?condition=removed"):
        return _reply("200 OK", '{"StatusCode":0}')
    if "/attach?" in path:
        return _START + _UPGRADE
    container = '{"Id":"abc","Config":{"Tty":false}}'
    return _reply("201 Created", container) if method == "POST" else _reply("200 OK", container)


def _serve(connection: socket.socket) -> None:
    with connection, connection.makefile("rb") as lines:
        while request := lines.readline():
            method, path, _ = request.decode().split(" ", 2)
            length = 0
            while (line := lines.readline()) != b"\r\n":
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            lines.read(length)
            if "/logs?" in path:
                _send_logs(connection)
                continue
            connection.sendall(_answer(method, path))
            if path.endswith("/exec/abc/start") or "/attach?" in path:
                return


def main() -> None:
    """Serve until killed, a thread for each connection."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(sys.argv[1])
        listener.listen()
        while True:
            threading.Thread(target=_serve, args=(listener.accept()[0],), daemon=True).start()


@contextmanager
def running() -> Iterator[harness.Side]:
    """The server in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="wherry-bench-") as folder:
        path = Path(folder) / "sock"
        server = subprocess.Popen([sys.executable, "-m", "bench.canned", str(path)])
        try:
            harness.wait_for(path, server)
            yield harness.Side("nothing", f"unix://{path}")
        finally:
            server.kill()
            server.wait()


if __name__ == "__main__":
    main()
