"""Sources of bind mounts that are no plain directories, and that change while a container starts: FS-11.

The number is that of docs/security.md. A source is a path of the host, and links in it are followed as the host does;
what must hold is that all that is found out about it is of what is then mounted.
"""

from __future__ import annotations

import json
import os
import socket
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests import mounttable
from tests.engine import Engine
from tests.security.attackers import exchanging
from tests.volumes import Requests
from wherry.kernel.idmap import forked
from wherry.runtime.idmaps import map_owners
from wherry.runtime.sources import copy_tree

pytestmark = [pytest.mark.root, pytest.mark.engine]

ROUNDS = 1000
TURNS = 1000


def start(request: Requests, host: dict[str, object]) -> tuple[int, str, str]:
    """Make and start a container; return the status, the text and the id."""
    body = {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "none", **host}}
    status, text = request("POST", "/containers/create", body)
    if status != 201:
        return status, text, ""
    made = str(json.loads(text)["Id"])
    return (*request("POST", f"/containers/{made}/start"), made)


def pid_of(request: Requests, made: str) -> int:
    return int(json.loads(request("GET", f"/containers/{made}/json")[1])["State"]["Pid"])


@pytest.fixture
def request_(engine: Engine) -> Iterator[Requests]:
    with closing(Requests(engine)) as made:
        yield made


@pytest.mark.parametrize("kind", ["fifo", "socket", "device", "file", "link"])
def test_fs11_what_is_no_directory_is_mounted_as_it_is(request_: Requests, tmp_path: Path, kind: str) -> None:
    """FS-11: nobody opens it, so a FIFO holds up nobody; the inode inside is that of the host."""
    source = tmp_path / "source"
    if kind == "fifo":
        os.mkfifo(source)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(source))
    elif kind == "device":
        os.mknod(source, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    else:
        (tmp_path / "file").touch()
        (source.symlink_to if kind == "link" else source.hardlink_to)(tmp_path / "file")
    status, text, made = start(request_, {"Binds": [f"{source}:/x"]})
    assert status == 204, text
    assert os.path.samestat(source.stat(), os.stat(f"/proc/{pid_of(request_, made)}/root/x"))


@pytest.mark.parametrize(
    "name", ["/proc/self/fd/{}", "/proc/thread-self/fd/{}", "/dev/fd/{}", "link{}", "/proc/self/cwd"]
)
@pytest.mark.parametrize("running", [False, True])
def test_fs11_what_means_something_else_to_each_process(
    engine: Engine, request_: Requests, tmp_path: Path, name: str, running: bool
) -> None:
    """FS-11: descriptors of the engine and of its children are nobody's files, by whatever name."""
    host = sorted(os.listdir(tmp_path))
    if running:
        engine.docker("run", "-d", "--name", "aa", "--network", "none", "busybox", "sleep", "1000")
    for number in (0, 3, 7):
        source = name.format(number)
        if source.startswith("link"):
            (tmp_path / source).symlink_to(f"/proc/self/fd/{number}")
            source = str(tmp_path / source)
        if running:
            body = {"Binds": [f"{source}:/x{number}"]}
            status, text = request_("POST", "/wherry/v1/containers/aa/mounts", body)
        else:
            status, text, made = start(request_, {"Binds": [f"{source}:/x"]})
            request_("DELETE", f"/containers/{made}?force=1")
        assert status in (400, 500), (source, text)
        assert source in text
    assert host == [each for each in sorted(os.listdir(tmp_path)) if not each.startswith("link")]


def test_fs11_a_dangling_link_and_what_is_not_there(request_: Requests, tmp_path: Path) -> None:
    """FS-11: a link that leads nowhere is an error, and its target is not made; ".." is of the path as written."""
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    status, text, _ = start(request_, {"Binds": [f"{tmp_path}/link:/x"]})
    assert status in (400, 500), text
    assert f"{tmp_path}/link" in text
    assert not (tmp_path / "nothing").exists()
    assert start(request_, {"Binds": ["../x:/x"]})[0] == 400
    assert start(request_, {"Mounts": [{"Type": "bind", "Source": "../x", "Target": "/x"}]})[0] == 400
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/mine").touch()
    status, text, made = start(request_, {"Binds": [f"{tmp_path}/nothing/../a/b/..:/x"]})
    assert status == 204, text
    assert sorted(os.listdir(f"/proc/{pid_of(request_, made)}/root/x")) == ["b", "mine"]
    assert not (tmp_path / "nothing").exists()


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A volume with a directory to be exchanged, and one of another owner that a link leads to."""
    for name, owner in (("v/part", 1000), ("other", 2000)):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / str(owner)).touch()
        os.chown(tmp_path / name, owner, owner)
    return tmp_path / "v"


@pytest.mark.parametrize("mapped", [20, pytest.param(1, marks=pytest.mark.slow)])
def test_fs11_what_was_looked_at_is_what_is_mounted(engine: Engine, tmp_path: Path, two: Path, mapped: int) -> None:
    """FS-11: whose a source is, is asked of the mount itself: so what is seen as root's is always what is mounted.

    mapped: the round of which owners are mapped, which takes two processes.
    """
    seen = Counter[str]()
    with exchanging(engine, tmp_path, "/v/part", (str(tmp_path / "other"),), words=("-v", f"{two}:/v")) as attacker:
        turns = attacker.turns
        for turn in range(ROUNDS):
            try:
                tree = copy_tree(str(two / "part"), 0)
            except FileNotFoundError:
                seen["not there"] += 1
                continue
            try:
                if turn % mapped == 0:
                    map_owners(tree, "part", "owner=0:0", forked)
                    state = os.fstat(tree)
                    assert (state.st_uid, state.st_gid) == (0, 0)
                seen[" ".join(os.listdir(f"/proc/self/fd/{tree}"))] += 1
            finally:
                os.close(tree)
        assert attacker.turns - turns > TURNS
    assert set(seen) - {"not there"} == {"1000", "2000"}, seen


@pytest.mark.parametrize("rounds", [20, pytest.param(ROUNDS, marks=pytest.mark.slow)])
@pytest.mark.parametrize("mode", ["idmap", "ro"])
def test_fs11_a_source_that_is_exchanged_while_containers_start(
    engine: Engine, request_: Requests, tmp_path: Path, two: Path, mode: str, rounds: int
) -> None:
    """FS-11, by the API: one of the two is at /x, and seen as root's with idmap; nothing is mounted on the host."""
    table, seen = mounttable.lines(), Counter[str]()
    with exchanging(engine, tmp_path, "/v/part", (str(tmp_path / "other"),), words=("-v", f"{two}:/v")) as attacker:
        turns = attacker.turns
        while seen.total() < rounds or (len(seen) < 2 and seen.total() < 20 * rounds):
            status, text, made = start(request_, {"Binds": [f"{two}/part:/x:{mode}"]})
            if status == 204:
                place = f"/proc/{pid_of(request_, made)}/root/x"
                seen[" ".join(os.listdir(place))] += 1
                assert mode != "idmap" or os.stat(place).st_uid == 0
            else:
                assert status in (400, 500), text
                seen["refused"] += 1
            assert request_("DELETE", f"/containers/{made}?force=1")[0] == 204
        assert attacker.turns - turns > TURNS
    assert set(seen) <= {"1000", "2000", "refused"}, seen
    assert len(seen) > 1, seen
    assert mounttable.lines() == table
