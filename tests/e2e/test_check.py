"""`wherry system check`: every kind of damage is made on the disk, found, explained and, where it can be, mended."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import tars
from tests.engine import Engine
from tests.tars import digest, docker_archive, file
from tests.volumes import remove_volumes

pytestmark = [pytest.mark.root, pytest.mark.engine]
LOWER = tars.archive([file("etc/lower", b"lower" * 1000)])
UPPER = tars.archive([file("etc/upper", b"upper")])
ARCHIVE = docker_archive([LOWER, UPPER], ["two:1"])
UNKNOWN = "0" * 64


@pytest.fixture
def checked(own_engine: Engine):
    """An engine with images, a container and volumes, all well before and after."""
    own_engine.start()
    own_engine.import_busybox()
    own_engine.docker("load", input=ARCHIVE)
    own_engine.docker("create", "--name", "aa", "-v", "vv:/v", "busybox", "true")
    assert look(own_engine)["Findings"] == []
    yield own_engine
    own_engine.remove_all()
    remove_volumes(own_engine)


def look(engine: Engine, *flags: str) -> dict[str, Any]:
    argv = [sys.executable, "-m", "wherry.cli.main", "-H", engine.host, "system", "check", "--format", "json", *flags]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert not ran.stderr, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    assert ran.returncode == int(not all(each["Mended"] for each in found["Findings"]))
    return found


def blob(engine: Engine, name: str) -> Path:
    return engine.data_root / "content/blobs/sha256" / name.removeprefix("sha256:")


def driver(engine: Engine) -> Path:
    (folder,) = (engine.data_root / "snapshots").iterdir()
    return folder


def sql(engine: Engine, statement: str) -> None:
    with sqlite3.connect(engine.data_root / "meta.db") as database:
        database.execute(statement)
    database.close()


def chain(engine: Engine, index: int) -> str:
    """The chain ID of a layer of two:1."""
    from wherry.images.config import chain_ids

    return chain_ids([digest(LOWER), digest(UPPER)])[index]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def container(engine: Engine) -> str:
    return engine.docker("ps", "-aq", "--no-trunc")


@dataclass
class Case:
    """One kind of damage. mends: whether a repair leaves nothing to be found."""

    damage: Callable[[Engine], object]
    kind: str
    words: str
    mends: bool = True
    deep: bool = False


CASES = {
    "a layer's archive is rotten": Case(
        lambda engine: flip(blob(engine, digest(LOWER))), "damaged blob", "archive of a layer of two:1", mends=False
    ),
    "a layer's archive is missing": Case(
        lambda engine: blob(engine, digest(UPPER)).unlink(), "missing blob", "archive of a layer of two:1", mends=False
    ),
    "an archive is too short": Case(
        lambda engine: os.truncate(blob(engine, digest(UPPER)), 700), "damaged blob", "700 bytes instead", mends=False
    ),
    "a configuration is missing": Case(
        lambda engine: blob(engine, engine.docker("inspect", "-f", "{{.Id}}", "two:1")).unlink(),
        "missing blob", "configuration of two:1, which cannot be used", mends=False,
    ),
    "a layer is missing": Case(
        lambda engine: shutil.rmtree(driver(engine) / "layers" / chain(engine, 1)), "missing layer", "of two:1"
    ),
    "a blob has no record": Case(
        lambda engine: blob(engine, UNKNOWN).write_bytes(b"x" * 5000), "unaccounted blob", "has no record"
    ),
    "a record of a blob that nothing needs": Case(
        lambda engine: (
            blob(engine, digest(b"x")).write_bytes(b"x"),
            sql(engine, f"INSERT INTO content VALUES ('{digest(b'x')}', 1, 'text/plain')"),
        ),
        "unneeded blob", "no image and no layer needs this blob (text/plain)",
    ),
    "a layer that no image needs": Case(
        lambda engine: shutil.copytree(
            driver(engine) / "layers" / chain(engine, 0), driver(engine) / "layers" / UNKNOWN, symlinks=True
        ),
        "unaccounted layer", "no image needs this layer",
    ),
    "a layer that cannot be read": Case(
        lambda engine: (driver(engine) / "layers" / chain(engine, 1) / "usage").write_text("?"),
        "damaged layer", "cannot read this layer of two:1", mends=False,
    ),
    "a name of an image that is not there": Case(
        lambda engine: sql(engine, f"INSERT INTO tags VALUES ('docker.io/library/lost:1', 'sha256:{UNKNOWN}', 0)"),
        "dangling name", "which is not there",
    ),
    "an image without its layers": Case(
        lambda engine: sql(engine, "INSERT INTO images (id, chain_id, created, size, driver) VALUES "
                                   f"('sha256:{UNKNOWN}', '{UNKNOWN}', 0, 0, 'overlay2')"),
        "incomplete image", "its configuration has no record",
    ),
    "a writable layer without a container": Case(
        lambda engine: shutil.copytree(
            driver(engine) / "active" / container(engine), driver(engine) / "active" / UNKNOWN
        ),
        "unaccounted layer", "belongs to no container",
    ),
    "a container without its writable layer": Case(
        lambda engine: shutil.rmtree(driver(engine) / "active" / container(engine)),
        "missing layer", "the writable layer of the container aa is missing", mends=False,
    ),
    "a container's folder": Case(
        lambda engine: (engine.data_root / "containers" / UNKNOWN / "x").mkdir(parents=True),
        "unaccounted folder", "belongs to no container",
    ),
    "a run folder": Case(
        lambda engine: (engine.run_root / "containers" / UNKNOWN).mkdir(),
        "unaccounted folder", "belongs to no container",
    ),
    "a mark on a volume": Case(
        lambda engine: (engine.data_root / "volumes/vv/unsettled").touch(), "volume mark", "has a record, and the mark"
    ),
    "an unfinished volume": Case(
        lambda engine: ((engine.data_root / "volumes/xx/_data").mkdir(parents=True),
                        (engine.data_root / "volumes/xx/unsettled").touch()),
        "unfinished volume", "has no record, and the mark",
    ),
    "a volume whose record is lost": Case(
        lambda engine: (engine.data_root / "volumes/xx/_data").mkdir(parents=True), "lost volume", "somebody's data"
    ),
    "a volume without its folder": Case(
        lambda engine: shutil.rmtree(engine.data_root / "volumes/vv"), "missing volume", "its data is lost", mends=False
    ),
    "trash of a volume": Case(
        lambda engine: (engine.data_root / "volumes/.trash-1").mkdir(), "volume trash", "removed volume"
    ),
    "a stranger in the data root": Case(
        lambda engine: (engine.data_root / "notes").write_text("mine"), "unknown file", "not the engine's", mends=False
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_damage_is_found_and_mended(checked: Engine, name: str) -> None:
    case = CASES[name]
    case.damage(checked)
    (finding,) = look(checked)["Findings"]
    assert finding["Kind"] == case.kind
    assert case.words in finding["Problem"]
    assert finding["Remedy"]
    assert not finding["Mended"]
    (mended,) = look(checked, "--repair")["Findings"]
    assert mended["Subject"] == finding["Subject"]
    assert mended["Mended"] is mended["Mendable"] is finding["Mendable"]
    if case.mends:
        assert mended["Mended"]
        assert look(checked)["Findings"] == []
    else:
        put_right(checked, case)
    assert checked.docker("run", "--rm", "--network", "none", "-v", "vv:/v", "busybox", "echo", "works") == "works"


def put_right(engine: Engine, case: Case) -> None:
    """Do what the remedies say; then nothing is wrong any more."""
    if case.kind == "unknown file":
        (engine.data_root / "notes").unlink()
    if case.kind == "missing volume":
        engine.docker("rm", "aa")
        engine.docker("volume", "rm", "vv")
    if "writable layer" in case.words:
        engine.docker("rm", "aa")
    if "configuration" in case.words or case.kind == "damaged layer":
        assert "two" in engine.docker("images") or "<none>" in engine.docker("images")
        engine.docker("rmi", "two:1")
    engine.docker("load", input=ARCHIVE)
    assert look(engine, "--deep")["Findings"] == []
    assert LOWER in subprocess.run(
        ["docker", "save", "two:1"], capture_output=True, env=engine.environment, check=True
    ).stdout


def test_a_large_blob_is_read_with_deep_only(checked: Engine, tmp_path: Path) -> None:
    layer = tars.archive([file("big", os.urandom(2 << 20))])
    checked.docker("load", input=docker_archive([layer], ["big:1"]))
    flip(blob(checked, digest(layer)))
    assert look(checked)["Findings"] == []
    (finding,) = look(checked, "--deep")["Findings"]
    assert finding["Problem"].startswith("the bytes of the file are not those of its digest")
    assert look(checked, "--deep", "--repair")["Findings"][0]["Mended"]
    refused = checked.run("save", "-o", str(tmp_path / "big"), "big:1")
    assert "load the image again" in refused.stderr
    checked.docker("load", input=docker_archive([layer], ["big:1"]))
    assert look(checked, "--deep")["Findings"] == []


def test_a_missing_layer_is_made_anew_also_after_a_restart(checked: Engine) -> None:
    """The layer's archive must not be taken for unneeded by the engine that finds the layer gone."""
    shutil.rmtree(driver(checked) / "layers" / chain(checked, 0))
    shutil.rmtree(driver(checked) / "layers" / chain(checked, 1))
    assert checked.stop() == 0
    checked.start()
    assert {each["Kind"] for each in look(checked)["Findings"]} == {"missing layer"}
    assert [each["Mended"] for each in look(checked, "--repair")["Findings"]] == [True, True]
    assert look(checked, "--deep")["Findings"] == []
    checked.docker("create", "--name", "bb", "two:1", "x")
    told = checked.docker("cp", "bb:/etc/lower", "-")
    assert "lower" * 1000 in told


