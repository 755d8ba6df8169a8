"""Each step that makes or removes volumes, made to fail and made to die: nothing half-made stays, nothing is lost."""

import os
import signal

import pytest

from tests.engine import Engine
from tests.reliability.test_failpoints import holdings
from tests.volumes import remove_volumes

pytestmark = [pytest.mark.root, pytest.mark.engine]


def folders(engine: Engine) -> list[str]:
    return sorted(os.listdir(engine.data_root / "volumes"))


@pytest.fixture
def armed(own_engine: Engine, monkeypatch: pytest.MonkeyPatch):
    """Start an engine that fails or dies at a place; `settled` then starts it anew without."""

    def arm(place: str, action: str) -> Engine:
        own_engine.start()
        own_engine.import_busybox()
        own_engine.docker("run", "--rm", "-v", "kept:/k", "busybox", "touch", "/k/file")
        assert own_engine.stop() == 0
        monkeypatch.setenv("WHERRY_FAILPOINTS", f"{place}={action}")
        own_engine.start()
        return own_engine

    yield arm
    monkeypatch.delenv("WHERRY_FAILPOINTS")


def settled(engine: Engine, action: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine.process is not None
    if action == "kill":
        assert engine.process.wait(timeout=10) == -signal.SIGKILL
    else:
        assert engine.stop() == 0
    monkeypatch.setenv("WHERRY_FAILPOINTS", "")
    engine.start()


@pytest.mark.parametrize("action", ["error", "kill"])
@pytest.mark.parametrize("place", ["create.snapshot", "create.volumes", "create.filled"])
def test_a_container_that_was_not_made_has_no_volumes(armed, place: str, action: str, monkeypatch):
    engine = armed(place, action)
    before = holdings(engine)
    ran = engine.run("create", "-v", "vv:/etc", "-v", "/home", "-v", "kept:/k", "busybox", "true")
    assert ran.returncode == 1
    settled(engine, action, monkeypatch)
    assert engine.docker("volume", "ls", "-q") == "kept"
    assert folders(engine) == ["kept"]
    assert holdings(engine) == before
    assert engine.docker("run", "--rm", "-v", "vv:/etc", "busybox", "cat", "/etc/passwd").startswith("root")
    assert os.listdir(engine.data_root / "volumes" / "kept" / "_data") == ["file"]
    remove_volumes(engine)


def test_a_container_that_was_recorded_has_its_volumes(armed, monkeypatch):
    engine = armed("create.recorded", "kill")
    engine.run("create", "--name", "aa", "-v", "vv:/etc", "-v", "/home", "busybox", "true")
    settled(engine, "kill", monkeypatch)
    assert len(folders(engine)) == 3
    assert engine.docker("start", "-a", "aa") == ""
    engine.docker("rm", "-v", "aa")
    assert folders(engine) == ["kept", "vv"]
    assert os.listdir(engine.data_root / "volumes" / "vv") == ["_data"]


@pytest.mark.parametrize("place", ["remove.volumes", "volume.trash"])
def test_a_removal_that_was_cut_off_is_finished(armed, place: str, monkeypatch):
    engine = armed(place, "kill")
    engine.docker("create", "--name", "aa", "-v", "vv:/etc", "-v", "/home", "busybox", "true")
    engine.run("rm", "-v", "aa")
    settled(engine, "kill", monkeypatch)
    assert engine.docker("ps", "-aq") == ""
    assert sorted(engine.docker("volume", "ls", "-q").split()) == folders(engine) == ["kept", "vv"]
