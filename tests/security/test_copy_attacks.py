"""docker cp against archives and trees made to hurt, and against an engine that dies in the middle.

The numbers FS-04 to FS-08 and FS-14 are those of the list of attacks that container engines were open to once.
"""

from __future__ import annotations

import json
import lzma
import os
import socket
import sysconfig
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import pytest

from tests import mounttable, tars
from tests.engine import Engine
from tests.security.attackers import exchanging, ways_to
from tests.security.test_copy import Connection
from tests.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.engine]

TERABYTE = 1 << 40
MILLION = 1_000_000
BOUND = 64 << 20
"""Bytes that the engine may grow by while it copies, whatever it copies."""


def memory(engine: Engine) -> int:
    """Resident bytes of the engine."""
    assert engine.process
    text = Path(f"/proc/{engine.process.pid}/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) << 10


def put(engine: Engine, path: str, data: bytes, name: str = "aa") -> tuple[int, bytes]:
    with closing(Connection(engine)) as connection:
        return connection.ask("PUT", f"/containers/{name}/archive?path={quote(path)}", data)


def get(engine: Engine, path: str, name: str = "aa") -> tuple[int, bytes]:
    with closing(Connection(engine)) as connection:
        return connection.ask("GET", f"/containers/{name}/archive?path={quote(path)}")


@contextmanager
def begun(engine: Engine, request: bytes) -> Iterator[socket.socket]:
    """A request whose client then does nothing more."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(str(engine.socket))
        client.sendall(request)
        yield client


# FS-04 to FS-08


def test_no_program_and_no_module_of_the_container_is_used(engine: Engine, tmp_path: Path) -> None:
    """FS-04, FS-05: unpackers, account modules and Python's own files lie in wait where they are sought."""
    trap = b"#!/bin/sh\necho caught >>/caught\n"
    module = f"open({str(tmp_path / 'caught')!r}, 'w')".encode()
    places = [f"{folder}/{name}" for folder in ("usr/bin", "usr/local/sbin", "bin")
              for name in ("xz", "unxz", "gzip", "unpigz", "zstd", "bzip2")]  # fmt: skip
    modules = ["codecs.py", "encodings/__init__.py", "tarfile.py", "sitecustomize.py", "lzma.py"]
    members = [tars.file(each, trap, mode=0o755) for each in places]
    library = sysconfig.get_path("stdlib").lstrip("/")
    members += [tars.file(f"{library}/{each}", module) for each in modules]
    members += [tars.file(each, b"\x7fELF none", mode=0o755) for each in ("lib/libnss_files.so.2", "usr/lib/libc.so.6")]
    engine.docker("run", "-d", "--name", "aa", "busybox", "sleep", "1000")
    assert put(engine, "/", tars.archive(members))[0] == 200
    assert put(engine, "/tmp", lzma.compress(tars.archive([tars.file("unpacked", b"x")])))[0] == 200
    with closing(Connection(engine)) as connection:
        owned = "/containers/aa/archive?path=/tmp&copyUIDGID=1"
        assert connection.ask("PUT", owned, tars.archive([tars.file("owned", b"x")]))[0] == 200
    assert get(engine, "/tmp/unpacked")[0] == 200
    assert engine.docker("exec", "-u", "web", "aa", "/bin/busybox", "id", "-un") == "web"
    engine.docker("export", "-o", str(tmp_path / "exported"), "aa")
    engine.docker("cp", "aa:/etc", str(tmp_path / "etc"))
    assert engine.docker("commit", "aa", "committed").startswith("sha256:")
    engine.docker("run", "--rm", "--entrypoint", "/bin/busybox", "committed", "true")
    engine.docker("rmi", "committed")
    assert get(engine, "/caught")[0] == 404
    assert not (tmp_path / "caught").exists()
    first = engine.docker("inspect", "-f", "{{.State.Pid}}", "aa")
    supervisor = int(Path(f"/proc/{first}/stat").read_text().rpartition(")")[2].split()[1])
    assert engine.process
    for process in (engine.process.pid, engine.zygote(), supervisor):
        assert not _mapped_from_elsewhere(process)


def _mapped_from_elsewhere(process: int) -> list[str]:
    """Return what a process has mapped that is not the host's file of that name: what dlopen(3) would have loaded."""
    found = []
    for line in Path(f"/proc/{process}/maps").read_text().splitlines():
        words = line.split(maxsplit=5)
        if len(words) < 6 or not words[5].startswith("/") or words[5].startswith(("/memfd:", "/dev/zero")):
            continue
        try:
            state = os.stat(words[5])
        except FileNotFoundError:
            found.append(line)
            continue
        major, minor = (int(each, 16) for each in words[3].split(":"))
        if (state.st_dev, state.st_ino) != (os.makedev(major, minor), int(words[4])):
            found.append(line)
    return found


def test_a_folder_in_the_archive_does_not_change_what_a_link_leads_to(engine: Engine, tmp_path: Path) -> None:
    """FS-06: the mode of a directory of the host, by a link of that name in the container."""
    target = tmp_path / "canary"
    target.mkdir(mode=0o700)
    engine.docker("run", "-d", "--name", "aa", "busybox", "sh", "-c", f"ln -s {target} /tmp/d; sleep 1000")
    until(lambda: engine.run("exec", "aa", "test", "-L", "/tmp/d").returncode == 0)
    assert put(engine, "/tmp", tars.archive([tars.folder("d", mode=0o777), tars.file("d/f", b"x")]))[0] in (200, 400)
    assert target.stat().st_mode & 0o777 == 0o700
    assert not list(target.iterdir())


UP = "../" * 40
LONG = "./" * 60
"""Longer than a header's field, so that the name comes in a record of its own."""


def _ways_out(place: str) -> dict[str, bytes]:
    """Archives whose names lead to a directory of the host, by what they try."""
    below = place.lstrip("/")
    pax = tars.file("harmless", b"x")
    pax[0].pax_headers["path"] = f"{UP}{below}/w"
    cut = tars.file("harmless", b"x")
    cut[0].pax_headers["path"] = f"x\0/{UP}{below}/w"
    return {
        "up": tars.archive([tars.file(f"{UP}{below}/w", b"x")]),
        "up within": tars.archive([tars.file(f"a/{UP}{below}/w", b"x")]),
        "absolute": tars.archive([tars.file(f"{place}/w", b"x")]),
        "through a link": tars.archive([tars.link("out", place), tars.file("out/w", b"x")]),
        "through a link up": tars.archive([tars.link("out", UP + below), tars.file("out/w", b"x")]),
        "a hard link": tars.archive([tars.hard("h", f"{UP}{below}/r"), tars.file("h", b"x")]),
        "a hard link to a link": tars.archive(
            [tars.link("l", f"{place}/r"), tars.hard("h", "l"), tars.file("h", b"x")]
        ),
        "a name twice": tars.archive([tars.link("t", f"{place}/w"), tars.file("t", b"x")]),
        "a folder's mode": tars.archive([tars.link("d", place), tars.folder("d", mode=0o777, uid=1000)]),
        "a long name of GNU": tars.archive([tars.file(f"{LONG}{UP}{below}/w", b"x")], form=tarfile.GNU_FORMAT),
        "a long link of GNU": tars.archive(
            [tars.link("out", f"/{LONG}{below}"), tars.file("out/w", b"x")], form=tarfile.GNU_FORMAT
        ),
        "another path of PAX": tars.archive([pax]),
        "a zero in a name": tars.archive([cut]),
        "4096 bytes": tars.archive([tars.file(f"{'a' * 254}/" * 16 + "a" * 16, b"x")]),
        "4096 bytes up": tars.archive([tars.file("../" * 1300 + below + "/w", b"x")]),
    }


@pytest.mark.parametrize("way", _ways_out("/"))
def test_an_archive_stays_in_the_container(engine: Engine, canary: Path, way: str) -> None:
    """FS-07: by cp, import and load; what is taken in is where it belongs, and works. `canary` looks at the host."""
    data = _ways_out(str(canary))[way]
    engine.docker("run", "-d", "--name", "aa", "busybox", "sleep", "1000")
    assert put(engine, "/root", data)[0] in (200, 400, 404)
    assert get(engine, "/root")[0] == 200
    archives = (("import", "-", "fs07"), data), (("load",), tars.docker_archive([data], ["fs07:latest"]))
    for words, given in archives:
        taken = engine.run(*words, input=given)
        if taken.returncode:
            assert taken.stderr
            continue
        engine.docker("create", "--name", "bb", "fs07", "none")
        assert engine.run("cp", "bb:/", "-").returncode == 0
        engine.docker("rm", "bb")
        engine.docker("rmi", "fs07")


def test_a_link_in_a_volume_is_no_way_into_a_read_only_root(engine: Engine) -> None:
    """FS-08: nor is one into a volume that is mounted for reading only."""
    made = "ln -s / /v/l; ln -s ../r /v/r; sleep 1000"
    words = ["--read-only", "-v", "vv:/v", "-v", "ww:/r:ro", "busybox", "sh", "-c", made]
    engine.docker("run", "-d", "--name", "aa", *words)
    until(lambda: engine.run("exec", "aa", "test", "-L", "/v/r").returncode == 0)
    data = tars.archive([tars.file("f", b"x")])
    refused = ("/v/l/etc", "/v/l", "/", "/r", "/v/r", "/v/l/r", "/v/r/.")
    for path, status in (*((each, 400) for each in refused), ("/v", 200)):
        assert put(engine, path, data)[0] == status, path
    volumes = engine.data_root / "volumes"
    assert os.listdir(volumes / "ww/_data") == []
    assert sorted(os.listdir(volumes / "vv/_data")) == ["f", "l", "r"]
    assert engine.docker("diff", "aa") == "A /r\nA /v"
    engine.docker("rm", "-f", "aa")
    engine.docker("volume", "rm", "vv", "ww")


# FS-14


def _snapshot(engine: Engine) -> dict[str, object]:
    """What copies could leave with the engine and the zygote: descriptors by kind, mounts, and files.

    Mounts of engines that run beside a test come and go: those of its own are counted.
    """
    assert engine.process
    found: dict[str, object] = {"tmp": sorted(os.listdir(engine.data_root / "tmp"))}
    for name, process in (("engine", engine.process.pid), ("zygote", engine.zygote())):
        place = Path(f"/proc/{process}")
        kinds = Counter[str]()
        for fd in (place / "fd").iterdir():
            with suppress(FileNotFoundError):
                target = os.readlink(fd)
                # Networks are kept ready, and come and go: their namespaces, and sockets in them
                kinds[target.partition(":")[0] if not target.startswith(("net:", "socket:")) else "network"] += 1
        del kinds["network"]
        table = (place / "mountinfo").read_text().splitlines()
        found[name] = kinds, [line for line in table if str(engine.root) in line and " - nsfs " not in line]
    return found


def test_copies_that_work_and_that_fail_leave_nothing(engine: Engine, tmp_path: Path, canary: Path) -> None:
    """FS-14: of a thousand copies out of and into a directory that is exchanged with links, 200 work and 200 fail."""
    seen = Counter[str]()
    data = tars.archive([tars.file("put", b"x")])
    with exchanging(engine, tmp_path, "/a/x", ways_to(canary), first="echo x >/a/x/r") as attacker:
        for path in ("/a/x/r", "/none"):
            get(engine, path, "attacker")
        before, turns = _snapshot(engine), attacker.turns
        with closing(Connection(engine)) as connection:
            for turn in range(1000):
                way = (("GET", "/a/x/r", None), ("PUT", "/a/x", data), ("HEAD", "/a/x/r", None))[turn % 3]
                status, _ = connection.ask(way[0], f"/containers/attacker/archive?path={way[1]}", way[2])
                seen["worked" if status == 200 else "failed"] += 1
        assert attacker.turns - turns > 1000
        try:
            until(lambda: _snapshot(engine) == before)
        except AssertionError:
            assert _snapshot(engine) == before
    assert min(seen["worked"], seen["failed"]) >= 200, seen


# Paths and names


def test_every_form_of_a_path(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "aa", "busybox", "sh", "-c", "mkdir -p /d/e; echo x >/d/f; sleep 1000")
    until(lambda: engine.run("exec", "aa", "test", "-e", "/d/f").returncode == 0)
    long = "/d/" + "/".join(["x" * 200] * 30)
    for path, status in (
        ("/d/.", 200), ("/d/", 200), ("/d/..", 200), ("d", 200), ("./d/../d/f", 200), ("../../../../d/f", 200),
        ("//d///f", 200), ("/d/f/", 400), ("/d/f/.", 400), ("/d/f/x", 400), ("/d/" + "x" * 256, 400), (long, 400),
        ("/nosuch", 404), ("/d/\udcff\udcfe", 404),
    ):  # fmt: skip
        with closing(Connection(engine)) as connection:
            name = quote(path.encode("utf-8", "surrogateescape"))
            found = connection.ask("GET", f"/containers/aa/archive?path={name}")[0]
        assert found == status or (found == 404 and status == 400), (path, found)


def test_names_that_are_no_text_go_there_and_back(engine: Engine) -> None:
    name = os.fsdecode(b"d/\xff\xfe name\n")
    data = tars.archive([tars.folder("d"), tars.file(name, b"x")], form=tarfile.GNU_FORMAT)
    engine.docker("run", "-d", "--name", "aa", "busybox", "sleep", "1000")
    assert put(engine, "/tmp", data)[0] == 200
    status, told = get(engine, "/tmp/d")
    assert status == 200
    assert b"\xff\xfe name\n" in told


# Sizes


def test_a_terabyte_that_is_a_hole(engine: Engine) -> None:
    """Nobody can wait for it; who stops reading ends it, and what is claimed but does not come is refused."""
    made = f"dd if=/dev/zero of=/hole bs=1 count=0 seek={TERABYTE}; sleep 1000"
    engine.docker("run", "-d", "--name", "aa", "busybox", "sh", "-c", made)
    until(lambda: engine.run("exec", "aa", "test", "-e", "/hole").returncode == 0)
    before = memory(engine)
    with begun(engine, b"GET /containers/aa/archive?path=/hole HTTP/1.1\r\nHost: e\r\n\r\n") as client:
        got = 0
        while got < 256 << 20:
            got += len(client.recv(1 << 20))
    assert memory(engine) - before < BOUND
    info = tarfile.TarInfo("claimed")
    info.size = TERABYTE
    assert put(engine, "/tmp", info.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20))[0] == 400
    assert memory(engine) - before < BOUND
    assert engine.docker("exec", "aa", "du", "/tmp").split()[0] < "3000"


