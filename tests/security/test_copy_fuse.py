"""docker cp of a container that may mount, and lets whoever looks into it wait for ever.

The kernel waits for a FUSE server without end, and only a signal that ends the whole process ends that: a thread of the
engine that waits so is lost. So nothing may be asked of what such a container has mounted.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.engine import Engine

pytestmark = [pytest.mark.root, pytest.mark.engine]

SECONDS = 10.0
VOLUMES = ["-v", "vv:/a/v", "--tmpfs", "/a/t"]


@contextmanager
def silent(engine: Engine, form: str, place: str = "") -> Iterator[None]:
    """A file system whose server does not answer, mounted in the container aa."""
    pid = engine.docker("inspect", "-f", "{{.State.Pid}}", "aa")
    words = [sys.executable, "-m", "tests.security.fuse_server", pid, form, place]
    above = Path(__file__).parents[2]  # where its module is; a test may have gone elsewhere
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=above) as server:
        try:
            assert server.stdout
            assert server.stdout.readline() == "ready\n"
            yield
        finally:
            server.kill()


def _ask(engine: Engine, method: str, path: str) -> int:
    """Ask, and wait for so long as an answer may take; 0 when there is none."""
    words = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", str(SECONDS), "-X", method]
    words += ["-T", "-"] if method == "PUT" else ["--head"] if method == "HEAD" else []
    url = ["--unix-socket", str(engine.socket), f"http://w{path}"]
    return int(subprocess.run([*words, *url], capture_output=True, text=True, input="\0" * 1024).stdout)


def _threads(engine: Engine) -> list[str]:
    """The engine's threads that wait for a FUSE server."""
    assert engine.process
    found = []
    for task in Path(f"/proc/{engine.process.pid}/task").iterdir():
        where = (task / "wchan").read_text()
        if "fuse" in where or "request_wait" in where:
            found.append(where)
    return found


@pytest.mark.parametrize(
    ("form", "place", "right"),
    [
        ("over", "/etc", "--privileged"),
        ("over", "/a", "--privileged"),
        ("over", "/a/v", "--cap-add=SYS_ADMIN"),
        ("over", "/a/t", "--privileged"),
        ("layers", "", "--privileged"),
    ],
)
def test_no_thread_of_the_engine_waits_for_a_container(own_engine: Engine, form: str, place: str, right: str) -> None:
    own_engine.start()
    own_engine.import_busybox()
    own_engine.docker("run", "-d", "--name", "aa", right, *VOLUMES, "busybox", "sleep", "1000")
    statuses = {}
    with silent(own_engine, form, place):
        for method in ("HEAD", "GET", "PUT"):
            for path in ("/bin", "/etc", "/a/v", "/a/t"):
                statuses[method, path] = _ask(own_engine, method, f"/containers/aa/archive?path={path}")
        # who looks for a user looks into /etc
        exec_body = '{"Cmd": ["true"], "User": "web"}'
        assert own_engine.api("POST", "/containers/aa/exec", exec_body)[0] in (201, 400)
        statuses["GET", "all"] = _ask(own_engine, "GET", "/containers/aa/export")
        assert not _threads(own_engine)
        assert 0 not in statuses.values(), statuses
        if form == "over":
            assert statuses["GET", "/bin"] == 200, statuses
        began = time.monotonic()
        assert own_engine.stop() == 0
        assert time.monotonic() - began < SECONDS
    own_engine.start()
    own_engine.docker("rm", "-f", "aa")
    own_engine.docker("volume", "rm", "vv")
