"""Volumes of a size, and volumes that are a file with a file system in it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine import Engine
from tests.volumes import remove_volumes
from wherry.kernel import mountapi
from wherry.volumes import quotas

pytestmark = [pytest.mark.root, pytest.mark.engine]

MIB = 1 << 20


def formatted(path: Path, *options: str, size: int = 64 * MIB) -> Path:
    path.touch()
    os.truncate(path, size)
    subprocess.run(["mkfs.ext4", "-q", *options, str(path)], check=True, capture_output=True)
    return path


@pytest.mark.parametrize(
    ("text", "size"),
    [("10k", 10 << 10), ("1.5gb", 3 << 29), ("2GiB", 2 << 30), ("512 m", 512 << 20), ("4096", 4096), ("100b", 100)],
)
def test_sizes_are_dockerds(text: str, size: int):
    assert quotas.parse_size(text) == size


@pytest.fixture
def quota_disk(own_engine: Engine, tmp_path: Path) -> Iterator[bool]:
    """Put the engine's folders on an ext4 with project quotas; whether this kernel can enforce them."""
    disk = formatted(tmp_path / "disk", "-O", "quota,project", size=256 * MIB)
    own_engine.data_root.mkdir(parents=True)
    flags = ["-o", "loop,prjquota"]
    ran = subprocess.run(["mount", *flags, str(disk), str(own_engine.data_root)], capture_output=True, text=True)
    if ran.returncode != 0:  # a kernel without QFMT_V2 mounts no ext4 with quotas
        yield False
        return
    yield True
    own_engine.stop()
    mountapi.umount2(str(own_engine.data_root))


def test_a_volume_of_a_size_takes_no_more(own_engine: Engine, quota_disk: bool):
    own_engine.start()
    own_engine.import_busybox()
    ran = own_engine.run("volume", "create", "-o", "size=8m", "small")
    if not quota_disk:
        assert "create small: quota size requested but no quota support: the file system of" in ran.stderr
        assert "not mounted with prjquota" in ran.stderr
        assert os.listdir(own_engine.data_root / "volumes") == []
        assert own_engine.run("run", "-v", "x:/x", "busybox", "true").returncode == 0
        remove_volumes(own_engine)
        return
    assert ran.returncode == 0, ran.stderr
    own_engine.docker("volume", "create", "-o", "size=16m", "large")
    for name, size in (("small", 8), ("large", 16)):
        fill = "dd if=/dev/zero of=/v/f bs=1M count=20 2>&1; stat -c %s /v/f"
        told = own_engine.docker("run", "--rm", "-v", f"{name}:/v", "busybox", "sh", "-c", fill)
        assert "No space left" in told or "quota exceeded" in told
        assert size - 1 <= int(told.split()[-1]) / MIB <= size
    assert json.loads(own_engine.docker("volume", "inspect", "small"))[0]["Options"] == {"size": "8m"}
    remove_volumes(own_engine)


def test_a_file_with_a_file_system_in_it(engine: Engine, tmp_path: Path):
    disk = formatted(tmp_path / "disk")
    loops = set(os.listdir("/sys/block"))
    engine.docker("volume", "create", "-o", "type=ext4", "-o", f"device={disk}", "vv")
    engine.docker("run", "-d", "--name", "aa", "-v", "vv:/v", "busybox", "sh", "-c", "echo hi >/v/f; sleep 1000")
    assert "ext4" in engine.docker("exec", "aa", "grep", " /v ", "/proc/mounts")
    told = engine.docker("run", "--rm", "-v", "vv:/w", "busybox", "sh", "-c", "cat /w/f; ls /w")
    assert told.split() == ["hi", "f", "lost+found"]
    assert str(engine.data_root / "volumes" / "vv") not in Path("/proc/self/mountinfo").read_text()
    engine.docker("rm", "-f", "aa")
    engine.docker("volume", "create", "-o", "type=ext4", "-o", f"device={disk}", "-o", "o=ro", "ro")
    ran = engine.run("run", "--rm", "-v", "ro:/v", "busybox", "sh", "-c", "cat /v/f; touch /v/g")
    assert ran.stdout == "hi\n"
    assert "Read-only file system" in ran.stderr
    used = [each for each in set(os.listdir("/sys/block")) - loops if each.startswith("loop")]
    assert not [each for each in used if str(disk) in _backing(each)]
    remove_volumes(engine)


def _backing(name: str) -> str:
    try:
        return Path(f"/sys/block/{name}/loop/backing_file").read_text()
    except FileNotFoundError:
        return ""
