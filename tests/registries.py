"""Registries for tests: Debian's docker-registry on a loopback port, with and without TLS and passwords."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

USER, PASSWORD = "ann", "s3cr3t-of-ann"
_HTPASSWD = "ann:$2b$04$O5HAso8jLi6jTKQefmKyb.LifybLc8Ni0v6dXl99.QCaKLutjC056\n"
"""bcrypt of the password, made once: the standard library cannot make it any more."""


def free_port(address: str = "127.0.0.1") -> int:
    """A port of this network namespace that nobody uses."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def certificate(folder: Path, *names: str) -> tuple[Path, Path]:
    """A certificate that signs itself, for names and addresses, and its key."""
    crt, key = folder / "server.crt", folder / "server.key"
    kinds = ("IP" if name.replace(".", "").isdigit() else "DNS" for name in names)
    alternatives = ",".join(f"{kind}:{name}" for kind, name in zip(kinds, names, strict=True))
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-keyout", key, "-out", crt, "-subj", f"/CN={names[0]}", "-addext", f"subjectAltName={alternatives}"],
        check=True, capture_output=True,
    )  # fmt: skip
    return crt, key


ELSEWHERE = f"10.2{os.getpid() >> 16 & 15:02}.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
"""An address that is not loopback and belongs to this process of the tests, which share their network namespace."""


@contextmanager
def elsewhere() -> Iterator[str]:
    """Have that address."""
    subprocess.run(["ip", "addr", "add", f"{ELSEWHERE}/32", "dev", "lo"], check=True)
    try:
        yield ELSEWHERE
    finally:
        subprocess.run(["ip", "addr", "del", f"{ELSEWHERE}/32", "dev", "lo"], check=True)


@contextmanager
def named(*lines: str) -> Iterator[None]:
    """Let names mean addresses in this process: lines as of a hosts file. (The file is one for all tests.)"""
    table: dict[str, list[str]] = {}
    for line in lines:
        address, name = line.split()
        table.setdefault(name, []).append(address)
    real = socket.getaddrinfo

    def look_up(host: Any, port: Any, *more: Any, **options: Any) -> Any:
        return [found for each in table.get(host, [host]) for found in real(each, port, *more, **options)]

    socket.getaddrinfo = look_up
    try:
        yield
    finally:
        socket.getaddrinfo = real


class Registry:
    """A docker-registry of a test's own."""

    def __init__(self, *, password: bool = False, tls: bool = False, host: str = "127.0.0.1") -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="wt-registry-", dir="/tmp"))
        self.port = free_port(host)
        self.address = host
        self.host = f"{host}:{self.port}"
        self.scheme = "https" if tls else "http"
        self._write(password, tls, host)
        self.log = self.folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def _write(self, password: bool, tls: bool, host: str) -> None:
        lines = ["version: 0.1", "log: {level: info, formatter: text}"]
        lines += [f"storage: {{filesystem: {{rootdirectory: {self.folder}/data}}, delete: {{enabled: true}}}}"]
        lines += ["http:", f"  addr: {self.host}", "  secret: test"]
        if tls:
            self.crt, key = certificate(self.folder, host)
            lines += [f"  tls: {{certificate: {self.crt}, key: {key}}}"]
        if password:
            (self.folder / "htpasswd").write_text(_HTPASSWD)
            lines += [f"auth: {{htpasswd: {{realm: test, path: {self.folder}/htpasswd}}}}"]
        (self.folder / "config.yml").write_text("\n".join(lines))

    def __enter__(self) -> Registry:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self.log.open("ab") as log:
            argv = ["docker-registry", "serve", str(self.folder / "config.yml")]
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while True:
            with socket.socket() as probe:
                if probe.connect_ex((self.address, self.port)) == 0:
                    return
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, "docker-registry does not listen"
            time.sleep(0.02)

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=20)

    def get(self, path: str) -> bytes:
        """Ask it for something, by http."""
        with urllib.request.urlopen(f"http://{self.host}{path}", timeout=20) as answer:
            data: bytes = answer.read()
            return data

    def requests(self) -> list[str]:
        """The requests it has answered: METHOD PATH."""
        lines = self.log.read_text().splitlines()
        found = [line.partition('"')[2].partition(" HTTP/")[0] for line in lines if '" ' in line and " HTTP/" in line]
        return [each for each in found if each]
