"""docker cp against containers that exchange names under it, a thousand rounds each: FS-01, FS-02, FS-03, FS-06, FS-08.

The numbers are those of docs/security.md. The attacker is in a container (`attackers`); what it may not reach is a
directory of the host whose path all of its links spell.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from tests import mounttable, tars
from tests.engine import Engine
from tests.security.attackers import PART, SECRET, exchange, exchanging, ways_to
from tests.security.test_copy import Connection
from tests.volumes import remove_volumes
from wherry.kernel import pathsafe
from wherry.rootfs import view
from wherry.rootfs.view import Kept
from wherry.runtime.mounts import Mount

pytestmark = [pytest.mark.root, pytest.mark.engine]

ROUNDS = 1000
TURNS = 1000
"""Exchanges that there are at least during the rounds."""


def test_fs01_nothing_of_the_host_comes_out(engine: Engine, tmp_path: Path, canary: Path) -> None:
    """FS-01: out of a directory that is a link to the host's canary half of the time."""
    seen, mine = Counter[str](), b"belongs to the container"
    paths = ("/a/x/r", "/a/x", "/a/x/.", "/a")
    with exchanging(engine, tmp_path, "/a/x", ways_to(canary), first=f"printf '{mine.decode()}' >/a/x/r") as attacker:
        before = attacker.turns
        with closing(Connection(engine)) as connection:
            for turn in range(ROUNDS):
                path = paths[turn % len(paths)]
                status, data = connection.ask("GET", f"/containers/attacker/archive?path={path}")
                assert status in (200, 400, 404), data
                assert SECRET.encode() not in data
                seen[f"{path} {'mine' if mine in data else 'none'}"] += 1
        assert attacker.turns - before > TURNS
    for path in paths:
        assert seen[f"{path} mine"] > 0, seen
        assert path == "/a" or seen[f"{path} none"] > 0, seen


@pytest.mark.parametrize(
    ("way", "rounds"),
    [("into it", ROUNDS), ("over it", 200), pytest.param("over it", ROUNDS, marks=pytest.mark.slow)],
)
def test_fs01_fs06_nothing_of_the_host_is_written(
    engine: Engine, tmp_path: Path, canary: Path, way: str, rounds: int
) -> None:
    """FS-01, FS-06: into such a directory, and by an archive that names it, with another mode and owner."""
    volume = tmp_path / "v"
    volume.mkdir()
    below = "" if way == "into it" else "part/"
    members = [
        *([tars.folder("part", mode=0o777, uid=1000, gid=1000)] if below else []),
        tars.folder(f"{below}n", mode=0o777), tars.file(f"{below}n/x", b"x"),
        tars.file(f"{below}r", b"by the client", mode=0o666), tars.node(f"{below}p", b"6"),
    ]  # fmt: skip
    path, data = ("/v/part" if way == "into it" else "/v"), tars.archive(members)
    statuses, restored = Counter[int](), 0
    mounts = ("-v", f"{volume}:/v")
    with exchanging(engine, tmp_path, "/v/part", ways_to(canary), words=mounts) as attacker:
        before = attacker.turns
        with closing(Connection(engine)) as connection:
            for turn in range(rounds):
                status, said = connection.ask("PUT", f"/containers/attacker/archive?path={path}", data)
                assert status in (200, 400, 404), said
                statuses[status] += 1
                if way == "over it":
                    restored += _restore(volume, canary, turn)
        assert attacker.turns - before > TURNS
    assert statuses[200] > 0
    assert statuses[404] > 0 or restored > 0, statuses


def _restore(volume: Path, canary: Path, turn: int) -> int:
    """Put a link back in the place of one that an archive's directory has replaced; return how many.

    A small directory is read by one call, which no exchange divides; what it has read may have moved on since.
    """
    with os.scandir(volume) as entries:
        folders = [each.name for each in entries if each.name.startswith((PART, "link")) and not each.is_symlink()]
    if len(folders) < 2:
        return 0
    aside = volume / f"aside{turn}"
    os.symlink(canary, aside)
    exchange(aside, volume / folders[0])
    return not aside.is_symlink()


HIDDEN = "in the volume"


def _volume(engine: Engine) -> Path:
    engine.docker("volume", "create", "vol")
    place = engine.data_root / "volumes" / "vol" / "_data"
    (place / "f").write_text(HIDDEN)
    return place


def test_fs02_fs03_a_volume_whose_way_is_exchanged(engine: Engine, tmp_path: Path, canary: Path) -> None:
    """FS-02, FS-03: vol:/a/b/c of a container that runs and exchanges /a/b; HEAD, PUT and GET of what is in it."""
    place, before_mounts, root = _volume(engine), mounttable.lines(), sorted(os.listdir("/"))
    seen = Counter[str]()
    data = tars.archive([tars.file("put", b"x")])
    mounts = ("-v", "vol:/a/b/c")
    with exchanging(engine, tmp_path, "/a/b", ways_to(canary), words=mounts) as attacker:
        before = attacker.turns
        with closing(Connection(engine)) as connection:
            for turn in range(ROUNDS):
                method = ("HEAD", "PUT", "GET")[turn % 3]
                path = "/a/b/c" if method == "PUT" else "/a/b/c/f"
                body = data if method == "PUT" else None
                status, told = connection.ask(method, f"/containers/attacker/archive?path={path}", body)
                assert status in (200, 400, 404), told
                assert SECRET.encode() not in told
                seen[f"{method} {status}"] += 1
        assert attacker.turns - before > TURNS
    for method in ("HEAD", "PUT", "GET"):
        assert seen[f"{method} 200"] > 0, seen
    assert sum(count for each, count in seen.items() if not each.endswith("200")) > 0, seen
    assert (place / "f").read_text() == HIDDEN
    assert mounttable.lines() == before_mounts
    assert sorted(os.listdir("/")) == root
    remove_volumes(engine)


