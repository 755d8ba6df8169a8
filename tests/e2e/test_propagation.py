"""What is mounted later on one side, and whether the other side sees it: propagation and recursive read-only."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_mount_add import done, inside, refused, sleeper
from tests.engine import Engine
from wherry.kernel import const, mountapi

pytestmark = [pytest.mark.root, pytest.mark.engine]


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A file system of the host's, in a peer group of its own, with the folder `sub`."""
    place = tmp_path / "shared"
    place.mkdir()
    mountapi.mount("none", str(place), "tmpfs", 0)
    mountapi.mount("", str(place), "", const.MS_SHARED)
    (place / "sub").mkdir()
    yield place
    subprocess.run(["umount", "-R", "-l", str(place)], check=True)


def on_host(place: Path) -> list[str]:
    return [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(place) in line]


@pytest.mark.parametrize(("mode", "arrives", "returns"), [("rshared", True, True), ("rslave", True, False),
                                                          ("rprivate", False, False), ("", False, False)])  # fmt: skip
def test_who_sees_what_is_mounted_later(engine: Engine, shared: Path, mode: str, arrives: bool, returns: bool):
    spec = f"{shared}:/x" + (f":{mode}" if mode else "")
    sleeper(engine, "--privileged", "-v", spec)
    (shared / "host").mkdir()
    mountapi.mount("none", str(shared / "host"), "tmpfs", 0)
    (shared / "host" / "mark").touch()
    assert inside(engine, "ls", "/x/host") == ("mark" if arrives else "")
    inside(engine, "mkdir", "/x/there")
    inside(engine, "mount", "-t", "tmpfs", "none", "/x/there")
    assert (str(shared / "there") in on_host(shared)) == returns


@pytest.mark.parametrize(
    ("mode", "what"),
    [("rshared", "a shared"), ("shared", "a shared"), ("rslave", "a shared or slave"), ("slave", "a shared or slave")],
)
def test_a_mount_that_does_not_share_is_refused(engine: Engine, shared: Path, mode: str, what: str):
    mountapi.mount("", str(shared), "", const.MS_PRIVATE)
    text = f"path {shared}/sub is mounted on {shared} but it is not {what} mount"
    assert text in engine.run("run", "--rm", "-v", f"{shared}/sub:/x:{mode}", "busybox", "true").stderr
    sleeper(engine)
    assert text in refused(engine, "mount", "add", "aa", f"{shared}/sub:/x:{mode}")
    engine.docker("run", "--rm", "-v", f"{shared}/sub:/x:rprivate", "busybox", "true")


def test_read_only_reaches_what_is_mounted_in_it(engine: Engine, shared: Path):
    mountapi.mount("none", str(shared / "sub"), "tmpfs", 0)
    (shared / "sub" / "mark").touch()
    write = "touch /x/a; touch /x/sub/a; ls /x/sub"
    words = ("sh", "-c", f"({write}) 2>&1")
    told = engine.docker("run", "--rm", "-v", f"{shared}:/x:ro", "busybox", *words)
    assert told.count("Read-only file system") == 2
    flat = f"type=bind,src={shared},dst=/x,readonly,bind-recursive=writable"
    told = engine.docker("run", "--rm", "--mount", flat, "busybox", *words)
    assert told.count("Read-only file system") == 1
    assert "a" in told.splitlines()
    alone = f"type=bind,src={shared},dst=/x,readonly,bind-recursive=disabled"
    assert "mark" not in engine.docker("run", "--rm", "--mount", alone, "busybox", "ls", "/x/sub")
    sleeper(engine)
    done(engine, "mount", "add", "aa", f"{shared}:/x:ro")
    assert inside(engine, *words).count("Read-only file system") == 2
