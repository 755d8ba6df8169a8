"""Plugins of a test's own: processes in its network namespace, and what they were asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.waiting import until
from wherry.plugins.api import Limits, Roots
from wherry.plugins.registry import Plugins

PROGRAM = Path(__file__).with_name("program.py")
QUICK = Limits(connect=1.0, answer=1.5, first_pause=0.05)


def roots(folder: Path) -> Roots:
    """Return places below a folder."""
    return Roots((folder / "run",), (folder / "etc",))


class Program:
    """A plugin process. Started in the namespace of the thread that calls `start`."""

    def __init__(self, folder: Path, name: str = "tester", *kinds: str) -> None:
        (folder / "run").mkdir(exist_ok=True, parents=True)
        self.name, self.kinds = name, kinds
        self.socket = folder / "run" / f"{name}.sock"
        self.folder = folder / f"state-{name}"
        self.folder.mkdir(exist_ok=True)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Program:
        # The program makes the socket anew; until then the old one of a process that died is there and refuses.
        before = self._identity()
        argv = [sys.executable, str(PROGRAM), str(self.socket), str(self.folder), *self.kinds]
        self.process = subprocess.Popen(argv)
        until(lambda: self._identity() not in (None, before), seconds=20.0)
        return self

    def _identity(self) -> tuple[int, int] | None:
        try:
            status = self.socket.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_ctime_ns

    def kill(self) -> None:
        """As an accident would: the socket's file stays."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def order(self, **orders: str) -> None:
        """Say how to answer from now on, by the last part of the method's name, or the whole with _ for the dot."""
        full = {}
        for key, value in orders.items():
            method = key.replace("_", ".") if "_" in key else f"NetworkDriver.{key}"
            full[method] = value
        (self.folder / "orders").write_text(json.dumps(full))

    def calls(self) -> list[tuple[str, dict]]:
        """Return what it was asked, in order."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(each["method"], each["request"]) for each in map(json.loads, lines)]

    def asked(self) -> list[str]:
        """Return the methods, without the drivers' names."""
        return [method.partition(".")[2] for method, _ in self.calls()]

    def last(self, method: str) -> dict:
        """Return the last request of a method."""
        return next(request for name, request in reversed(self.calls()) if name.partition(".")[2] == method)


def plugins(folder: Path, limits: Limits = QUICK) -> Plugins:
    """Return the plugins of a folder."""
    return Plugins(roots(folder), limits)
