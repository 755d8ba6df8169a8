"""Containers on a kernel before 6.8, with overlay2: run by test_old_kernel.py in an emulated machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.engine import Engine
from tests.volumes import content_image
from wherry.kernel import mountapi

pytestmark = [pytest.mark.root, pytest.mark.engine, pytest.mark.slow]

LAYERS = 30
BASE = 300000


@pytest.fixture(scope="module", params=["host", "remapped"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    disk = tmp_path_factory.mktemp("disk") / "disk"
    disk.touch()
    os.truncate(disk, 1 << 30)
    subprocess.run(["mkfs.ext4", "-q", str(disk)], check=True)
    remap = ("--userns-remap", f"uids=0-{BASE}-65536;gids=0-{BASE}-65536") if request.param == "remapped" else ()
    engine = Engine(*remap)
    engine.data_root.mkdir(parents=True)
    subprocess.run(["mount", "-t", "ext4", "-o", "loop", str(disk), str(engine.data_root)], check=True)
    engine.start()
    engine.import_busybox()
    yield engine
    engine.stop()
    mountapi.umount2(str(engine.data_root))
    engine.flags = ()  # what lies below cannot show other owners
    engine.destroy()


def test_an_image_of_many_layers(engine: Engine) -> None:
    status = engine.docker("info", "-f", "{{range .DriverStatus}}{{.}}{{end}}")
    assert "[Layers one by one false]" in status
    assert engine.docker("info", "-f", "{{.Driver}}") == "overlay2"
    engine.docker("run", "--name", "top", "busybox", "touch", "/f0")
    for number in range(1, LAYERS):
        engine.docker("commit", "top", "many")
        engine.docker("rm", "top")
        engine.docker("run", "--name", "top", "--network", "none", "many", "touch", f"/f{number}")
    assert engine.docker("run", "--rm", "--network", "none", "many", "sh", "-c", "ls / | grep -c ^f") == str(LAYERS - 1)
    engine.docker("cp", f"top:/f{LAYERS - 1}", str(engine.root / "copied"))
    engine.docker("rm", "top")
    line = "ls /i | grep -c ^f; stat -c %u:%g / /bin /f1 /i /i/bin"
    mount = ("--mount", "type=image,src=many,dst=/i")
    told = engine.docker("run", "--rm", *mount, "many", "sh", "-c", line)
    assert told.split() == [str(LAYERS - 1), *["0:0"] * 5]


def test_volumes_are_filled_and_written(engine: Engine) -> None:
    image = content_image(engine, "content")
    line = "stat -c %u:%g /data /data/sub; touch /data/new; cat /proc/self/uid_map"
    told = engine.docker("run", "--rm", "-v", "vv:/data", image, "sh", "-c", line).split()
    assert told[:2] == ["5:6", "7:8"]
    assert told[3] == (str(BASE) if engine.flags else "0")
    place = engine.data_root / "volumes" / "vv" / "_data"
    assert [os.lstat(place / name).st_uid for name in ("sub", "new")] == [7, 0]
    engine.docker("run", "-d", "--name", "aa", "-v", "vv:/data", "busybox", "sleep", "1000")
    assert engine.docker("exec", "aa", "id", "-u") == "0"
    assert "vv" in engine.docker("inspect", "-f", "{{json .Mounts}}", "aa")
    engine.docker("cp", "aa:/data/f", str(engine.root / "copied"))
    engine.docker("rm", "-f", "aa")
    engine.docker("volume", "rm", "vv")
