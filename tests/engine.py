"""Engines of their own for tests: own roots, own bridge, own socket, stopped and checked at the end."""

from __future__ import annotations

import io
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import preloaded
from tests.e2e.operations import SERVED

READY_SECONDS = float(os.environ.get("WHERRY_TEST_PATIENCE", "20"))
"""In an emulated machine everything takes ten times as long."""
SYSTEMD = os.environ.get("WHERRY_TEST_CGROUP_DRIVER") == "systemd"
"""Where systemd runs (tests/vm), the engines can be told to have it make their control groups."""
_APPLETS = """
    awk basename cat chmod chown cp cut date dd df dirname du echo env expr false find free grep head hostname
    id ip ifconfig kill ln ls md5sum mkdir mkfifo mknod mount mv nc netstat nproc nslookup ping printf ps pwd
    readlink reboot renice rm rmdir route sed seq sh sleep sort stat stty su sync tail tar tee test time
    timeout top touch tr traceroute true tty umount uname uniq unshare usleep vi watch wc wget which whoami
    xargs yes
"""
BUSYBOX_APPLETS = _APPLETS.split()
PASSWD = "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000:web:/home/web:/bin/sh\n"
GROUP = "root:x:0:\nweb:x:1000:\naudio:x:29:web\n"


def busybox_tar() -> bytes:
    """Return a root file system: the machine's static busybox, a link per applet, passwd and group."""
    busybox = shutil.which("busybox")
    assert busybox, "busybox is not installed"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, mode in (("bin", 0o755), ("etc", 0o755), ("root", 0o700), ("tmp", 0o1777), ("home/web", 0o755)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        for name, text in (("etc/passwd", PASSWD), ("etc/group", GROUP)):
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
        tar.add(os.path.realpath(busybox), "bin/busybox")
        for applet in BUSYBOX_APPLETS:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
    return buffer.getvalue()


class Engine:
    """A wherryd of a test's own."""

    def __init__(self, *flags: str) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="wt-", dir="/tmp"))
        self.tag = secrets.token_hex(3)
        self.bridge = f"wt{self.tag}"
        self.socket = self.root / "sock"
        self.data_root = self.root / "data"
        self.run_root = self.root / "run"
        self.log = self.root / "log"
        self.flags = flags
        self.prefix: tuple[str, ...] = ()
        """What runs the engine's command, e.g. to enter a mount namespace."""
        self.network = ""
        """The file of the network namespace that it shall be in, "" for ours."""
        self.process: subprocess.Popen[bytes] | preloaded.Forked | None = None

    @property
    def host(self) -> str:
        """The DOCKER_HOST of this engine."""
        return f"unix://{self.socket}"

    @property
    def cgroup_parent(self) -> str:
        """Where its containers' control groups are: a path, or a slice of systemd's."""
        return f"wherrytest{self.tag}.slice" if SYSTEMD else f"/wherry-test-{self.tag}"

    def group(self, full: str, parent: str = "") -> str:
        """Return the path of a container's control group, below the mount point of each hierarchy."""
        if SYSTEMD:
            return f"/{parent or self.cgroup_parent}/wherry-{full}.scope"
        return f"{parent or self.cgroup_parent}/{full}"

    def start(self) -> None:
        """Start wherryd and wait until it answers."""
        argv = ["--config-file", str(self.root / "daemon.json")]
        argv += ["--data-root", str(self.data_root), "--run-root", str(self.run_root), "-H", self.host]
        argv += ["--bridge", self.bridge, "--cgroup-parent", self.cgroup_parent, "-D", *self.flags]
        if SYSTEMD:
            argv += ["--exec-opt", "native.cgroupdriver=systemd"]
        config = self.root / "daemon.json"
        if not config.exists():
            config.write_text("{}")
        with self.log.open("ab") as log:
            if self.prefix or not preloaded.source().suits():
                enter = ["nsenter", f"--net={self.network}"] if self.network else []
                whole = [*enter, *self.prefix, sys.executable, "-m", preloaded.MODULE, *argv]
                self.process = subprocess.Popen(whole, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
            else:
                self.process = preloaded.Forked(argv, os.environ, log, self.network)
        deadline = time.monotonic() + READY_SECONDS
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"wherryd did not start:\n{self.log.read_text()}")
            time.sleep(0.01)

    def answers(self) -> bool:
        """Return whether the API answers a ping."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            try:
                client.connect(str(self.socket))
                client.sendall(b"GET /_ping HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n")
                return client.recv(64).startswith(b"HTTP/1.1 200 ")
            except (FileNotFoundError, ConnectionError, TimeoutError):
                return False

    def api(self, method: str, path: str, body: str | None = None) -> tuple[int, str]:
        """Make one request; return status and body."""
        argv = [
            "curl",
            "-s",
            "--max-time",
            "60",
            "-X",
            method,
            "-w",
            "\n%{http_code}",
            "--unix-socket",
            str(self.socket),
        ]
        if body is not None:
            argv += ["-H", "Content-Type: application/json", "-d", body]
        ran = subprocess.run([*argv, f"http://w{path}"], capture_output=True, text=True, check=True)
        text, _, status = ran.stdout.rpartition("\n")
        return int(status), text

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which a docker CLI talks to this engine."""
        return {**os.environ, "DOCKER_HOST": self.host, "DOCKER_CONFIG": str(self.root / "docker")}

    def run(
        self, *words: str, input: str | bytes | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run the docker CLI and return what came of it."""
        data = input.encode() if isinstance(input, str) else input
        given = {"stdin": subprocess.DEVNULL} if data is None else {"input": data}
        ran = subprocess.run(  # type: ignore[call-overload]
            ["docker", *words], capture_output=True, env=self.environment, timeout=timeout, **given
        )
        return subprocess.CompletedProcess(
            ran.args, ran.returncode, ran.stdout.decode(errors="replace"), ran.stderr.decode(errors="replace")
        )

    def docker(self, *words: str, input: str | bytes | None = None, timeout: float = 60) -> str:
        """Run the docker CLI, expect success, return its output without the last newline."""
        ran = self.run(*words, input=input, timeout=timeout)
        assert ran.returncode == 0, (
            f"docker {' '.join(words)}: {ran.returncode}\n{ran.stdout}{ran.stderr}\n{self.tail()}"
        )
        return ran.stdout.removesuffix("\n")

    def tail(self) -> str:
        """The end of the engine's log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    def import_busybox(self) -> None:
        """Make the image busybox."""
        self.docker("import", "-", "busybox", input=busybox_tar())

    def crash(self) -> None:
        """kill -9 wherryd."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, and wait; return the exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=30)

    def zygote(self) -> int:
        """The process id of the zygote."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        found = [int(pid) for pid in children if b"zygote" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert len(found) == 1, f"expected one zygote among {children}"
        return found[0]

    def remove_all(self) -> None:
        """Remove every container."""
        ids = self.docker("ps", "-aq").split()
        if ids:
            self.docker("rm", "-f", *ids)

    def destroy(self) -> None:
        """Remove the containers, stop the engine, delete what is its own."""
        try:
            if self.process is None or self.process.poll() is not None:
                self.start()
            self.remove_all()
            assert self.stop() == 0, self.tail()
        finally:
            if self.process is not None and self.process.poll() is None:
                self.crash()
            assert not self.left_groups(), f"control groups left behind: {self.left_groups()}"
            shutil.rmtree(self.root)

    def left_groups(self) -> list[str]:
        """Return its control groups that are there; of a slice, which systemd keeps, what is in it."""
        if not SYSTEMD:
            return sorted(map(str, Path("/sys/fs/cgroup").glob(f"*{self.cgroup_parent}")))
        found = sorted(map(str, Path("/sys/fs/cgroup").glob(f"**/{self.cgroup_parent}/*.scope")))
        subprocess.run(["systemctl", "stop", self.cgroup_parent], check=True)
        return found

    def operations(self, since: int) -> set[str]:
        """The operations of the API that were asked for since the log had this many bytes: "GET /info"."""
        with self.log.open("rb") as log:
            log.seek(since)
            text = log.read().decode(errors="replace")
        return {each.replace("...", "") for each in re.findall(r'msg=request .*?operation="([^"]+)"', text)}

    def quote(self, text: str) -> str:
        """Quote a query value."""
        return urllib.parse.quote(text, safe="")


@pytest.fixture(scope="module")
def shared_engine() -> Iterator[Engine]:
    """An engine for a module of tests, with the image busybox."""
    yield from running()


def running(*flags: str) -> Iterator[Engine]:
    """Yield an engine that runs, with the image busybox, and destroy it in the end."""
    engine = Engine(*flags)
    try:
        engine.start()
        engine.import_busybox()
        yield engine
    finally:
        engine.destroy()


def check_operations(engine: Engine, since: int, request: pytest.FixtureRequest) -> None:
    """Fail when a test did not use an operation for which the table names it."""
    name = request.node.nodeid.partition("[")[0]
    missed = {each for each, test in SERVED.items() if test == name} - engine.operations(since)
    assert not missed, f"tests/e2e/operations.py says that this test uses {missed}"


@pytest.fixture
def engine(shared_engine: Engine, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """The module's engine, without containers before and after."""
    since = shared_engine.log.stat().st_size
    yield shared_engine
    if shared_engine.process is not None and shared_engine.process.poll() is not None:
        shared_engine.start()
    shared_engine.remove_all()
    check_operations(shared_engine, since, request)


@pytest.fixture
def own_engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An engine for one test that kills or reconfigures it; not started yet."""
    engine = Engine()
    try:
        yield engine
        check_operations(engine, 0, request)
    finally:
        engine.destroy()