@pytest.mark.slow
def test_a_million_files(own_engine: Engine, tmp_path: Path) -> None:
    """The engine's memory stays as it is, and it answers others meanwhile."""
    for folder in range(1000):
        place = tmp_path / "many" / str(folder)
        place.mkdir(parents=True)
        for number in range(MILLION // 1000):
            os.close(os.open(place / str(number), os.O_CREAT | os.O_WRONLY))
    own_engine.start()
    own_engine.import_busybox()
    own_engine.docker("run", "-d", "--name", "aa", "-v", f"{tmp_path}:/v", "busybox", "sleep", "1000")
    assert get(own_engine, "/v/many/0")[0] == 200
    before, slowest, done = memory(own_engine), 0.0, threading.Event()

    def ask_others() -> None:
        nonlocal slowest
        while not done.wait(0.05):
            began = time.monotonic()
            assert own_engine.api("GET", "/containers/json")[0] == 200
            slowest = max(slowest, time.monotonic() - began)

    others = threading.Thread(target=ask_others)
    others.start()
    try:
        with begun(own_engine, b"GET /containers/aa/archive?path=/v/many HTTP/1.0\r\nHost: e\r\n\r\n") as client:
            total = 0
            while piece := client.recv(1 << 20):
                total += len(piece)
    finally:
        done.set()
        others.join()
    assert total > MILLION * 512
    assert memory(own_engine) - before < BOUND
    assert slowest < 5.0


# An engine or a client that goes away


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("way", ["out", "in"])
def test_an_engine_killed_in_the_middle(own_engine: Engine, running: bool, way: str) -> None:
    own_engine.start()
    own_engine.import_busybox()
    made = "head -c 30000000 /dev/zero >/big; touch /ready; sleep 1000"
    own_engine.docker("run", "-d", "--name", "aa", "busybox", "sh", "-c", made)
    until(lambda: own_engine.run("exec", "aa", "test", "-e", "/ready").returncode == 0)
    if not running:
        own_engine.docker("kill", "aa")
        own_engine.docker("wait", "aa")
    data = tars.archive([tars.file("half", bytes(40_000_000))])
    head = b"PUT /containers/aa/archive?path=/tmp HTTP/1.1\r\nHost: e\r\nContent-Length: %d\r\n\r\n" % len(data)
    request = (
        head + data[: 20 << 20] if way == "in" else b"GET /containers/aa/archive?path=/big HTTP/1.1\r\nHost: e\r\n\r\n"
    )
    mounts = mounttable.lines()
    with begun(own_engine, request) as client:
        if way == "out":
            assert client.recv(1 << 20)
        own_engine.crash()
    assert mounttable.lines() == mounts
    own_engine.start()
    assert own_engine.docker("inspect", "-f", "{{.State.Running}}", "aa") == str(running).lower()
    status, told = get(own_engine, "/big")
    assert (status, len(told) > 30_000_000) == (200, True)
    assert put(own_engine, "/tmp", tars.archive([tars.file("half", b"whole")]))[0] == 200
    assert b"whole" in get(own_engine, "/tmp/half")[1]
    assert not list((own_engine.data_root / "tmp").iterdir())


def test_clients_that_send_no_more_hold_up_nobody(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "aa", "busybox", "sleep", "1000")
    head = b"PUT /containers/aa/archive?path=/tmp HTTP/1.1\r\nHost: e\r\nContent-Length: 99999\r\n\r\nhalf"
    with ExitStack() as clients:
        for _ in range(40):
            clients.enter_context(begun(engine, head))
        assert put(engine, "/tmp", tars.archive([tars.file("f", b"x")]))[0] == 200
        assert get(engine, "/tmp/f")[0] == 200
        body = json.dumps({"Cmd": ["true"]})
        assert engine.api("POST", "/containers/aa/exec", body)[0] == 201
        engine.docker("rm", "-f", "aa")
