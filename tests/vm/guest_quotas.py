"""What `docker volume create -o size=` does on a kernel with quotas: run by test_quotas.py in an emulated machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.engine import Engine
from tests.volumes import content_image
from wherry.kernel import mountapi, quota

pytestmark = [pytest.mark.root, pytest.mark.engine, pytest.mark.slow]

MIB = 1 << 20
FORMATS = {"ext4": ("mkfs.ext4", "-q", "-O", "quota,project"), "xfs": ("mkfs.xfs", "-q")}
FULL = ("No space left", "quota exceeded")


def mounted(disk: Path, kind: str, place: Path, *options: str) -> None:
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", kind, "-o", ",".join(["loop", *options]), str(disk), str(place)], check=True)


@pytest.fixture(scope="module", params=FORMATS)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine whose data is on a file system with project quotas."""
    disk = tmp_path_factory.mktemp(request.param) / "disk"
    disk.touch()
    os.truncate(disk, 512 * MIB)
    subprocess.run([*FORMATS[request.param], str(disk)], check=True)
    engine = Engine()
    mounted(disk, request.param, engine.data_root, "prjquota")
    engine.start()
    engine.import_busybox()
    yield engine
    engine.stop()
    mountapi.umount2(str(engine.data_root))
    engine.destroy()


@pytest.fixture(autouse=True)
def volumes_go(engine: Engine) -> Iterator[None]:
    yield
    engine.remove_all()
    if names := engine.docker("volume", "ls", "-q").split():
        engine.docker("volume", "rm", *names)


def project(engine: Engine, volume: str) -> int:
    fd = os.open(engine.data_root / "volumes" / volume / "_data", os.O_RDONLY | os.O_DIRECTORY)
    try:
        return quota.project(fd)
    finally:
        os.close(fd)


def inside(engine: Engine, volume: str, script: str) -> str:
    run = ("run", "--rm", "--network", "none", "-v", f"{volume}:/v", "busybox")
    return engine.docker(*run, "sh", "-c", f"({script}) 2>&1")


def fill(engine: Engine, volume: str, file: str = "f") -> int:
    """Write until it is refused; return the MiB that could be written."""
    told = inside(engine, volume, f"dd if=/dev/zero of=/v/{file} bs=64k count=640 conv=fsync; stat -c %s /v/{file}")
    assert any(each in told for each in FULL), told
    return round(int(told.split()[-1]) / MIB)


def test_no_more_is_written_than_its_size(engine: Engine) -> None:
    engine.docker("volume", "create", "-o", "size=10m", "small")
    engine.docker("volume", "create", "-o", "size=20m", "large")
    assert fill(engine, "small") == 10
    assert fill(engine, "large") == 20
    blocks, free, size = map(int, inside(engine, "small", "stat -f -c '%b %f %s' /v").split())
    assert (blocks * size, free) == (10 * MIB, 0), "statfs(2), which df shows, is of the volume"
    assert "f" in inside(engine, "small", "rm /v/f; mkdir /v/deep; echo f >/v/deep/g; cat /v/deep/g")
    assert fill(engine, "small", "deep/more") == 10
    shared = ("--mount", "type=volume,src=new,dst=/v,volume-opt=size=5m")
    engine.docker("run", "-d", "--network", "none", "--name", "aa", *shared, "busybox", "sleep", "1000")
    engine.docker("exec", "aa", "dd", "if=/dev/zero", "of=/v/first", "bs=1M", "count=3")
    engine.docker("cp", __file__, "aa:/v/copied")
    assert fill(engine, "new", "second") == 2


def test_each_has_a_number_of_its_own_that_is_used_again(engine: Engine) -> None:
    names = [f"v{each}" for each in range(12)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda name: engine.docker("volume", "create", "-o", "size=4m", name), names))
    numbers = {name: project(engine, name) for name in names}
    assert len(set(numbers.values())) == len(names)
    assert fill(engine, "v5") == 4
    engine.docker("volume", "rm", "v5")
    engine.docker("volume", "create", "-o", "size=6m", "again")
    assert project(engine, "again") == numbers["v5"]
    assert fill(engine, "again") == 6, "what was removed does not count"


def test_it_outlives_the_engine_and_goes_along_with_a_new_name(engine: Engine) -> None:
    engine.docker("volume", "create", "-o", "size=4m", "kept")
    number = project(engine, "kept")
    engine.crash()
    engine.start()
    rename = [sys.executable, "-I", "-m", "wherry.cli.main", "-H", engine.host, "volume", "rename", "kept", "named"]
    subprocess.run(rename, check=True)
    assert project(engine, "named") == number
    engine.docker("volume", "create", "-o", "size=4m", "other")
    assert project(engine, "other") != number
    assert fill(engine, "named") == 4


def test_the_images_content_counts(engine: Engine) -> None:
    content_image(engine, "full")
    engine.docker("volume", "create", "-o", "size=4m", "filled")
    flags = ("run", "--rm", "--network", "none", "-v", "filled:/data", "full")
    assert "sub" in engine.docker(*flags, "ls", "/data")
    more = engine.docker(*flags, "sh", "-c", "dd if=/dev/zero of=/data/sub/x bs=64k count=640 2>&1; true")
    assert any(each in more for each in FULL)
    engine.docker("volume", "create", "-o", "size=100k", "tight")
    ran = engine.run("run", "--rm", "--network", "none", "-v", "tight:/bin", "busybox", "true")
    assert ran.returncode == 125
    assert any(each.lower() in ran.stderr.lower() for each in FULL), ran.stderr
    assert inside(engine, "tight", "ls /v") == ""


@contextmanager
def mounted_anew(engine: Engine, *options: str) -> Iterator[None]:
    with_quotas = next(line.split() for line in Path("/proc/mounts").read_text().splitlines()
                       if line.split()[1] == str(engine.data_root))  # fmt: skip
    device, place, kind = with_quotas[:3]
    disk = Path(Path(f"/sys/block/{Path(device).name}/loop/backing_file").read_text().strip())
    engine.stop()
    mountapi.umount2(place)
    mounted(disk, kind, engine.data_root, *options)
    engine.start()
    yield
    engine.stop()
    mountapi.umount2(place)
    mounted(disk, kind, engine.data_root, "prjquota")
    engine.start()


def test_without_the_option_it_is_refused(engine: Engine) -> None:
    """ext4 counts and takes limits then, and refuses nothing."""
    kind = subprocess.run(["stat", "-f", "-c", "%T", str(engine.data_root)], capture_output=True, text=True).stdout
    for options in [(), *([("pqnoenforce",)] if "xfs" in kind else [])]:
        with mounted_anew(engine, *options):
            said = engine.run("volume", "create", "-o", "size=4m", "vol")
            assert "quota size requested but no quota support: the file system of" in said.stderr, said
            assert "not mounted with prjquota" in said.stderr
            assert engine.docker("volume", "ls", "-q") == ""
            assert os.listdir(engine.data_root / "volumes") == []
