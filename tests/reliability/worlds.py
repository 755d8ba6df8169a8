"""A network namespace for one engine alone, and everything that the kernel and the engine hold of networks in it."""

from __future__ import annotations

import os
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tests.engine import Engine
from tests.kernel.isolation import command, inside, new_namespace

_RANDOM = re.compile(
    r"\b(veth[0-9a-f]{7}(@\w+)?|fe80::[0-9a-f:]+(?=[ /])|"
    r"link-netnsid \d+|(port_)?(id|no) 0x\w+|0x\w+|\w+_timer +[\d.]+|"
    r"counter packets \d+ bytes \d+|(designated_(root|bridge|port)|bridge_id|root_id) [0-9a-f.:]+|"
    r"[0-9a-f]{2}(:[0-9a-f]{2}){5}|valid_lft \w+|preferred_lft \w+|REACHABLE|STALE|DELAY|PROBE)\b"
)
"""Names, numbers and times that are others each time; what is left says that something is there."""


class World:
    """What an engine sees as the host's network."""

    def __init__(self, engine: Engine, fd: int) -> None:
        self.engine = engine
        self.fd = fd

    def run(self, *argv: str) -> str:
        """Run a command of the host's."""
        return str(inside(self.fd, lambda: command(*argv)))

    def do(self, work: Callable[[], Any]) -> Any:
        """Run something in a thread of the host's."""
        return inside(self.fd, work)

    def kernel(self) -> dict[str, Counter[str]]:
        """Links, addresses, routes, neighbours, rules, mounts and namespaces, without what is random in them."""
        asked = {
            "links": "ip -d -o link",
            "addresses": "ip -o addr",
            "routes": "ip route show table all",
            "routes6": "ip -6 route show table all",
            "neighbours": "ip neigh",
            "rules": "nft list ruleset",
        }
        found = {name: _lines(self.run(*line.split())) for name, line in asked.items()}
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        points = [line.split()[4] for line in mounts if str(self.engine.root) in line.split()[4]]
        found["mounts"] = Counter(points)
        return found

    def held(self) -> dict[str, Counter[str]]:
        """The engine's own: rows, files of its run root, descriptors by kind; sandboxes in stock by their number."""
        engine = self.engine
        assert engine.process is not None
        with closing(sqlite3.connect(f"file:{engine.data_root}/meta.db?mode=ro", uri=True)) as database:
            rows = {name: database.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in _TABLES}
        folder = f"/proc/{engine.process.pid}/fd"
        kinds = Counter(re.sub(r"[\[(]?\d.*", "", _target(f"{folder}/{fd}")) for fd in os.listdir(folder))
        run = [str(path.relative_to(engine.run_root)) for path in engine.run_root.rglob("*")]
        files = Counter(re.sub(r"[0-9a-f]{12,}", "ID", path) for path in run)
        return {"rows": Counter(rows), "descriptors": kinds, "files": files}

    def everything(self) -> dict[str, Counter[str]]:
        """Both."""
        return {**self.kernel(), **self.held()}


_TABLES = ("containers", "endpoints", "addresses", "networks")


def _lines(text: str) -> Counter[str]:
    return Counter(_RANDOM.sub("*", re.sub(r"^\d+: ", "", line)).strip() for line in text.splitlines())


def _target(path: str) -> str:
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return ""  # closed while we looked


def difference(before: dict[str, Counter[str]], after: dict[str, Counter[str]]) -> list[str]:
    """What came and what went, one line each."""
    lines = []
    for area, old in before.items():
        lines += [f"{area}: came: {count} x {line}" for line, count in (after[area] - old).items()]
        lines += [f"{area}: went: {count} x {line}" for line, count in (old - after[area]).items()]
    return lines


@contextmanager
def world(engine: Engine) -> Iterator[World]:
    """Give an engine that is not started yet a network of its own."""
    fd = new_namespace()
    engine.network = f"/proc/{os.getpid()}/fd/{fd}"
    try:
        yield World(engine, fd)
    finally:
        if engine.process is not None and engine.process.poll() is not None:
            engine.start()  # whoever removes what is left needs it in this network
        os.close(fd)
