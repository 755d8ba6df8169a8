"""Mounts that show other owners than the disk has: -v SRC:DST:idmap, through docker and through wherry."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_mount_add import done, refused, wherry
from tests.engine import Engine
from tests.volumes import remove_volumes

pytestmark = [pytest.mark.root, pytest.mark.engine]

OWN = "uids=1000-0-1;gids=1001-0-1"


@pytest.fixture
def engine(engine: Engine) -> Iterator[Engine]:
    """The module's engine; no volume stays."""
    yield engine
    remove_volumes(engine)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of the host's user 1000, group 1001, with a file of theirs and one of root's."""
    place = tmp_path / "home"
    place.mkdir()
    (place / "mine").touch()
    (place / "roots").touch()
    for each in (place, place / "mine"):
        os.chown(each, 1000, 1001)
    return place


LOOK = "stat -c '%u:%g' /x /x/mine /x/roots; touch /x/made; mkdir /x/dir; chown 0:0 /x/made; chown 5 /x/made || echo no"


def check(folder: Path, told: str, seen: str = "0:0") -> None:
    """What the container saw, and whose is on the disk what it made."""
    assert told.split() == [seen, seen, "65534:65534", "no"]
    for name in ("made", "dir"):
        state = (folder / name).stat()
        assert (state.st_uid, state.st_gid) == (1000, 1001), name


@pytest.mark.parametrize("mode", ["idmap", f"idmap={OWN}", f"z,idmap={OWN}"])
def test_the_user_of_the_host_is_root_inside(engine: Engine, folder: Path, mode: str):
    words = ["run", "--rm", "-v", f"{folder}:/x:{mode}", "busybox", "sh", "-c", f"{LOOK} 2>/dev/null"]
    check(folder, engine.docker(*words))


@pytest.mark.parametrize("words", ["bind-idmap", "idmap", f"bind-idmap={OWN}"])
def test_in_the_words_of_mount(engine: Engine, folder: Path, words: str):
    spec = f"type=bind,src={folder},dst=/x,{words}"
    check(folder, done(engine, "run", "--rm", "--mount", spec, "busybox", "sh", "-c", f"{LOOK} 2>/dev/null"))


def test_the_containers_user_is_meant(engine: Engine, folder: Path):
    words = ["run", "--rm", "--user", "33:34", "-v", f"{folder}:/x:idmap", "busybox", "sh", "-c"]
    told = engine.docker(*words, "stat -c '%u:%g' /x; touch /x/made")
    assert told == "33:34"
    state = (folder / "made").stat()
    assert (state.st_uid, state.st_gid) == (1000, 1001)


def test_read_only_volumes_parts_and_several_ranges(engine: Engine, folder: Path):
    ran = engine.run("run", "--rm", "-v", f"{folder}:/x:ro,idmap", "busybox", "touch", "/x/no")
    assert "Read-only file system" in ran.stderr
    engine.docker("volume", "create", "vv")
    place = engine.data_root / "volumes" / "vv" / "_data"
    (place / "part").mkdir()
    os.chown(place / "part", 100, 100)
    for number in range(3):
        (place / "part" / str(number)).touch()
        os.chown(place / "part" / str(number), 100 + number, 100 + number)
    ranges = "100-0-1#101-500-2"
    spec = f"type=volume,src=vv,dst=/x,volume-subpath=part,volume-idmap=uids={ranges};gids={ranges}"
    told = done(engine, "run", "--rm", "--mount", spec, "busybox", "stat", "-c", "%u:%g", "/x/0", "/x/1", "/x/2")
    assert told.split() == ["0:0", "500:500", "501:501"]
    engine.docker("run", "--rm", "-v", f"vv:/x:idmap=uids={ranges};gids={ranges}", "busybox", "touch", "/x/part/new")
    assert (place / "part" / "new").stat().st_uid == 100


def test_added_to_a_running_container_and_kept(engine: Engine, folder: Path):
    engine.docker("run", "-d", "--name", "aa", "busybox", "sleep", "1000")
    done(engine, "mount", "add", "aa", f"{folder}:/x:idmap")
    check(folder, engine.docker("exec", "aa", "sh", "-c", f"{LOOK} 2>/dev/null"))
    engine.docker("restart", "-t", "0", "aa")
    assert engine.docker("exec", "aa", "stat", "-c", "%u:%g", "/x") == "0:0"
    assert json.loads(engine.docker("inspect", "-f", "{{json .Mounts}}", "aa"))[0]["Mode"] == "idmap"
    # nobody is left who held the namespace
    assert "idmap import live" not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout


def test_what_cannot_be_is_refused(engine: Engine, folder: Path):
    for mode, text in (
        ("idmap=uids=1-2", "invalid idmap range '1-2'"),
        ("idmap=uids=1000-0-1", "uids and gids are both needed"),
        ("idmap=uids=1000-0-0;gids=1-1-1", "invalid idmap range '1000-0-0'"),
        ("idmap=uids=0-0-2#1-5-1;gids=1-1-1", "ranges overlap"),
        ("idmap,idmap", "invalid mode: idmap,idmap"),
        ("idmaps", "invalid mode: idmaps"),
    ):
        ran = engine.run("create", "-v", f"{folder}:/x:{mode}", "busybox", "true")
        assert text in ran.stderr, (mode, ran.stderr)
    ran = engine.run("create", "--user", "web", "-v", f"{folder}:/x:idmap", "busybox", "true")
    assert "give --user UID:GID" in ran.stderr
    # procfs belongs to no one who could be mapped
    ran = engine.run("run", "--rm", "-v", "/proc:/x:idmap", "busybox", "true")
    assert "its file system, proc," in ran.stderr
    assert "cannot show other owners" in ran.stderr
    engine.docker("run", "-d", "--name", "aa", "busybox", "sleep", "1000")
    assert "its file system, proc," in refused(engine, "mount", "add", "aa", "/proc:/x:idmap")
    assert wherry(engine, "inspect", "-f", "{{json .Mounts}}", "aa").stdout == "[]\n"