def test_one_damaged_image_does_not_hide_the_others(checked: Engine) -> None:
    image_id = checked.docker("inspect", "-f", "{{.Id}}", "two:1")
    assert checked.stop() == 0
    flip(blob(checked, image_id))
    checked.start()
    assert checked.docker("images", "--format", "{{.Repository}}").split() == ["busybox", "two"]
    assert "is damaged" in checked.run("inspect", "two:1").stderr
    assert checked.docker("rmi", "two:1").startswith("Untagged: two:1")
    checked.docker("load", input=ARCHIVE)
    assert look(checked)["Findings"] == []


def test_bytes_add_up(checked: Engine) -> None:
    """What check tells is what find(1) sums up, hard links once."""
    script = "echo hi; head -c 5000 /dev/zero >/v/f"
    checked.docker("run", "-d", "--name", "bb", "-v", "vv:/v", "busybox", "sh", "-c", script)
    checked.docker("wait", "bb")
    told = look(checked)["Bytes"]
    find = ["find", str(checked.data_root), "!", "-type", "d", "-printf", "%D:%i %s\n"]
    listed = subprocess.run(find, capture_output=True, text=True, check=True).stdout
    total = sum(int(each.split()[1]) for each in set(listed.splitlines()))
    assert abs(told["total"] - total) <= 1 << 20, "the database's log may have grown meanwhile"
    assert told["other"] == 0
    assert sum(told[part] for part in told if part not in ("total", "other")) == told["total"]
    assert told["volumes"] == 5000
    find = ["find", *map(str, (driver(checked) / "layers").glob("*/fs")), "!", "-type", "d", "-printf", "%i %s\n"]
    listed = subprocess.run(find, capture_output=True, text=True, check=True).stdout if len(find) > 6 else ""
    unpacked = sum(int(each.split()[1]) for each in set(listed.splitlines()) if each)
    usage = json.loads(checked.api("GET", "/system/df")[1])
    assert usage["LayersSize"] == unpacked + told["blobs"]
    assert usage["Volumes"][0]["UsageData"]["Size"] == told["volumes"]
    assert told["blobs"] == sum(path.stat().st_size for path in (checked.data_root / "content/blobs/sha256").iterdir())


