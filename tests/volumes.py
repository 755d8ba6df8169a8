"""What tests of volumes share: images with content to copy, and taking volumes away."""

from __future__ import annotations

import http.client
import io
import json
import socket
import tarfile

from tests.engine import Engine, busybox_tar

EARLY = 978307200  # 2001-01-01


def content_image(
    engine: Engine, name: str, *, changes: tuple[str, ...] = (), extra: dict[str, str] | None = None
) -> str:
    """Import busybox with all kinds of things at /data, an empty /owned and a /file; extra: links by path."""
    buffer = io.BytesIO(busybox_tar())
    with tarfile.open(fileobj=buffer, mode="a") as tar:
        _directory(tar, "data", mode=0o1770, owner=(5, 6))
        _file(tar, "data/f", b"hi\n", mode=0o4755)
        _special(tar, "data/hard", tarfile.LNKTYPE, link="data/f")
        _special(tar, "data/soft", tarfile.SYMTYPE, link="/etc/passwd")
        _special(tar, "data/fifo", tarfile.FIFOTYPE)
        _special(tar, "data/null", tarfile.CHRTYPE, device=(1, 3))
        _directory(tar, "data/sub", mode=0o700, owner=(7, 8))
        _file(tar, "data/sub/g", b"g")
        _directory(tar, "owned", mode=0o700, owner=(7, 8))
        _file(tar, "file", b"not a directory")
        for path, target in (extra or {}).items():
            _special(tar, path, tarfile.SYMTYPE, link=target)
    words = [word for change in ("CMD true", *changes) for word in ("-c", change)]
    engine.docker("import", *words, "-", name, input=buffer.getvalue())
    return name


def _entry(name: str, kind: bytes, mode: int, owner: tuple[int, int] = (0, 0)) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime = kind, mode, EARLY
    entry.uid, entry.gid = owner
    return entry


def _directory(tar: tarfile.TarFile, name: str, *, mode: int = 0o755, owner: tuple[int, int] = (0, 0)) -> None:
    tar.addfile(_entry(name, tarfile.DIRTYPE, mode, owner))


def _file(tar: tarfile.TarFile, name: str, data: bytes, *, mode: int = 0o644) -> None:
    entry = _entry(name, tarfile.REGTYPE, mode)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def _special(tar: tarfile.TarFile, name: str, kind: bytes, *, link: str = "", device: tuple[int, int] = (0, 0)) -> None:
    entry = _entry(name, kind, 0o777 if link else 0o666)
    entry.linkname = link
    entry.devmajor, entry.devminor = device
    tar.addfile(entry)


class Requests:
    """One connection to an engine, for many requests: a process for each would be most of a test's time."""

    def __init__(self, engine: Engine) -> None:
        self._connection = http.client.HTTPConnection("engine")
        self._connection.sock = socket.socket(socket.AF_UNIX)
        self._connection.sock.connect(str(engine.socket))

    def __call__(self, method: str, path: str, body: object = None) -> tuple[int, str]:
        """Make a request; return status and body."""
        text = None if body is None else json.dumps(body)
        self._connection.request(method, path, text, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        return answer.status, answer.read().decode()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def remove_volumes(engine: Engine) -> None:
    """Remove the containers and then all volumes of an engine."""
    engine.remove_all()
    names = engine.docker("volume", "ls", "-q").split()
    if names:
        engine.docker("volume", "rm", "-f", *names)
