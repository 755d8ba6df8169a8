"""wherry mount add of volumes that are file systems of their own: one for all who have it, gone with the last."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_mount_add import done, wherry
from tests.engine import Engine
from tests.volumes import remove_volumes
from tests.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.engine]

MIB = 1 << 20


@pytest.fixture
def engine(engine: Engine) -> Iterator[Engine]:
    yield engine
    engine.remove_all()
    remove_volumes(engine)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.touch()
    os.truncate(path, 8 * MIB)
    subprocess.run(["mkfs.ext4", "-q", str(path)], check=True, capture_output=True)
    return path


def sleeper(engine: Engine, name: str, *words: str) -> None:
    engine.docker("run", "-d", "--name", name, *words, "busybox", "sleep", "1000")


def read(engine: Engine, name: str, path: str) -> str:
    return engine.docker("exec", name, "cat", path)


def looped(disk: Path) -> bool:
    """Whether a loop device has the file."""
    for each in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            if each.read_text().strip() == str(disk):
                return True
        except OSError:  # it came apart
            continue
    return False


def test_a_tmpfs_is_one_for_all_and_kept_over_a_restart(engine: Engine) -> None:
    engine.docker("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=5m", "vol")
    sleeper(engine, "aa")
    done(engine, "mount", "add", "aa", "vol:/v")
    done(engine, "mount", "add", "aa", "vol:/ro/place:ro")
    engine.docker("exec", "aa", "sh", "-c", "echo one >/v/f; mkdir /v/part; echo two >/v/part/g")
    assert "5.0M" in engine.docker("exec", "aa", "df", "-h", "/v")
    assert read(engine, "aa", "/ro/place/f") == "one"
    assert "Read-only" in engine.run("exec", "aa", "touch", "/ro/place/no").stderr
    assert "/vol/" not in Path("/proc/self/mountinfo").read_text()
    engine.crash()
    engine.start()
    sleeper(engine, "bb", "-v", "vol:/w")
    assert read(engine, "bb", "/w/f") == "one", "whoever starts later gets the same one"
    sleeper(engine, "cc")
    done(engine, "mount", "add", "cc", "type=volume,src=vol,dst=/x,volume-subpath=part")
    assert read(engine, "cc", "/x/g") == "two"
    engine.docker("rm", "-f", "bb")
    done(engine, "mount", "rm", "aa", "/v")
    assert read(engine, "aa", "/ro/place/f") == "one"
    done(engine, "mount", "rm", "aa", "/ro/place")
    sleeper(engine, "dd", "-v", "vol:/w")
    assert read(engine, "dd", "/w/part/g") == "two", "of cc alone"
    engine.docker("rm", "-f", "cc", "dd")
    sleeper(engine, "ee", "-v", "vol:/w")
    assert engine.docker("exec", "ee", "ls", "/w") == "", "nobody had it any more"
    done(engine, "mount", "add", "aa", "vol:/v")
    engine.docker("exec", "ee", "touch", "/w/seen")
    engine.docker("restart", "-t", "0", "aa")
    assert engine.docker("exec", "aa", "ls", "/v") == "seen"


@pytest.mark.parametrize("end", ["taken away", "removed", "engine killed"])
def test_a_disk_is_held_as_long_as_somebody_has_it(engine: Engine, disk: Path, end: str) -> None:
    engine.docker("volume", "create", "-o", "type=ext4", "-o", f"device={disk}", "vol")
    sleeper(engine, "aa")
    done(engine, "mount", "add", "aa", "vol:/v")
    engine.docker("exec", "aa", "sh", "-c", "echo kept >/v/f")
    assert " ext4 " in engine.docker("exec", "aa", "grep", " /v ", "/proc/mounts")
    assert looped(disk)
    if end == "taken away":
        done(engine, "mount", "rm", "aa", "/v")
    elif end == "removed":
        engine.docker("rm", "-f", "aa")
    else:
        engine.crash()
        engine.start()
        assert (read(engine, "aa", "/v/f"), looped(disk)) == ("kept", True)
        engine.docker("kill", "aa")
    until(lambda: not looped(disk))
    assert engine.docker("run", "--rm", "-v", "vol:/v", "busybox", "cat", "/v/f") == "kept"


def test_what_cannot_be_added_leaves_nothing(engine: Engine, disk: Path, tmp_path: Path) -> None:
    sleeper(engine, "aa")
    engine.docker("volume", "create", "-o", "type=ext4", "-o", f"device={disk}", "vol")
    refused = wherry(engine, "mount", "add", "aa", "vol:/bin/busybox/x")
    assert refused.returncode, refused.stdout
    until(lambda: not looped(disk))
    (tmp_path / "none").write_bytes(bytes(MIB))
    engine.docker("volume", "create", "-o", "type=ext4", "-o", f"device={tmp_path}/none", "bad")
    refused = wherry(engine, "mount", "add", "aa", "bad:/v")
    assert "failed to mount local volume: mount" in refused.stderr
    assert "invalid argument" in refused.stderr
    assert not looped(tmp_path / "none")
    assert json.loads(engine.docker("inspect", "-f", "{{json .Mounts}}", "aa")) == []
    assert engine.docker("volume", "rm", "vol", "bad") == "vol\nbad"
