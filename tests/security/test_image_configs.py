"""Image configurations that abuse what they may say: refused, or harmless; the engine lives on."""

from __future__ import annotations

import io
import json
import os
import tarfile

import pytest

from tests.engine import Engine, busybox_tar
from tests.tars import config_of, docker_archive, folder, link

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


def _links_where_the_kernel_is(place: str, target: str) -> bytes:
    buffer = io.BytesIO(LAYER)
    with tarfile.open(fileobj=buffer, mode="a") as tar:
        for info, data in (folder(target), link(place, f"/{target}")):
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("layer", "config", "why"),
    [
        (_links_where_the_kernel_is("proc", "bad-proc"), {}, "must be mounted on ordinary directory"),
        (_links_where_the_kernel_is("sys", "x"), {}, "must be mounted on ordinary directory"),
        (LAYER, {"Volumes": {"/proc": {}}}, "it is not of type proc"),
        (LAYER, {"Volumes": {"/proc/self/attr": {}}}, "it is inside /proc"),
        (_links_where_the_kernel_is("way", "proc/self"), {"Volumes": {"/way/attr": {}}}, "it is inside /proc"),
    ],
    ids=["proc is a link", "sys is a link", "volume at proc", "volume at attr", "volume at attr by a link"],
)
def test_rt07_what_hides_proc_never_runs(engine: Engine, layer: bytes, config: dict[str, object], why: str) -> None:
    """RT-07: the start is refused, so there is no container without its label, and no process of one is left."""
    whole = config_of([layer], config={"Cmd": ["sleep", "99"], **config})
    engine.docker("load", input=docker_archive([layer], ["rt07:latest"], config=whole))
    refused = engine.run("run", "-d", "--name", "aa", "rt07")
    assert refused.returncode in (125, 126, 127)
    assert why in refused.stderr
    assert engine.docker("inspect", "-f", "{{.State.Running}} {{.State.Pid}}", "aa") == "false 0"
    engine.docker("rm", "-v", "aa")
    engine.docker("rmi", "rt07")
