"""Image configurations that abuse what they may say: refused, or harmless; the engine lives on."""

from __future__ import annotations

import json
import os

import pytest

from tests.engine import Engine, busybox_tar
from tests.tars import config_of, docker_archive

pytestmark = [pytest.mark.root, pytest.mark.engine]
LAYER = busybox_tar()

ABUSE = {
    "ports that are none": {"ExposedPorts": {"x;y": {}, "0/tcp": {}, "99999999/udp": {}, "80/../x": {}}},
    "volumes over everything": {"Volumes": {"/": {}}},
    "volumes over proc": {"Volumes": {"/proc": {}, "/proc/self/attr": {}}},
    "volumes that lead out": {"Volumes": {"../../etc": {}, "a/../../b": {}, "": {}}},
    "a stop signal that is none": {"StopSignal": "999"},
    "a health check at once": {"Healthcheck": {"Test": ["CMD", "true"], "Interval": 0, "Timeout": -5, "Retries": -1}},
    "a health check of another form": {"Healthcheck": {"Test": ["BOGUS", "x"]}},
    "no working directory": {"WorkingDir": ""},
    "a working directory that leads out": {"WorkingDir": "../../../proc/self/fd/3"},
    "a user that is a path": {"User": "../../etc/passwd:0"},
    "an entry point with line feeds": {"Entrypoint": ["/bin/sh\n", "-c"], "Cmd": ["\n"]},
    "variables of three mebibytes": {"Env": ["A=" + "x" * (3 << 20)]},
    "labels that look like control": {"Labels": {"io.containerd.runc.v2.x": "1", "com.docker.compose.project": "../x"}},
    "variables without a name": {"Env": ["=x", "", "A"]},
}


@pytest.fixture(scope="module", autouse=True)
def before(shared_engine: Engine):
    """What the machine's /etc holds must be the same after all of them."""
    listed = sorted(os.listdir("/etc"))
    yield
    assert sorted(os.listdir("/etc")) == listed


@pytest.mark.parametrize("name", ABUSE)
def test_the_engine_takes_no_harm(engine: Engine, name: str) -> None:
    config = config_of([LAYER], config={"Cmd": ["true"], **ABUSE[name]})
    loaded = engine.run("load", input=docker_archive([LAYER], ["abuse:1"], config=config))
    try:
        if loaded.returncode == 0:
            ran = engine.run("run", "--rm", "--network", "none", "abuse:1", timeout=30)
            assert ran.returncode in (0, 125, 126, 127, 255), ran.stderr  # 255: execve(2) says E2BIG
            assert len(ran.stderr) < 2000
        else:
            assert "Error response from daemon: " in loaded.stderr
            assert len(loaded.stderr) < 2000
    finally:
        engine.run("rmi", "-f", "abuse:1")
    assert engine.docker("run", "--rm", "--network", "none", "busybox", "echo", "works") == "works"
    assert json.loads(engine.api("GET", "/wherry/v1/system/check")[1])["Findings"] == []
    assert "Traceback" not in engine.log.read_text(errors="replace")