def test_fs02_fs03_the_mounts_of_a_stopped_container(engine: Engine, tmp_path: Path, canary: Path) -> None:
    """FS-02, FS-03: vol:/a/b/made of one that does not run, whose /a another one has and exchanges /a/b in.

    The step that makes and mounts it, a thousand times: within the volume that is at /a, or not at all.
    """
    shared, vol, root, place = (tmp_path / name for name in ("shared", "vol", "root", "place"))
    for each in (shared, vol, root / "tmp", place):
        each.mkdir(parents=True)
    (vol / "f").write_text(HIDDEN)
    table, host = mounttable.lines(), sorted(os.listdir("/"))
    kept = [Kept("/a", str(shared)), Kept("/a/b/made", str(vol))]
    seen = Counter[str]()
    mounts = ("-v", f"{shared}:/a")
    with exchanging(engine, tmp_path, "/a/b", ways_to(canary), words=mounts) as attacker:
        before = attacker.turns
        for _ in range(ROUNDS):
            try:
                tree = view.of_stopped((Mount("bind", str(root), "", ("bind",)),), kept, place, read_only=False)
            except OSError as error:
                seen[os.strerror(error.errno or 0)] += 1
                continue
            try:
                seen[_where(tree.root)] += 1
            finally:
                tree.close()
        assert attacker.turns - before > TURNS
    assert seen["in the volume"] > 0, seen
    assert seen["elsewhere in the container"] > 0, seen
    assert mounttable.lines() == table
    assert sorted(os.listdir("/")) == host


def _where(root: int) -> str:
    """Say where in a view the file of the volume is found."""
    try:
        os.close(pathsafe.open_path(root, "/a/b/made/f"))
    except OSError:
        return "elsewhere in the container"
    return "in the volume"


def test_fs02_an_image_whose_var_run_is_a_link(engine: Engine, tmp_path: Path) -> None:
    """FS-02: what such images want works nevertheless, running or not."""
    image = "linked"
    place = _volume(engine)
    engine.docker("run", "--name", "made", "busybox", "sh", "-c", "mkdir -p /run /var && ln -s /run /var/run")
    engine.docker("commit", "made", image)
    engine.docker("create", "--name", "aa", "-v", "vol:/var/run/x", image, "sleep", "1000")
    (tmp_path / "in").write_text("in")
    for state in ("created", "running"):
        engine.docker("cp", str(tmp_path / "in"), f"aa:/var/run/x/{state}")
        assert (place / state).read_text() == "in"
        engine.docker("cp", "aa:/run/x/f", str(tmp_path / state))
        assert (tmp_path / state).read_text() == HIDDEN
        engine.docker("start", "aa")
    engine.remove_all()
    engine.docker("rmi", image)
    remove_volumes(engine)


def test_fs08_a_way_out_of_a_volume_that_comes_and_goes(engine: Engine, tmp_path: Path, canary: Path) -> None:
    """FS-08: /v/part/etc of a read-only container is a directory of a volume, or the root's, half of the time."""
    volume = tmp_path / "v"
    (volume / "part/etc").mkdir(parents=True)
    statuses = Counter[int]()
    data = tars.archive([tars.file("put", b"x")])
    mounts = ("--read-only", "-v", f"{volume}:/v")
    etc = sorted(os.listdir("/etc"))
    with exchanging(engine, tmp_path, "/v/part", (*ways_to(canary), ".."), words=mounts) as attacker:
        before = attacker.turns
        with closing(Connection(engine)) as connection:
            for _ in range(ROUNDS):
                status, said = connection.ask("PUT", "/containers/attacker/archive?path=/v/part/etc", data)
                assert status in (200, 400, 404), said
                statuses[status] += 1
        assert attacker.turns - before > TURNS
        assert "/put" not in engine.docker("diff", "attacker")
    assert sorted(os.listdir("/etc")) == etc
    assert statuses[200] > 0
    assert statuses[400] > 0, statuses


@pytest.mark.slow
def test_fs01_by_the_command(engine: Engine, tmp_path: Path, canary: Path) -> None:
    """FS-01 as its recipe says it: a thousand times docker cp in, and out."""
    (tmp_path / "in").write_text("in")
    done, mine = Counter[str](), "belongs to the container"
    with exchanging(engine, tmp_path, "/x", ways_to(canary), first=f"printf '{mine}' >/x/r") as attacker:
        before = attacker.turns
        for _ in range(ROUNDS):
            put = engine.run("cp", str(tmp_path / "in"), "attacker:/x/w")
            got = engine.run("cp", "attacker:/x/r", str(tmp_path / "out"))
            done[f"in {put.returncode}"] += 1
            done[f"out {got.returncode}"] += 1
            if got.returncode == 0:
                assert (tmp_path / "out").read_text() == mine
        assert attacker.turns - before > TURNS
    assert all(done[each] > 0 for each in ("in 0", "in 1", "out 0", "out 1")), done
