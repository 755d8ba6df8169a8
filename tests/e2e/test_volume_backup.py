"""wherry volume export, import and snapshot: archives of volumes in use, put back here and on another engine."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine import Engine
from tests.volumes import content_image, remove_volumes
from tests.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.engine]
MAIN = [sys.executable, "-I", "-m", "wherry.cli.main"]

# Two counters in two files, the second written after the first: at any moment they differ by one at most.
COUNTER = "i=0; while :; do i=$((i+1)); echo $i >/v/a; echo $i >/v/b; done"


def wherry(engine: Engine, *words: str, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    given = {"stdin": subprocess.DEVNULL} if data is None else {"input": data}
    return subprocess.run([*MAIN, "-H", engine.host, *words], capture_output=True, timeout=60, **given)  # type: ignore[call-overload,no-any-return]


def out(engine: Engine, *words: str, data: bytes | None = None) -> bytes:
    ran = wherry(engine, *words, data=data)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def refused(engine: Engine, *words: str, data: bytes | None = None) -> str:
    ran = wherry(engine, *words, data=data)
    assert ran.returncode == 1, ran.stdout
    return ran.stderr.decode()


def content(engine: Engine, volume: str) -> str:
    script = "cd /v; find . -exec stat -c '%n %F %a %u %g %Y %h' {} + | sort; find . -type f -exec md5sum {} + | sort"
    return engine.docker("run", "--rm", "-v", f"{volume}:/v:ro", "busybox", "sh", "-c", script)


@pytest.fixture
def clean(engine: Engine) -> Iterator[Engine]:
    """The engine; its volumes are removed afterwards."""
    yield engine
    remove_volumes(engine)


@pytest.fixture
def filled(clean: Engine) -> str:
    engine = clean
    content_image(engine, "backup-content")
    engine.docker("volume", "create", "--label", "tier=gold", "filled")
    engine.docker("run", "--rm", "-v", "filled:/data", "backup-content", "true")
    return "filled"


def test_a_volume_is_saved_and_restored(engine: Engine, filled: str, tmp_path: Path) -> None:
    out(engine, "volume", "export", "-o", str(tmp_path / "one.tar"), filled)
    assert out(engine, "volume", "import", "again", str(tmp_path / "one.tar")) == b"again\n"
    assert content(engine, "again") == content(engine, filled)
    assert engine.docker("volume", "inspect", "-f", "{{.Labels.tier}}", "again") == "gold"
    assert out(engine, "volume", "export", filled) != b""


def test_backups_that_add_to_each_other_go_to_another_engine(
    clean: Engine, own_engine: Engine, tmp_path: Path
) -> None:
    engine = clean
    own_engine.start()
    own_engine.import_busybox()
    engine.docker("volume", "create", "source")
    run = ("run", "--rm", "-v", "source:/v", "busybox", "sh", "-c")
    engine.docker(*run, "mkdir /v/d; head -c 3000000 /dev/urandom >/v/big; echo 1 >/v/d/f; echo 1 >/v/gone")
    time.sleep(2.1)  # what was written a moment ago is compared by its content
    paths = [str(tmp_path / f"{number}.tar") for number in range(3)]
    out(engine, "volume", "export", "-o", paths[0], "source")
    engine.docker(*run, "echo 2 >/v/d/f; rm /v/gone")
    out(engine, "volume", "export", "--since", paths[0], "-o", paths[1], "source")
    engine.docker(*run, "mv /v/d /v/e; chown 5:6 /v/e/f")
    out(engine, "volume", "export", "--since", paths[1], "-o", paths[2], "source")
    assert os.path.getsize(paths[0]) > 3_000_000 > 100 * os.path.getsize(paths[1])
    assert out(own_engine, "volume", "import", "copy", paths[0]) == b"copy\n"
    out(own_engine, "volume", "import", "copy", paths[1], paths[2])
    assert content(own_engine, "copy") == content(engine, "source")
    # straight from one to the other, as to a machine that stands by
    engine.docker(*run, "echo 3 >/v/e/f")
    data = out(engine, "volume", "export", "--since", paths[2], "source")
    out(own_engine, "volume", "import", "copy", "-", data=data)
    assert content(own_engine, "copy") == content(engine, "source")
    own_engine.docker("run", "--rm", "-v", "copy:/v", "busybox", "touch", "/v/mine")
    said = refused(own_engine, "volume", "import", "copy", "-", data=data)
    assert "volume copy has been written to since it was restored" in said
    assert "(/ has another mtime; mine is only in one of them)" in said


def test_frozen_containers_are_saved_as_of_one_moment(clean: Engine) -> None:
    """The first counter is read first; unfrozen, the second one would be far ahead by then."""
    engine = clean
    engine.docker("volume", "create", "counted")
    fill = "head -c 100000000 /dev/zero >/v/aa"
    engine.docker("run", "--rm", "-v", "counted:/v", "busybox", "sh", "-c", fill)
    engine.docker("run", "-d", "--name", "counter", "-v", "counted:/v", "busybox", "sh", "-c", COUNTER)
    place = engine.data_root / "volumes" / "counted" / "_data"
    assert until(lambda: (place / "b").exists() and (place / "b").read_text())
    data = out(engine, "volume", "export", "--freeze", "counted")
    assert engine.docker("inspect", "-f", "{{.State.Status}}", "counter") == "running"
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = {each.name: tar.extractfile(each) for each in tar if each.isfile() and each.size < 100}
        first, second = (int((found[f"content/{name}"] or io.BytesIO()).read() or 0) for name in "ab")
    assert 0 <= first - second <= 1 or second == 0 or first == 0  # a file that was just truncated is empty
    before = (place / "a").read_text()
    assert until(lambda: (place / "a").read_text() != before)


@pytest.mark.slow
def test_who_stops_reading_leaves_nobody_frozen(clean: Engine) -> None:
    engine = clean
    engine.docker("run", "-d", "--name", "user", "-v", "vol:/v", "busybox", "sleep", "1000")
    (engine.data_root / "volumes" / "vol" / "_data" / "big").write_bytes(os.urandom(8 << 20))
    status = ("inspect", "-f", "{{.State.Status}}", "user")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(engine.socket))
        client.sendall(b"POST /wherry/v1/volumes/vol/export?freeze=1 HTTP/1.1\r\nHost: w\r\nContent-Length: 0\r\n\r\n")
        assert until(lambda: engine.docker(*status) == "paused")
        assert until(lambda: engine.docker(*status) == "running", 30)
        client.settimeout(10)
        received = b""
        while piece := client.recv(1 << 20):
            received += piece
    assert not received.endswith(b"0\r\n\r\n"), "the archive is not told to be complete"
    assert not list(engine.run_root.glob("containers/*/frozen"))


def test_a_snapshot_is_a_volume_of_its_own(engine: Engine, filled: str) -> None:
    engine.docker("run", "-d", "--name", "user", "-v", f"{filled}:/v", "busybox", "sleep", "1000")
    before = content(engine, filled)
    assert out(engine, "volume", "snapshot", filled, "then") == b"then\n"
    engine.docker("exec", "user", "sh", "-c", "echo new >/v/f")
    assert content(engine, "then") == before != content(engine, filled)
    assert engine.docker("inspect", "-f", "{{.State.Status}}", "user") == "running"
    named = out(engine, "volume", "snapshot", filled).decode().strip()
    assert named.startswith(f"{filled}-2")
    assert "a volume named then is there already" in refused(engine, "volume", "snapshot", filled, "then")


def test_what_cannot_be_is_refused_and_leaves_nothing(engine: Engine, filled: str, tmp_path: Path) -> None:
    path = str(tmp_path / "a.tar")
    out(engine, "volume", "export", "-o", path, filled)
    data = Path(path).read_bytes()
    names = engine.docker("volume", "ls", "-q")
    assert "no such volume" in refused(engine, "volume", "export", "nosuch")
    for bad in (b"", b"nonsense" * 1000, data[:3000], data[:-2000], data.replace(b"hi\n", b"ho\n", 1)):
        assert refused(engine, "volume", "import", "fresh", "-", data=bad), bad[-100:]
    assert "leads elsewhere" in refused(engine, "volume", "import", "../fresh", path)
    assert "was not restored from a backup" in refused(engine, "volume", "import", filled, path)
    assert "no archive of a volume" in refused(engine, "volume", "export", "--since", __file__, filled)
    assert engine.docker("volume", "ls", "-q") == names
    assert sorted(os.listdir(engine.data_root / "volumes")) == names.split()
    assert not list(tmp_path.glob("*.part"))


def test_a_volume_that_is_removed_before_it_is_opened(engine: Engine) -> None:
    """The engine knows the volume when it asks for the body, and opens it after."""
    engine.docker("volume", "create", "gone")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(engine.socket))
        client.settimeout(20)
        head = b"Host: w\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        client.sendall(b"POST /wherry/v1/volumes/gone/export HTTP/1.1\r\n" + head)
        assert client.recv(100).startswith(b"HTTP/1.1 100 ")
        engine.docker("volume", "rm", "gone")
        client.sendall(b"{}\n")
        answer = client.recv(1 << 16)
    assert answer.startswith(b"HTTP/1.1 409 "), answer
    assert b"volume gone was removed, or renamed, while it was saved" in answer


def test_a_volume_that_is_removed_while_its_archive_is_read(engine: Engine) -> None:
    engine.docker("volume", "create", "gone")
    (engine.data_root / "volumes" / "gone" / "_data" / "big").write_bytes(bytes(8 << 20))
    argv = [*MAIN, "-H", engine.host, "volume", "export", "gone"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as ran:
        assert ran.stdout is not None
        assert ran.stdout.read(1)
        engine.docker("volume", "rm", "gone")
        _, said = ran.communicate(timeout=60)
    assert (ran.returncode, said.decode()) == (
        1,
        "Error response from daemon: the archive is not complete: get gone: no such volume\n",
    )


def test_an_engine_that_is_killed_leaves_nobody_frozen(
    own_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHERRY_FAILPOINTS", "backup.frozen=kill")
    own_engine.start()
    own_engine.import_busybox()
    own_engine.docker("run", "-d", "--name", "c", "-v", "vol:/v", "busybox", "sh", "-c", COUNTER)
    wherry(own_engine, "volume", "export", "--freeze", "-o", str(tmp_path / "x.tar"), "vol")
    place = own_engine.data_root / "volumes" / "vol" / "_data" / "a"
    frozen = place.read_text()
    time.sleep(0.3)
    assert place.read_text() == frozen, "it was frozen when the engine died"
    monkeypatch.delenv("WHERRY_FAILPOINTS")
    own_engine.process.wait()
    own_engine.start()
    assert own_engine.docker("inspect", "-f", "{{.State.Status}}", "c") == "running"
    assert until(lambda: place.read_text() != frozen)


@pytest.mark.parametrize("action", ["error", "kill"])
def test_a_restoration_that_is_cut_off(
    own_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    """Of a new volume nothing stays; one that is added to is as before, or can be added to again."""
    own_engine.start()
    own_engine.import_busybox()
    one, two = str(tmp_path / "1.tar"), str(tmp_path / "2.tar")
    own_engine.docker("run", "--rm", "-v", "vol:/v", "busybox", "sh", "-c", "echo 1 >/v/f")
    out(own_engine, "volume", "export", "-o", one, "vol")
    own_engine.docker("run", "--rm", "-v", "vol:/v", "busybox", "sh", "-c", "echo 2 >/v/f")
    out(own_engine, "volume", "export", "--since", one, "-o", two, "vol")
    out(own_engine, "volume", "import", "standby", one)
    own_engine.stop()
    monkeypatch.setenv("WHERRY_FAILPOINTS", f"restore.unpacked={action}")
    own_engine.start()
    assert wherry(own_engine, "volume", "import", "fresh", one).returncode
    if action == "kill":
        own_engine.process.wait()
        own_engine.start()
    assert wherry(own_engine, "volume", "import", "standby", two).returncode
    monkeypatch.delenv("WHERRY_FAILPOINTS")
    if action == "kill":
        own_engine.process.wait()
    else:
        own_engine.stop()
    own_engine.start()
    assert sorted(own_engine.docker("volume", "ls", "-q").split()) == ["standby", "vol"]
    assert sorted(os.listdir(own_engine.data_root / "volumes")) == ["standby", "vol"]
    out(own_engine, "volume", "import", "standby", two)
    assert content(own_engine, "standby") == content(own_engine, "vol")


def test_a_file_system_of_its_own_is_saved_while_somebody_has_it(clean: Engine) -> None:
    engine = clean
    engine.docker("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "fleeting")
    assert "only while a container has it" in refused(engine, "volume", "export", "fleeting")
    assert "only while a container has it" in refused(engine, "volume", "snapshot", "fleeting", "kept")
    engine.docker("run", "-d", "--name", "aa", "-v", "fleeting:/v", "busybox", "sh", "-c", "echo hi >/v/f; sleep 1000")
    until(lambda: engine.run("exec", "aa", "test", "-s", "/v/f").returncode == 0)
    out(engine, "volume", "import", "again", "-", data=out(engine, "volume", "export", "fleeting"))
    out(engine, "volume", "snapshot", "fleeting", "kept")
    for name in ("again", "kept"):
        assert (engine.data_root / "volumes" / name / "_data" / "f").read_text() == "hi\n"
