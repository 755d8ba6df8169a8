"""wherry volume rename: the folder, the record and the containers that have it, also when the engine dies meanwhile."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator

import pytest

from tests.e2e.test_mount_add import done, places, refused, wherry
from tests.engine import Engine
from tests.volumes import remove_volumes

pytestmark = [pytest.mark.root, pytest.mark.engine]


@pytest.fixture
def engine(engine: Engine) -> Iterator[Engine]:
    """The module's engine; no volume stays."""
    yield engine
    remove_volumes(engine)


def folders(engine: Engine) -> list[str]:
    return sorted(os.listdir(engine.data_root / "volumes"))


def test_stopped_containers_follow(engine: Engine):
    engine.docker("run", "--name", "aa", "-v", "old:/v", "busybox", "touch", "/v/file")
    engine.docker("create", "--name", "bb", "--mount", "type=volume,src=old,dst=/x", "busybox", "ls", "/x")
    since = str(time.time())
    done(engine, "volume", "rename", "old", "new")
    assert folders(engine) == ["new"]
    assert engine.docker("volume", "ls", "-q") == "new"
    place = engine.data_root / "volumes" / "new"
    assert json.loads(engine.docker("volume", "inspect", "new"))[0]["Mountpoint"] == str(place / "_data")
    assert os.listdir(place) == ["_data"]
    assert places(engine)["/v"]["Name"] == "new"
    assert places(engine)["/v"]["Source"] == str(place / "_data")
    assert engine.docker("inspect", "-f", "{{.HostConfig.Binds}}", "aa") == "[new:/v]"
    assert engine.docker("start", "-a", "bb") == "file"
    assert "in use" in engine.run("volume", "rm", "new").stderr
    words = ("--since", since, "--until", str(time.time()), "--filter", "type=volume", "--filter", "event=rename")
    told = engine.docker("events", *words, "--format", "{{.Actor.ID}} {{.Actor.Attributes.oldName}}")
    assert told == "new old"
    assert engine.docker("volume", "create", "old") == "old"


def test_a_volume_that_nobody_named_has_a_name_then(engine: Engine):
    engine.docker("create", "--name", "aa", "-v", "/v", "busybox", "true")
    done(engine, "volume", "rename", places(engine)["/v"]["Name"], "kept")
    assert json.loads(engine.docker("volume", "inspect", "kept"))[0]["Labels"] is None
    engine.docker("rm", "-v", "aa")
    assert engine.docker("volume", "ls", "-q") == "kept"


def test_what_cannot_be_renamed(engine: Engine):
    engine.docker("run", "-d", "--name", "aa", "-v", "used:/v", "busybox", "sleep", "1000")
    engine.docker("volume", "create", "taken")
    engine.docker("volume", "create", "free")
    for old, new, text in (
        ("used", "new", "in use by containers that run"),
        ("free", "taken", "a volume of the name taken exists"),
        ("free", "free", "same name"),
        ("free", "../x", "includes invalid characters"),
        ("free", "x", "too short"),
        ("nosuch", "new", "no such volume"),
    ):
        assert text in refused(engine, "volume", "rename", old, new), (old, new)
    assert folders(engine) == ["free", "taken", "used"]


@pytest.mark.parametrize(
    ("place", "action", "name"),
    [
        ("volume.renamed", "kill", "new"),
        ("volume.moved", "kill", "new"),
        ("volume.moved", "error", "old"),
    ],
)
def test_an_engine_that_fails_in_the_middle(own_engine: Engine, monkeypatch, place: str, action: str, name: str):
    engine = own_engine
    engine.start()
    engine.import_busybox()
    engine.docker("run", "--name", "aa", "-v", "old:/v", "busybox", "touch", "/v/file")
    engine.stop()
    monkeypatch.setenv("WHERRY_FAILPOINTS", f"{place}={action}")
    engine.start()
    assert wherry(engine, "volume", "rename", "old", "new").returncode != 0
    assert engine.process is not None
    if action == "kill":
        assert engine.process.wait(20) != 0
    else:
        engine.stop()
    monkeypatch.delenv("WHERRY_FAILPOINTS")
    engine.start()
    assert folders(engine) == [name]
    assert engine.docker("volume", "ls", "-q") == name
    assert places(engine)["/v"]["Name"] == name
    assert os.listdir(engine.data_root / "volumes" / name / "_data") == ["file"]
    assert engine.docker("start", "-a", "aa") == ""
    engine.docker("rm", "aa")
    assert engine.docker("volume", "rm", name) == name
    assert folders(engine) == []
