"""Mounts into running containers that do not want them to arrive where they should."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.engine import Engine
from tests.security.test_copy_fuse import SECONDS, _threads, silent
from tests.volumes import Requests, remove_volumes
from wherry.kernel import const
from wherry.kernel.libc import bind, c_char_p, c_int, c_uint, check

pytestmark = [pytest.mark.root, pytest.mark.engine]

ROUNDS = 1000
_EXCHANGE = 2  # RENAME_EXCHANGE, linux/fs.h
_renameat2 = bind("renameat2", c_int, c_char_p, c_int, c_char_p, c_uint)


def host_mounts(folder: Path) -> list[str]:
    """What is mounted on the host, of a test's folder or in it. Other engines come and go beside it."""
    return [each for each in Path("/proc/self/mountinfo").read_text().splitlines() if str(folder) in each]


def container_mounts(pid: str) -> list[str]:
    """What is mounted in a container, but for what it sees of the host's in passing."""
    lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    return [each for each in lines if not each.split()[4].startswith("/host/")]


@contextlib.contextmanager
def swapping(folder: Path, targets: tuple[str, ...]) -> Iterator[None]:
    """Replace the directory `part` by links that lead out, and back, as fast as it goes."""
    stop = threading.Event()
    for number, target in enumerate(targets):
        os.symlink(target, folder / f"link{number}")

    def exchange(link: Path) -> None:
        first, second = os.fsencode(folder / "part"), os.fsencode(link)
        check(_renameat2(const.AT_FDCWD, first, const.AT_FDCWD, second, _EXCHANGE), "renameat2", str(link))

    def swap() -> None:
        while not stop.is_set():
            for number in range(len(targets)):
                exchange(folder / f"link{number}")
                exchange(folder / f"link{number}")

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_a_place_that_is_swapped_is_never_outside(engine: Engine, tmp_path: Path):
    """CVE-2021-30465, CVE-2024-45310: each round mounts within the container or is refused."""
    shared, source, outside = tmp_path / "shared", tmp_path / "source", tmp_path / "outside"
    for each in (shared / "part", source, outside):
        each.mkdir(parents=True)
    (source / "mark").touch()
    engine.docker("run", "-d", "--name", "aa", "-v", f"{shared}:/v", "busybox", "sleep", "1000")
    pid = engine.docker("inspect", "-f", "{{.State.Pid}}", "aa")
    etc, statuses = sorted(os.listdir("/etc")), Counter[int]()
    body = {"Binds": [f"{source}:/v/part/x"]}
    path = "/wherry/v1/containers/aa/mounts"
    links = ("/etc", "../outside", str(outside), "/proc/self/root", "/proc/1/root/etc", "../../../../../../etc")
    with contextlib.closing(Requests(engine)) as request, swapping(shared, links):
        for _ in range(ROUNDS):
            status, text = request("POST", path, body)
            assert status in (201, 400), text
            statuses[status] += 1
            if status == 201:
                gone, text = request("DELETE", f"{path}?target={quote('/v/part/x')}")
                if gone != 200:  # somewhere else by now
                    assert gone == 409, text
                    assert request("DELETE", f"{path}?target={quote('/v/part/x')}&force=1")[0] == 200
                    statuses[gone] += 1
    assert statuses[201] > 0
    assert statuses[400] + statuses[409] > 0, statuses
    assert host_mounts(tmp_path) == []
    assert sorted(os.listdir("/etc")) == etc
    assert os.listdir(outside) == []
    assert os.listdir(source) == ["mark"]
    # what a link has kept from being taken away is still within the container
    left = [line.split()[4] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines() if str(source) in line]
    assert all(place.startswith(("/v/", "/etc/x", "/outside/x", "/tmp/", "/x")) for place in left), left