def test_prune_leaves_nothing(checked: Engine) -> None:
    checked.docker("rm", "aa")
    assert checked.docker("system", "prune", "-af", "--volumes").splitlines()[-1].startswith("Total reclaimed space:")
    remove_volumes(checked)
    told = look(checked, "--deep")
    assert told["Findings"] == []
    assert {told["Bytes"][part] for part in ("blobs", "volumes", "containers", "work", "other")} == {0}
    assert os.listdir(driver(checked) / "layers") == []
    usage = json.loads(checked.api("GET", "/system/df")[1])
    assert (usage["LayersSize"], usage["Images"], usage["Containers"], usage["Volumes"]) == (0, [], [], [])


def test_work_that_is_under_way_is_no_finding(checked: Engine) -> None:
    """A load that waits for the rest of its archive holds spool files; they are counted, not complained of."""
    upload = subprocess.Popen(["docker", "load"], stdin=subprocess.PIPE, env=checked.environment)
    assert upload.stdin is not None
    big = docker_archive([tars.archive([file("x", bytes(3 << 20))])], ["later:1"])
    upload.stdin.write(big[: 2 << 20])
    upload.stdin.flush()
    told = look(checked, "--repair")
    assert told["Findings"] == []
    upload.stdin.write(big[2 << 20 :])
    upload.stdin.close()
    assert upload.wait(timeout=30) == 0
    assert look(checked)["Findings"] == []
