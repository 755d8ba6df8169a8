"""Volumes on disk: what is made, what is removed, and what the next start makes of what was cut off."""

import os
from pathlib import Path

import pytest

from wherry.errors import InvalidArgument, NotFound, SystemFailure
from wherry.store.database import Database
from wherry.volumes import names
from wherry.volumes.local import Volumes
from wherry.volumes.records import Volume


@pytest.fixture
def root(tmp_path: Path):
    return tmp_path / "volumes"


@pytest.fixture
def volumes(tmp_path: Path, root: Path):
    database = Database(tmp_path / "meta.db")
    yield Volumes(database, root)
    database.close()


def make(volumes: Volumes, name: str) -> None:
    volumes.make(name)
    with volumes.recording([Volume(name=name, created=1)]):
        pass
    volumes.settle(name)


@pytest.mark.parametrize("name", ["", "a", "a/b", "..", ".ab", "-ab", "a b", "ab\n", "ü1", "a" * 256])
def test_names_that_no_volume_may_have(name):
    with pytest.raises(InvalidArgument):
        names.check(name)


@pytest.mark.parametrize("name", ["ab", "a..", "A_b-1.c", "0" * 64, "a" * 255])
def test_names_that_a_volume_may_have(name):
    assert names.check(name) == name


def test_a_volume_has_a_folder_and_comes_back_with_the_next_start(volumes: Volumes, tmp_path: Path, root: Path):
    make(volumes, "vv")
    assert sorted(os.listdir(root / "vv")) == ["_data"]
    assert (root / "vv").stat().st_mode & 0o777 == 0o701
    assert volumes.mountpoint("vv").stat().st_mode & 0o777 == 0o755
    again = Volumes(volumes._database, root)
    assert again.load() == []
    assert again.get("vv").created == 1
    with pytest.raises(NotFound, match="get ww: no such volume"):
        again.get("ww")


def test_a_folder_that_is_there_already_is_nobodys_to_delete(volumes: Volumes, root: Path):
    (root / "vv" / "_data").mkdir(parents=True)
    (root / "vv" / "_data" / "precious").touch()
    with pytest.raises(SystemFailure, match="create vv"):
        volumes.make("vv")
    volumes.discard("vv")
    assert (root / "vv" / "_data" / "precious").exists()


def test_making_that_was_cut_off_leaves_nothing(volumes: Volumes, root: Path):
    volumes.make("vv")
    assert volumes.sweep() == []
    assert os.listdir(root) == []


def test_removing_that_was_cut_off_before_the_record_went_leaves_the_volume(volumes: Volumes, root: Path):
    make(volumes, "vv")
    volumes.unsettle("vv")
    assert volumes.sweep() == []
    assert os.listdir(root / "vv") == ["_data"]


@pytest.mark.parametrize("renamed", [False, True])
def test_removing_that_was_cut_off_after_it_is_finished(volumes: Volumes, root: Path, renamed):
    make(volumes, "vv")
    (root / "vv" / "_data" / "file").touch()
    volumes.unsettle("vv")
    with volumes.forgetting(["vv"]):
        pass
    if renamed:
        (root / "vv").rename(root / ".trash-1")
    assert volumes.sweep() == []
    assert os.listdir(root) == []


def test_data_whose_record_was_lost_becomes_a_volume_again(volumes: Volumes, root: Path):
    make(volumes, "vv")
    (root / "vv" / "_data" / "file").touch()
    with volumes.forgetting(["vv"]):
        pass
    with volumes.recording(volumes.sweep()):
        pass
    assert "vv" in volumes
    assert (root / "vv" / "_data" / "file").exists()


def test_a_filling_that_was_cut_off_is_taken_away(volumes: Volumes, root: Path):
    make(volumes, "vv")
    (root / "vv" / "filling-1" / "deep").mkdir(parents=True)
    volumes.sweep()
    assert os.listdir(root / "vv") == ["_data"]


def test_records_come_and_go_with_what_is_written_beside_them(volumes: Volumes):
    with pytest.raises(RuntimeError), volumes.recording([Volume(name="vv", created=1)]):
        raise RuntimeError
    assert "vv" not in volumes
    make(volumes, "vv")
    with pytest.raises(RuntimeError), volumes.forgetting(["vv"]):
        raise RuntimeError
    assert "vv" in volumes