def test_a_link_does_not_make_rm_take_away_what_protects_the_host(engine: Engine, tmp_path: Path):
    """The container turns the path of a mount into one of /proc/kcore's mask, of /dev and of a file of the engine's."""
    engine.docker("run", "-d", "--name", "aa", "-v", "/:/host:ro", "busybox", "sleep", "1000")
    pid = engine.docker("inspect", "-f", "{{.State.Pid}}", "aa")
    path = "/wherry/v1/containers/aa/mounts"
    for target in ("/proc/kcore", "/proc/sys", "/dev/shm", "/etc/hosts", "/host"):
        kind = "/d/file" if target in ("/proc/kcore", "/etc/hosts") else "/d/folder"
        source = tmp_path / kind.rpartition("/")[2]
        if kind == "/d/file":
            source.touch()
        else:
            source.mkdir(exist_ok=True)
        assert engine.api("POST", path, json.dumps({"Binds": [f"{source}:{kind}"]}))[0] == 201
        moved = f"mv /d /away && mkdir /d && ln -s {target} {kind}"
        engine.docker("exec", "aa", "sh", "-c", moved)
        there = container_mounts(pid)
        assert engine.api("DELETE", f"{path}?target={kind}")[0] == 409
        assert engine.api("DELETE", f"{path}?target={kind}&force=1")[0] == 200
        assert container_mounts(pid) == there
        engine.docker("exec", "aa", "sh", "-c", "rm -r /d; mv /away /gone$$")


@pytest.mark.parametrize(("form", "place"), [("over", "/etc"), ("over", "/a"), ("over", "/a/v"), ("layers", "")])
def test_a_server_that_does_not_answer_holds_up_nobody(own_engine: Engine, tmp_path: Path, form: str, place: str):
    engine = own_engine
    engine.start()
    engine.import_busybox()
    engine.docker("run", "-d", "--name", "aa", "--privileged", "-v", "vv:/a/v", "busybox", "sleep", "1000")
    path = "/wherry/v1/containers/aa/mounts"
    began, statuses = time.monotonic(), {}
    assert engine.api("POST", path, json.dumps({"Binds": [f"{tmp_path}:/before"]}))[0] == 201
    with silent(engine, form, place):
        for where in ("/etc/x", "/a/x", "/a/v/x", "/new/x"):
            statuses[where] = engine.api("POST", path, json.dumps({"Binds": [f"{tmp_path}:{where}"]}))[0]
        for where in ("/a/v", "/before"):
            statuses["rm " + where] = engine.api("DELETE", f"{path}?target={where}")[0]
        assert not _threads(engine)
        within = {"/etc": "/etc/x", "/a": "/a/x", "/a/v": "/a/v/x"}.get(place)
        if form == "over":
            assert statuses[within or ""] == 400, statuses
            assert (statuses["/new/x"], statuses["rm /before"]) == (201, 200), statuses
            assert statuses["rm /a/v"] == (200 if place == "/etc" else 409), statuses
        else:
            assert statuses["/new/x"] == 400, statuses
        assert engine.stop() == 0
    assert time.monotonic() - began < 2 * SECONDS
    engine.start()
    remove_volumes(engine)


def test_a_container_that_mounts_over_the_place_meanwhile(engine: Engine, tmp_path: Path):
    """One with CAP_SYS_ADMIN mounts and unmounts at the place all the time: within it, or refused; nothing outside."""
    loop = "while :; do mount -t tmpfs none /p; umount /p; rmdir /p; mkdir /p; done"
    engine.docker("run", "-d", "--name", "aa", "--privileged", "busybox", "sh", "-c", f"mkdir /p; {loop} 2>/dev/null")
    statuses = Counter[int]()
    path = "/wherry/v1/containers/aa/mounts"
    with contextlib.closing(Requests(engine)) as request:
        for _ in range(100):
            status, text = request("POST", path, {"Binds": [f"{tmp_path}:/p"]})
            assert status in (201, 400), text
            statuses[status] += 1
            if status == 201:
                gone, text = request("DELETE", f"{path}?target=/p&force=1")
                assert gone == 200, text
    assert statuses[201] > 0, statuses
    assert host_mounts(tmp_path) == []
    assert os.listdir(tmp_path) == []
