"""Each step of create, start and remove, made to fail and made to die: nothing half-made stays behind."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.engine import Engine

pytestmark = [pytest.mark.root, pytest.mark.engine]

PLACES = ("create.folder", "create.snapshot", "start.run-dir", "start.sandbox", "start.files", "start.spec")
PLACES += ("start.launched", "remove.record", "remove.files")


def holdings(engine: Engine) -> dict[str, list[str]]:
    """What an engine holds on disk and in the kernel, apart from what it always has."""
    links = subprocess.run(["ip", "-o", "link", "show", "master", engine.bridge], capture_output=True, text=True).stdout
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return {
        "folders": sorted(os.listdir(engine.data_root / "containers")),
        "running": sorted(os.listdir(engine.run_root / "containers")),
        "snapshots": sorted(name for name in os.listdir(next(iter((engine.data_root / "snapshots").iterdir())))),
        "cgroups": sorted(map(str, Path("/sys/fs/cgroup").glob(f"*{engine.cgroup_parent}/*/"))),
        "mounts": sorted(point for line in mounts if (point := line.split()[4]).startswith(str(engine.root))),
        "links": ["many"] if len(links.splitlines()) > 16 else [],
    }


@pytest.mark.parametrize("action", ["error", "kill"])
@pytest.mark.parametrize("place", PLACES)
def test_nothing_half_made_stays(own_engine: Engine, place: str, action: str, monkeypatch: pytest.MonkeyPatch):
    own_engine.start()
    own_engine.import_busybox()
    before = holdings(own_engine)
    assert own_engine.stop() == 0
    monkeypatch.setenv("WHERRY_FAILPOINTS", f"{place}={action}")
    own_engine.start()
    ran = own_engine.run("run", "--name", "aa", "busybox", "true")
    if place.startswith("remove"):
        assert ran.returncode == 0
        own_engine.run("rm", "aa")
    else:
        assert ran.returncode == 125
        assert place in ran.stderr or action == "kill"
    assert own_engine.process is not None
    if action == "kill":
        assert own_engine.process.wait(timeout=10) == -signal.SIGKILL
    else:
        assert own_engine.process.poll() is None
    monkeypatch.delenv("WHERRY_FAILPOINTS")
    if action == "error":
        assert own_engine.stop() == 0
    own_engine.start()
    own_engine.remove_all()
    assert own_engine.docker("run", "--rm", "--name", "aa", "busybox", "echo", "works") == "works"
    deadline = time.monotonic() + 5  # a removal is answered before its files are gone
    while holdings(own_engine) != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert holdings(own_engine) == before
