"""Each step of load, import, commit, rmi and prune, made to fail and made to die.

What was there is there, what was to come is there whole or not at all, nothing is left over, and the next try works.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable

import pytest

from tests import tars
from tests.e2e.test_check import look
from tests.engine import Engine
from tests.tars import docker_archives, file

pytestmark = [pytest.mark.root, pytest.mark.engine]
LOWER, UPPER, OTHER = (tars.archive([file(f"etc/{name}", name.encode())]) for name in ("lower", "upper", "other"))
KEPT = docker_archives([([LOWER], ["kept:1"], tars.config_of([LOWER]))])
TWO, ONE = tars.config_of([LOWER, UPPER]), tars.config_of([OTHER])
BOTH = docker_archives([([LOWER, UPPER], ["new:1", "kept:1"], TWO), ([OTHER], ["new:2"], ONE)])
MAKING = ("image.layer", "image.flushed", "image.blobs", "image.recorded", "image.visible")
GOING = ("removal.recorded", "collect.removed", "collect.layers", "collect.recorded")


def load(engine: Engine) -> int:
    return engine.run("load", input=BOTH).returncode


def import_(engine: Engine) -> int:
    return engine.run("import", "-", "new:1", input=UPPER).returncode


def commit(engine: Engine) -> int:
    return engine.run("commit", "cc", "new:1").returncode


def remove(engine: Engine) -> int:
    return engine.run("rmi", "new:1", "new:2").returncode


def prune(engine: Engine) -> int:
    return engine.run("image", "prune", "-af").returncode


def names(engine: Engine) -> dict[str, str]:
    found = json.loads(engine.api("GET", "/images/json")[1])
    return {name: image["Id"] for image in found for name in image["RepoTags"]}


def restarted(engine: Engine, failpoints: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine.process is not None
    if engine.process.poll() is None:
        assert engine.stop() == 0
    monkeypatch.setenv("WHERRY_FAILPOINTS", failpoints)
    engine.start()


def ended(engine: Engine, action: str) -> None:
    assert engine.process is not None
    if action == "kill":
        assert engine.process.wait(timeout=10) == -signal.SIGKILL
    else:
        assert engine.process.poll() is None
        assert look(engine, "--deep")["Findings"] == []  # what failed has tidied up by itself


@pytest.mark.parametrize("action", ["error", "kill"])
@pytest.mark.parametrize(
    ("place", "work"),
    [("load.spooled", load), *[(place, work) for work in (load, import_, commit) for place in MAKING]],
)
def test_what_was_being_made(
    own_engine: Engine, place: str, work: Callable[[Engine], int], action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_engine.start()
    own_engine.import_busybox()
    own_engine.docker("load", input=KEPT)
    own_engine.docker("run", "--name", "cc", "--network", "none", "busybox", "touch", "/made")
    before = names(own_engine)
    restarted(own_engine, f"{place}={action}", monkeypatch)
    assert work(own_engine) != 0
    ended(own_engine, action)
    restarted(own_engine, "", monkeypatch)
    after = names(own_engine)
    if place == "image.visible":
        assert "new:1" in after
    else:
        assert after == before
    assert look(own_engine, "--deep")["Findings"] == []
    assert work(own_engine) == 0
    assert own_engine.docker("image", "inspect", "-f", "{{len .RootFS.Layers}}", "new:1") in ("1", "2")
    assert look(own_engine, "--deep")["Findings"] == []


@pytest.mark.parametrize("work", [remove, prune])
@pytest.mark.parametrize("place", GOING)
def test_what_was_being_removed(
    own_engine: Engine, place: str, work: Callable[[Engine], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    own_engine.start()
    own_engine.import_busybox()
    own_engine.docker("load", input=BOTH)
    own_engine.docker("create", "--name", "cc", "--network", "none", "busybox", "true")
    restarted(own_engine, f"{place}=kill", monkeypatch)
    assert work(own_engine) != 0
    ended(own_engine, "kill")
    restarted(own_engine, "", monkeypatch)
    assert look(own_engine, "--deep")["Findings"] == []
    assert "busybox:latest" in names(own_engine)
    work(own_engine)
    own_engine.docker("load", input=BOTH)
    assert work(own_engine) == 0
    assert look(own_engine, "--deep")["Findings"] == []
