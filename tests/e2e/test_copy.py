"""docker cp, export and commit through the real CLI: what is inside is what came out, and the other way round."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import tarfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import tars
from tests.engine import Engine
from tests.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.engine]


def cp(engine: Engine, *words: str) -> str:
    """Copy; return what the CLI says when it refuses, "" when it does not."""
    ran = engine.run("cp", *words)
    return "" if ran.returncode == 0 else ran.stderr.strip()


def tar_of(engine: Engine, *words: str, data: bytes | None = None) -> bytes:
    ran = subprocess.run(["docker", *words], input=data, capture_output=True, env=engine.environment, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def names(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name: member for member in archive}


@pytest.fixture(params=["running", "stopped"])
def box(engine: Engine, request: pytest.FixtureRequest) -> str:
    """A container with a tree in /d, running or not."""
    made = "mkdir -p /d/e; echo hi >/d/f; ln -s f /d/l; ln -s /d /ld; chown 5:6 /d/f; chmod 4755 /d/f"
    engine.docker("run", "-d", "--name", "aa", "busybox", "sh", "-c", f"{made}; touch /ready; sleep 1000")
    until(lambda: engine.run("exec", "aa", "test", "-e", "/ready").returncode == 0)
    if request.param == "stopped":
        engine.docker("kill", "aa")
        engine.docker("wait", "aa")
    return "aa"


def inside(engine: Engine, box: str, *words: str) -> str:
    if engine.docker("inspect", "-f", "{{.State.Running}}", box) != "true":
        engine.docker("start", box)
    return engine.docker("exec", box, *words)


def test_out(engine: Engine, box: str, tmp_path: Path) -> None:
    assert cp(engine, f"{box}:/d", str(tmp_path / "new")) == ""
    assert sorted(os.listdir(tmp_path / "new")) == ["e", "f", "l"]
    assert (tmp_path / "new/f").read_text() == "hi\n"
    assert os.readlink(tmp_path / "new/l") == "f"
    assert (tmp_path / "new/f").stat().st_mode & 0o7777 == 0o4755
    (tmp_path / "there").mkdir()
    assert cp(engine, f"{box}:/d/f", str(tmp_path / "there")) == ""
    assert (tmp_path / "there/f").read_text() == "hi\n"
    assert cp(engine, "-L", f"{box}:/d/l", str(tmp_path / "followed")) == ""
    assert not (tmp_path / "followed").is_symlink()
    assert (tmp_path / "followed").read_text() == "hi\n"
    assert cp(engine, f"{box}:/ld/.", str(tmp_path / "content")) == ""
    assert sorted(os.listdir(tmp_path / "content")) == ["e", "f", "l"]


def test_in(engine: Engine, box: str, tmp_path: Path) -> None:
    (tmp_path / "src/sub").mkdir(parents=True)
    (tmp_path / "src/sub/file").write_bytes(os.urandom(3_000_000))
    assert cp(engine, str(tmp_path / "src"), f"{box}:/d/new") == ""
    assert cp(engine, f"{tmp_path}/src/.", f"{box}:/ld/e") == ""
    assert cp(engine, f"{tmp_path}/src/sub/file", f"{box}:/d/named") == ""
    sums = inside(engine, box, "md5sum", "/d/new/sub/file", "/d/e/sub/file", "/d/named").split()[::2]
    wanted = subprocess.run(["md5sum", tmp_path / "src/sub/file"], capture_output=True, text=True).stdout.split()[0]
    assert sums == [wanted] * 3


def test_through_pipes(engine: Engine, box: str) -> None:
    assert set(names(tar_of(engine, "cp", f"{box}:/d", "-"))) == {"d", "d/e", "d/f", "d/l"}
    data = tars.archive([tars.file("one", b"1", uid=7, gid=8), tars.file("sub/two", b"2")])
    tar_of(engine, "cp", "-", f"{box}:/d", data=data)
    assert inside(engine, box, "stat", "-c", "%u:%g %s", "/d/one") == "7:8 1"
    assert inside(engine, box, "cat", "/d/sub/two") == "2"


def test_refusals(engine: Engine, box: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    assert cp(engine, f"{box}:/nope", str(tmp_path)) == (
        f"Error response from daemon: Could not find the file /nope in container {box}"
    )
    assert "Could not find the file /no/where in container" in cp(engine, str(tmp_path / "f"), f"{box}:/no/where/f")
    assert "No such container: zz" in cp(engine, "zz:/d", str(tmp_path))
    status, text = engine.api("PUT", f"/containers/{box}/archive?path=/d/f", "")
    assert (status, "extraction point is not a directory" in text) == (400, True)
    status, text = engine.api("GET", f"/containers/{box}/archive?path=/d/f/x")
    assert (status, text.strip()) == (400, '{"message":"lstat /d/f/x: not a directory"}')


def test_read_only(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    options = ["--read-only", "--tmpfs", "/t", "-v", f"{tmp_path}:/rw", "-v", f"{tmp_path}:/ro:ro"]
    engine.docker("run", "-d", "--name", "aa", *options, "busybox", "sleep", "1000")
    for _ in ("running", "stopped"):
        assert "container rootfs is marked read-only" in cp(engine, str(tmp_path / "f"), "aa:/root/f")
        assert "mounted volume is marked read-only" in cp(engine, str(tmp_path / "f"), "aa:/ro/g")
        assert cp(engine, str(tmp_path / "f"), "aa:/rw/copy") == ""
        assert (tmp_path / "copy").read_text() == "x"
        (tmp_path / "copy").unlink()
        assert set(names(tar_of(engine, "cp", "aa:/ro", "-"))) == {"ro", "ro/f"}
        engine.docker("stop", "-t", "0", "aa")


def test_a_file_system_in_memory(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    engine.docker("run", "-d", "--name", "aa", "--tmpfs", "/t:size=8m,mode=1777", "busybox", "sleep", "1000")
    assert inside(engine, "aa", "stat", "-c", "%a", "/t") == "1777"
    assert cp(engine, str(tmp_path / "f"), "aa:/t/f") == ""
    assert inside(engine, "aa", "cat", "/t/f") == "x"
    assert set(names(tar_of(engine, "cp", "aa:/t", "-"))) == {"t", "t/f"}


def test_the_kernels_own_files_are_not_in_sight(engine: Engine, box: str, tmp_path: Path) -> None:
    assert "Could not find the file /proc/1" in cp(engine, f"{box}:/proc/1", str(tmp_path))
    assert "Could not find the file /sys/kernel" in cp(engine, f"{box}:/sys/kernel", str(tmp_path))
    assert cp(engine, f"{box}:/etc/hosts", str(tmp_path)) == ""
    assert "localhost" in (tmp_path / "hosts").read_text()


def test_a_container_that_never_ran(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    (tmp_path / "f").write_text("before the start")
    engine.docker("create", "--name", "aa", "-v", f"{tmp_path}/v:/data/v", "busybox", "cat", "/data/v/f", "/new")
    assert cp(engine, str(tmp_path / "f"), "aa:/data/v/f") == ""
    assert cp(engine, str(tmp_path / "f"), "aa:/new") == ""
    assert (tmp_path / "v/f").read_text() == "before the start"
    assert engine.docker("start", "-a", "aa") == "before the startbefore the start"


def test_owner(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    os.chown(tmp_path / "f", 4321, 4321)
    engine.docker("run", "-d", "--name", "aa", "-u", "web", "busybox", "sleep", "1000")
    assert cp(engine, "-a", str(tmp_path / "f"), "aa:/tmp/a") == ""
    assert inside(engine, "aa", "stat", "-c", "%U:%G", "/tmp/a") == "web:web"


def test_a_slow_reader_holds_up_nobody(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "aa", "busybox", "sleep", "1000")
    engine.docker("exec", "aa", "dd", "if=/dev/zero", "of=/big", "bs=1M", "count=64")
    reader = subprocess.Popen(["docker", "cp", "aa:/big", "-"], stdout=subprocess.PIPE, env=engine.environment)
    assert reader.stdout
    assert reader.stdout.read(512)
    engine.docker("exec", "aa", "true")
    engine.docker("stop", "-t", "0", "aa")
    engine.docker("start", "aa")
    engine.docker("rm", "-f", "aa")
    reader.kill()
    reader.wait()
    reader.stdout.close()


def test_many_slow_clients_hold_up_nobody(engine: Engine) -> None:
    """More bodies that do not end than the event loop has threads."""
    engine.docker("run", "-d", "--name", "aa", "busybox", "sleep", "1000")
    head = b"%b HTTP/1.1\r\nHost: e\r\nContent-Type: application/x-tar\r\nContent-Length: 99999\r\n\r\nbegin"
    with ExitStack() as clients:
        for what in (b"PUT /containers/aa/archive?path=/tmp", b"POST /images/load"):
            for _ in range(40):
                client = clients.enter_context(socket.socket(socket.AF_UNIX))
                client.connect(str(engine.socket))
                client.sendall(head % what)
        assert "busybox" in engine.docker("images", timeout=20)
        assert tar_of(engine, "cp", "aa:/etc/passwd", "-")
        engine.docker("rm", "-f", "aa", timeout=20)


def test_a_start_waits_for_a_copy_of_a_stopped_container(engine: Engine) -> None:
    engine.docker("create", "--name", "aa", "busybox", "cat", "/f")
    writer = subprocess.Popen(["docker", "cp", "-", "aa:/"], stdin=subprocess.PIPE, env=engine.environment)
    assert writer.stdin
    data = tars.archive([tars.file("f", b"whole" * 1_000_000)])
    writer.stdin.write(data[: len(data) // 2])
    writer.stdin.flush()
    until(lambda: "/f" in engine.run("diff", "aa").stdout)
    started: list[str] = []
    thread = threading.Thread(target=lambda: started.append(engine.docker("start", "-a", "aa")))
    thread.start()
    thread.join(0.3)
    assert not started
    writer.stdin.write(data[len(data) // 2 :])
    writer.stdin.close()
    assert writer.wait() == 0
    thread.join()
    assert started == ["whole" * 1_000_000]


def test_export(engine: Engine, box: str, tmp_path: Path) -> None:
    found = names(tar_of(engine, "export", box))
    assert {"d", "d/f", "bin/busybox", "etc/passwd"} <= set(found)
    assert (found["d/f"].uid, found["d/f"].mode) == (5, 0o4755)
    assert found["proc"].isdir()
    assert not any(name.startswith(("proc/", "sys/")) for name in found)
    engine.docker("export", "-o", str(tmp_path / "x.tar"), box)
    engine.docker("import", str(tmp_path / "x.tar"), "again")
    assert engine.docker("run", "--rm", "again", "cat", "/d/f") == "hi"
    engine.docker("rmi", "again")


def test_commit(engine: Engine, box: str) -> None:
    changes = ["-c", "ENV A=b", "-c", 'CMD ["cat", "/d/f"]', "-c", "USER web"]
    image = engine.docker("commit", "-a", "me", "-m", "why", *changes, box, "made:1")
    assert image.startswith("sha256:")
    assert engine.docker("run", "--rm", "made:1") == "hi"
    assert engine.docker("run", "--rm", "made:1", "sh", "-c", "id -un; echo $A") == "web\nb"
    assert engine.docker("inspect", "-f", "{{.Author}} {{.Comment}}", "made:1") == "me why"
    parent = engine.docker("inspect", "-f", "{{.Id}}", "busybox")
    assert engine.docker("inspect", "-f", "{{.Parent}}", "made:1") == parent
    newest = engine.docker("history", "--no-trunc", "--format", "{{.Comment}}|{{.CreatedBy}}", "made:1").splitlines()[0]
    assert newest.startswith("why|sh -c mkdir -p /d/e")
    assert engine.run("rmi", "busybox").returncode == 1
    engine.docker("rm", "-f", box)
    engine.docker("rmi", "made:1")
    assert "made" not in engine.docker("images")


def test_commit_of_nothing_and_its_refusals(engine: Engine) -> None:
    engine.docker("create", "--name", "aa", "busybox", "true")
    engine.docker("commit", "aa", "same")
    layers = "{{len .RootFS.Layers}}"
    assert engine.docker("inspect", "-f", layers, "same") == engine.docker("inspect", "-f", layers, "busybox")
    engine.docker("rmi", "same")
    assert "must be lowercase" in engine.run("commit", "aa", "Bad!").stderr
    assert "FROM is not a valid change command" in engine.run("commit", "-c", "FROM x", "aa").stderr
    assert "No such container: zz" in engine.run("commit", "zz").stderr
    assert engine.api("POST", "/commit")[0] == 400


def test_commit_freezes_what_runs(engine: Engine) -> None:
    loop = "i=0; while :; do i=$((i+1)); echo $i >/a; echo $i >/b; done"
    engine.docker("run", "-d", "--name", "aa", "busybox", "sh", "-c", loop)
    since = f"{time.time():.9f}"
    engine.docker("commit", "aa", "made")
    seen = engine.docker("events", "--since", since, "--until", str(time.time()), "--format", "{{.Action}}").split()
    assert [each for each in seen if each in ("pause", "unpause", "commit")] == ["pause", "unpause", "commit"]
    assert engine.docker("inspect", "-f", "{{.State.Status}}", "aa") == "running"
    engine.docker("commit", "--pause=false", "aa", "made")
    assert engine.docker("inspect", "-f", "{{.State.Status}}", "aa") == "running"
    engine.docker("rm", "-f", "aa")
    engine.docker("rmi", "-f", *engine.docker("images", "-q", "--filter", "dangling=true").split(), "made")


def test_a_privileged_container_with_all_kinds_of_mounts(engine: Engine, tmp_path: Path) -> None:
    """What it has mounted is not trusted; what it was given is there, after a restart of the engine too."""
    (tmp_path / "h").mkdir()
    (tmp_path / "h/f").write_text("host")
    words = ["-v", "vv:/v", "-v", f"{tmp_path / 'h'}:/h:ro", "--tmpfs", "/t", "--privileged", "busybox"]
    engine.docker(
        "run", "-d", "--name", "aa", *words, "sh", "-c", "echo m >/t/f; echo v >/v/f; touch /ready; sleep 1000"
    )
    until(lambda: engine.run("exec", "aa", "test", "-e", "/ready").returncode == 0)
    for _ in range(2):
        found = names(tar_of(engine, "cp", "aa:/v", "-")) | names(tar_of(engine, "cp", "aa:/t", "-"))
        found |= names(tar_of(engine, "cp", "aa:/h", "-"))
        assert {"v/f", "t/f", "h/f"} <= set(found)
        assert cp(engine, str(tmp_path / "h/f"), "aa:/v/new") == ""
        assert cp(engine, str(tmp_path / "h/f"), "aa:/t/new") == ""
        assert "mounted volume is marked read-only" in cp(engine, str(tmp_path / "h/f"), "aa:/h/new")
        assert engine.docker("exec", "aa", "cat", "/v/new", "/t/new") == "hosthost"
        engine.crash()
        engine.start()
    engine.docker("rm", "-f", "aa")
    engine.docker("volume", "rm", "vv")
