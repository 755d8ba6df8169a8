"""The engine may open many files, and its containers as many as the engine was allowed when it was started."""

import re
import resource
from pathlib import Path

import pytest

from tests.engine import Engine

pytestmark = [pytest.mark.root, pytest.mark.engine]


def limit_of(pid: int) -> tuple[int, int]:
    found = re.search(r"Max open files +(\d+) +(\d+)", Path(f"/proc/{pid}/limits").read_text())
    assert found
    return int(found[1]), int(found[2])


def test_who_may_open_how_many(own_engine: Engine):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        own_engine.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    own_engine.import_busybox()
    assert own_engine.process
    assert limit_of(own_engine.process.pid) == (before[1], before[1])
    assert own_engine.docker("run", "--rm", "busybox", "sh", "-c", "ulimit -Sn; ulimit -Hn") == f"256\n{before[1]}"
    own_engine.docker("run", "-d", "--name", "aa", "busybox", "sleep", "100")
    assert own_engine.docker("exec", "aa", "sh", "-c", "ulimit -Sn") == "256"
