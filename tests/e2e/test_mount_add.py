"""wherry mount: mounts added to containers that run, and taken away, seen inside, in the kernel and on disk."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine import Engine
from tests.volumes import content_image, remove_volumes
from tests.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.engine]


@pytest.fixture
def engine(engine: Engine) -> Iterator[Engine]:
    """The module's engine; no volume stays."""
    yield engine
    remove_volumes(engine)


def wherry(engine: Engine, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-I", "-m", "wherry.cli.main", "-H", engine.host, *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60)


def done(engine: Engine, *words: str) -> str:
    ran = wherry(engine, *words)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def refused(engine: Engine, *words: str) -> str:
    ran = wherry(engine, *words)
    assert ran.returncode != 0, ran.stdout
    return ran.stderr


def sleeper(engine: Engine, *words: str, name: str = "aa", image: str = "busybox") -> str:
    return engine.docker("run", "-d", "--name", name, *words, image, "sleep", "1000")


def inside(engine: Engine, *words: str, name: str = "aa") -> str:
    return engine.docker("exec", name, *words)


def mounted(engine: Engine, place: str, name: str = "aa") -> list[str]:
    """The lines of the container's mount table for a place."""
    pid = engine.docker("inspect", "-f", "{{.State.Pid}}", name)
    lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    return [line for line in lines if line.split()[4] == place]


def places(engine: Engine, name: str = "aa") -> dict[str, dict]:
    found = json.loads(engine.docker("inspect", "-f", "{{json .Mounts}}", name))
    return {each["Destination"]: each for each in found}


def test_a_folder_of_the_host_comes_goes_and_comes_back(engine: Engine, tmp_path: Path):
    (tmp_path / "f").write_text("hi")
    sleeper(engine)
    assert done(engine, "mount", "add", "aa", f"{tmp_path}:/new/place") == f"{tmp_path} -> /new/place\n"
    assert inside(engine, "cat", "/new/place/f") == "hi"
    inside(engine, "sh", "-c", "echo there >/new/place/g")
    assert (tmp_path / "g").read_text() == "there\n"
    assert places(engine)["/new/place"] == {
        "Type": "bind", "Source": str(tmp_path), "Destination": "/new/place", "Mode": "", "RW": True,
        "Propagation": "rprivate",
    }  # fmt: skip
    assert engine.docker("inspect", "-f", "{{json .HostConfig.Binds}}", "aa") == f'["{tmp_path}:/new/place"]'
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    engine.docker("restart", "-t", "0", "aa")
    assert inside(engine, "cat", "/new/place/f") == "hi"
    assert done(engine, "mount", "rm", "aa", "/new/place") == "/new/place\n"
    assert not mounted(engine, "/new/place")
    assert inside(engine, "ls", "/new/place") == ""
    assert places(engine) == {}
    engine.docker("restart", "-t", "0", "aa")
    assert not mounted(engine, "/new/place")
    assert (tmp_path / "f").read_text() == "hi"


def test_read_only_single_files_tmpfs_and_the_long_form(engine: Engine, tmp_path: Path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "file").write_text("one")
    sleeper(engine, "--read-only")
    done(engine, "mount", "add", "aa", f"{tmp_path}:/a/b:ro", f"type=bind,src={tmp_path}/file,dst=/etc/one",
         "type=tmpfs,dst=/t,tmpfs-size=64k")  # fmt: skip
    assert engine.run("exec", "aa", "touch", "/a/b/x").returncode == 1
    assert " ro," in mounted(engine, "/a/b")[0]
    assert inside(engine, "cat", "/etc/one") == "one"
    inside(engine, "sh", "-c", "echo two >/etc/one; echo x >/t/x")
    assert (tmp_path / "file").read_text() == "two\n"
    assert "size=64k" in mounted(engine, "/t")[0]
    assert "Read-only" in engine.run("exec", "aa", "touch", "/x").stderr
    done(engine, "mount", "rm", "aa", "/a/b", "/etc/one", "/t")
    assert [mounted(engine, each) for each in ("/a/b", "/etc/one", "/t")] == [[], [], []]


def test_volumes_are_made_filled_counted_and_go_with_the_container(engine: Engine):
    content_image(engine, "full")
    sleeper(engine, image="full")
    done(engine, "mount", "add", "aa", "vv:/data", "/nameless")
    assert inside(engine, "cat", "/data/f") == "hi"
    place = engine.data_root / "volumes" / "vv" / "_data"
    assert (place.stat().st_uid, place.stat().st_mode & 0o7777) == (5, 0o1770)
    assert "in use" in engine.run("volume", "rm", "vv").stderr
    nameless = places(engine)["/nameless"]["Name"]
    inside(engine, "touch", "/nameless/x", "/data/x")
    engine.docker("rm", "-fv", "aa")
    assert engine.docker("volume", "ls", "-q") == "vv"
    assert not (engine.data_root / "volumes" / nameless).exists()
    assert (place / "x").exists()
    sleeper(engine, "-v", "vv:/v")
    done(engine, "mount", "rm", "aa", "/v")
    engine.docker("volume", "rm", "vv")


def test_a_container_that_ends_meanwhile_has_ended(engine: Engine):
    """An end is recorded while the volume is being filled, and what is written then must not undo it."""
    engine.docker("run", "--name", "aa", "busybox", "sh", "-c", "mkdir /big; head -c 60000000 /dev/zero >/big/f")
    engine.docker("commit", "aa", "big")
    engine.docker("rm", "aa")
    sleeper(engine, image="big")
    pid = int(engine.docker("inspect", "-f", "{{.State.Pid}}", "aa"))
    asked = json.dumps({"Binds": ["filled:/big"]})
    adding = threading.Thread(target=engine.api, args=("POST", "/wherry/v1/containers/aa/mounts", asked))
    adding.start()
    until((engine.data_root / "volumes" / "filled").exists)
    os.kill(pid, signal.SIGKILL)
    adding.join()
    until(lambda: engine.docker("inspect", "-f", "{{.State.Status}}", "aa") == "exited", 5)
    engine.docker("start", "aa")


def test_events_and_the_api(engine: Engine, tmp_path: Path):
    sleeper(engine)
    since = str(time.time())
    body = json.dumps({"Binds": ["vv:/v"], "Mounts": [{"Type": "bind", "Source": str(tmp_path), "Target": "/b"}]})
    status, text = engine.api("POST", "/wherry/v1/containers/aa/mounts", body)
    assert (status, [each["Destination"] for each in json.loads(text)["Mounts"]]) == (201, ["/v", "/b"])
    assert engine.api("GET", "/wherry/v1/containers/aa/mounts")[1] == text
    assert engine.api("DELETE", "/wherry/v1/containers/aa/mounts?target=/v")[0] == 200
    assert engine.api("DELETE", "/wherry/v1/containers/aa/mounts?target=/v")[0] == 404
    told = engine.docker("events", "--since", since, "--until", str(time.time()), "--format", "{{.Type}} {{.Action}}")
    added = ["volume create", "volume mount", "container update"]
    assert told.split("\n") == [*added, "volume unmount", "container update"]


def test_a_mount_in_use_is_busy_unless_forced(engine: Engine, tmp_path: Path):
    waits = "while [ ! -d /b/d ]; do sleep 0.1; done; cd /b/d; sleep 1000"
    engine.docker("run", "-d", "--name", "aa", "busybox", "sh", "-c", waits)
    (tmp_path / "d").mkdir()
    done(engine, "mount", "add", "aa", f"{tmp_path}:/b")
    pid = engine.docker("inspect", "-f", "{{.State.Pid}}", "aa")
    until(lambda: os.readlink(f"/proc/{pid}/cwd") == "/b/d")
    assert "is in use by a process of container aa" in refused(engine, "mount", "rm", "aa", "/b")
    assert "/b" in places(engine)
    assert mounted(engine, "/b")
    done(engine, "mount", "rm", "--force", "aa", "/b")
    assert not mounted(engine, "/b")
    assert places(engine) == {}


def test_a_container_that_does_not_run_has_it_from_its_start(engine: Engine, tmp_path: Path):
    (tmp_path / "f").write_text("hi")
    engine.docker("create", "--name", "aa", "busybox", "sh", "-c", "cat /b/f; ls /m")
    done(engine, "mount", "add", "aa", f"{tmp_path}:/b")
    engine.docker("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "mm")
    done(engine, "mount", "add", "aa", "mm:/m")
    assert engine.docker("start", "-a", "aa") == "hi"
    done(engine, "mount", "rm", "aa", "/b")
    assert "can't open" in engine.run("start", "-a", "aa").stderr


def test_what_cannot_be_is_refused_and_leaves_nothing(engine: Engine, tmp_path: Path):
    (tmp_path / "file").touch()
    sleeper(engine, "-v", f"{tmp_path}:/b")
    inside(engine, "ln", "-s", "/proc", "/link")
    engine.docker("volume", "create", "mm")
    for spec, text in (
        (f"{tmp_path}:/b", "Duplicate mount point: /b"),
        (f"{tmp_path}/file:/bin", "a file cannot be mounted on a directory"),
        (f"{tmp_path}:/bin/busybox", "a file cannot be mounted on a directory"),
        (f"{tmp_path}:/proc/sys", "nothing is mounted in /proc, /sys or /dev"),
        (f"{tmp_path}:/dev/../dev/shm/", "nothing is mounted in /proc, /sys or /dev"),
        (f"{tmp_path}:/link/sys", "it is inside /proc"),
        (f"{tmp_path}:/bin/busybox/x", "a file cannot be mounted on a directory"),
        ("relative/path:/x", "includes invalid characters"),
        ("fresh:/bin/busybox", "source /bin/busybox is not directory"),
        ("type=bind,src=/nosuch,dst=/x", "bind source path does not exist: /nosuch"),
        ("nonsense", "mount path must be absolute"),
    ):
        assert text in refused(engine, "mount", "add", "aa", spec), spec
    assert list(places(engine)) == ["/b"]
    assert engine.docker("volume", "ls", "-q") == "mm"
    assert sorted(os.listdir(engine.data_root / "volumes")) == ["mm"]
    # all or nothing
    assert "a file cannot" in refused(engine, "mount", "add", "aa", "one:/one", f"{tmp_path}:/bin/busybox")
    assert not mounted(engine, "/one")
    assert engine.docker("volume", "ls", "-q") == "mm"
    assert "has no mount at /etc" in refused(engine, "mount", "rm", "aa", "/etc")
    assert "No such container: nosuch" in refused(engine, "mount", "rm", "nosuch", "/etc")


def test_it_outlives_the_engine(own_engine: Engine, tmp_path: Path):
    engine = own_engine
    engine.start()
    engine.import_busybox()
    sleeper(engine, "--restart", "always")
    done(engine, "mount", "add", "aa", f"{tmp_path}:/b", "vv:/v")
    inside(engine, "touch", "/b/one", "/v/two")
    engine.crash()
    engine.start()
    assert mounted(engine, "/b")
    assert sorted(places(engine)) == ["/b", "/v"]
    assert "in use" in engine.run("volume", "rm", "vv").stderr
    done(engine, "mount", "rm", "aa", "/b")
    assert not mounted(engine, "/b")
    engine.docker("kill", "aa")
    engine.docker("start", "aa")
    assert inside(engine, "ls", "/v") == "two"
    remove_volumes(engine)


@pytest.mark.parametrize("place", ["mount.recorded", "mount.attached", "mount.detached"])
def test_an_engine_killed_in_the_middle_never_forgets_what_is_mounted(own_engine: Engine, monkeypatch, place: str):
    engine = own_engine
    engine.start()
    engine.import_busybox()
    sleeper(engine)
    if place == "mount.detached":
        done(engine, "mount", "add", "aa", "vv:/v")
    engine.stop()
    monkeypatch.setenv("WHERRY_FAILPOINTS", f"{place}=kill")
    engine.start()
    wherry(engine, "mount", "rm" if place == "mount.detached" else "add", "aa", "/v" if "det" in place else "vv:/v")
    assert engine.process is not None
    assert engine.process.wait(10) != 0
    monkeypatch.delenv("WHERRY_FAILPOINTS")
    engine.start()
    assert list(places(engine)) == ["/v"]
    assert "in use" in engine.run("volume", "rm", "vv").stderr
    assert bool(mounted(engine, "/v")) == (place == "mount.attached")
    engine.docker("restart", "-t", "0", "aa")
    assert mounted(engine, "/v")
    done(engine, "mount", "rm", "aa", "/v")
    engine.docker("volume", "rm", "vv")


def test_what_was_given_up_is_not_mounted_later(own_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The kernel answers after the engine has said that it did not: when a source is opened, and when it is mounted."""
    engine = own_engine
    waits = [f"mount.{each}=wait:{tmp_path}/{each}" for each in ("opened", "made")]
    monkeypatch.setenv("WHERRY_FAILPOINTS", " ".join([*waits, "mount.patience=0.5"]))
    engine.start()
    engine.import_busybox()
    sleeper(engine)
    engine.docker("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "mem")
    before = namespaces(engine)
    for number, (place, source) in enumerate([("opened", str(tmp_path)), ("made", "mem")], 1):
        os.mkfifo(tmp_path / place)
        assert "has not answered" in refused(engine, "mount", "add", "aa", f"{source}:/late")
        assert places(engine) == {}
        assert engine.docker("volume", "ls", "-q") == "mem"
        until(lambda: released(tmp_path / place))  # noqa: B023 - called here
        ended = "what was given up has ended"
        until(lambda: engine.log.read_text().count(ended) == number)  # noqa: B023 - called here
        assert not mounted(engine, "/late")
        assert namespaces(engine) == before
    engine.docker("volume", "rm", "mem")


def namespaces(engine: Engine) -> list[str]:
    """The mount namespaces that the engine holds."""
    assert engine.process is not None
    links = (os.readlink(each) for each in Path(f"/proc/{engine.process.pid}/fd").iterdir() if each.is_symlink())
    return sorted(each for each in links if each.startswith("mnt:"))


def released(fifo: Path) -> bool:
    """Let who waits for a FIFO go on, if somebody does."""
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        assert error.errno == errno.ENXIO  # noqa: PT017 - nobody has it open for reading yet
        return False
    return True
