"""What the image has at a volume's place is copied into an empty volume, once, and as it is."""

import json
import os
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.engine import Engine
from tests.volumes import EARLY, content_image, remove_volumes

pytestmark = [pytest.mark.root, pytest.mark.engine]


@pytest.fixture(autouse=True)
def _no_volume_stays(engine: Engine):
    yield
    remove_volumes(engine)


@pytest.fixture(scope="module")
def full(shared_engine: Engine) -> str:
    links = {"out": "../../../../etc", "lnk": "/data", "dangling": "/nosuch/place"}
    return content_image(shared_engine, "full", extra=links)


def data(engine: Engine, name: str) -> Path:
    return engine.data_root / "volumes" / name / "_data"


def test_create_copies_owners_modes_links_nodes_and_times(engine: Engine, full: str):
    engine.docker("create", "-v", "vv:/data", full)
    place = data(engine, "vv")
    assert sorted(os.listdir(place)) == ["f", "fifo", "hard", "null", "soft", "sub"]
    state = place.stat()
    assert (stat.S_IMODE(state.st_mode), state.st_uid, state.st_gid) == (0o1770, 5, 6)
    state = (place / "f").stat()
    assert (stat.S_IMODE(state.st_mode), state.st_nlink, state.st_mtime) == (0o4755, 2, EARLY)
    assert os.readlink(place / "soft") == "/etc/passwd"
    assert stat.S_ISFIFO((place / "fifo").lstat().st_mode)
    state = (place / "null").lstat()
    assert (stat.S_ISCHR(state.st_mode), state.st_rdev) == (True, os.makedev(1, 3))
    state = (place / "sub").stat()
    assert (stat.S_IMODE(state.st_mode), state.st_uid, state.st_mtime) == (0o700, 7, EARLY)
    assert (place / "sub" / "g").read_text() == "g"


def test_extended_attributes_and_holes_are_kept(engine: Engine):
    script = "dd if=/dev/zero of=/big/f bs=1 count=1 seek=200G 2>/dev/null; mkdir /big/d"
    assert engine.docker("run", "--name", "aa", "--tmpfs", "/x", "busybox", "sh", "-c", f"mkdir /big; {script}") == ""
    upper = Path(json.loads(engine.docker("inspect", "-f", "{{json .GraphDriver.Data}}", "aa"))["UpperDir"])
    os.setxattr(upper / "big" / "f", "user.note", b"kept")
    os.setxattr(upper / "big" / "d", "security.capability", b"\x01\x00\x00\x02" + b"\x00" * 16)
    tar = subprocess.run(
        ["tar", "--xattrs", "--xattrs-include=*", "--sparse", "-C", upper, "-c", "big"], capture_output=True, check=True
    ).stdout
    engine.docker("import", "-c", "CMD true", "-", "sparse", input=tar)
    engine.docker("create", "-v", "vv:/big", "sparse")
    copied = data(engine, "vv")
    assert (copied / "f").stat().st_size == 200 * (1 << 30) + 1
    assert (copied / "f").stat().st_blocks < 1024
    assert os.getxattr(copied / "f", "user.note") == b"kept"


def test_an_empty_directory_gives_its_owner_and_a_full_volume_keeps_its_own(engine: Engine, full: str):
    shape = ("stat", "-c", "%a %u:%g", "/owned")
    assert engine.docker("run", "--rm", "-v", "vv:/owned", full, *shape) == "700 7:8"
    engine.docker("run", "--rm", "-v", "ww:/x", full, "touch", "/x/file")
    assert engine.docker("run", "--rm", "-v", "ww:/owned", full, *shape) == "755 0:0"
    assert engine.docker("run", "--rm", "-v", "ww:/data", full, "ls", "/data") == "file"


def test_a_volume_is_filled_once(engine: Engine, full: str):
    engine.docker("run", "--rm", "-v", "vv:/data", full, "sh", "-c", "rm -rf /data/* && touch /data/mine")
    assert engine.docker("run", "--rm", "-v", "vv:/data", full, "ls", "/data") == "mine"


@pytest.mark.parametrize(
    "words",
    [
        ("-v", "vv:/data:nocopy"),
        ("--mount", "type=volume,src=vv,dst=/data,volume-nocopy"),
        ("-v", "vv:/nothing/there"),
        ("-v", "vv:/dangling"),
    ],
)
def test_nothing_is_copied_when_unwanted_or_not_there(engine: Engine, full: str, words):
    engine.docker("create", *words, full)
    assert os.listdir(data(engine, "vv")) == []
    assert data(engine, "vv").stat().st_uid == 0


def test_a_read_only_volume_and_an_unnamed_one_are_filled_too(engine: Engine, full: str):
    assert "f" in engine.docker("run", "--rm", "-v", "vv:/data:ro", full, "ls", "/data").split()
    assert "f" in engine.docker("run", "--rm", "-v", "/data", full, "ls", "/data").split()


def test_links_of_the_image_are_followed_within_it_only(engine: Engine, full: str):
    engine.docker("create", "-v", "vv:/out", "-v", "ww:/lnk", full)
    assert sorted(os.listdir(data(engine, "vv"))) == ["group", "passwd"]
    assert "web:x:1000" in (data(engine, "vv") / "passwd").read_text()
    assert "f" in os.listdir(data(engine, "ww"))


def test_a_volume_in_use_is_filled_by_whole_entries(engine: Engine, full: str):
    engine.docker("run", "-d", "--name", "aa", "-v", "vv:/x", "busybox", "sleep", "1000")
    engine.docker("create", "-v", "vv:/data", full)
    assert engine.docker("exec", "aa", "cat", "/x/sub/g") == "g"
    assert os.listdir(data(engine, "vv").parent) == ["_data"]


def test_containers_made_at_once_see_one_whole_volume(engine: Engine, full: str):
    def make(number: int) -> str:
        return engine.docker("run", "--rm", "-v", "vv:/data", full, "sh", "-c", "ls /data | wc -l; cat /data/sub/g")

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(make, range(16))) == {"6\ng"}


def test_a_part_of_a_volume(engine: Engine, full: str):
    engine.docker(
        "run", "--rm", "-v", "vv:/v", "busybox", "sh", "-c", "mkdir -p /v/a/b; echo 1 > /v/a/b/f; ln -s a /v/l"
    )
    mount = "type=volume,src=vv,dst=/x,volume-subpath="
    assert engine.docker("run", "--rm", "--mount", f"{mount}a/b", "busybox", "cat", "/x/f") == "1"
    assert engine.docker("run", "--rm", "--mount", f"{mount}l/b", "busybox", "cat", "/x/f") == "1"
    assert engine.docker("run", "--rm", "--mount", f"{mount}a/b/f", "busybox", "cat", "/x") == "1"
    missing = engine.run("run", "--rm", "--mount", f"{mount}no/where", "busybox", "true")
    assert "_data/no/where: no such file or directory" in missing.stderr
    assert "docker: Error response from daemon: cannot access path " in missing.stderr
    engine.docker("run", "--rm", "-v", "vv:/v", "busybox", "sh", "-c", "ln -s /etc /v/abs; ln -s ../.. /v/up")
    for link in ("abs", "up", "up/up"):
        ran = engine.run("run", "--rm", "--mount", f"{mount}{link}", "busybox", "ls", "/x")
        assert ran.returncode == 125, ran.stdout
        assert "path concatenation escapes the base directory" in ran.stderr
    engine.docker("run", "--rm", "-v", "vv:/v", "busybox", "mkdir", "/v/empty")
    engine.docker("create", "--mount", "type=volume,src=vv,dst=/data,volume-subpath=empty", full)
    assert (data(engine, "vv") / "empty" / "sub" / "g").read_text() == "g"


def test_cp_reaches_volumes_of_stopped_and_running_containers(engine: Engine, tmp_path: Path):
    (tmp_path / "in").write_text("copied")
    engine.docker("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "memory")
    engine.docker("run", "--rm", "-v", "vv:/v", "busybox", "mkdir", "-p", "/v/a")
    part = "type=volume,src=vv,dst=/part,volume-subpath=a"
    words = ("-v", "vv:/v", "--mount", part, "-v", "memory:/m", "-v", "vv:/ro:ro", "busybox", "sleep", "1000")
    engine.docker("create", "--name", "aa", *words)
    for name in ("stopped", "running"):
        engine.docker("cp", str(tmp_path / "in"), f"aa:/v/{name}")
        engine.docker("cp", str(tmp_path / "in"), f"aa:/part/{name}")
        assert (data(engine, "vv") / name).read_text() == "copied"
        assert (data(engine, "vv") / "a" / name).read_text() == "copied"
        assert "marked read-only" in engine.run("cp", str(tmp_path / "in"), "aa:/ro/x").stderr
        engine.docker("start", "aa")
    engine.docker("cp", str(tmp_path / "in"), "aa:/m/f")
    assert engine.docker("exec", "aa", "cat", "/m/f") == "copied"
    engine.docker("cp", "aa:/m/f", str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "copied"
    assert os.listdir(data(engine, "memory")) == []


# ---- driver options


def test_a_directory_of_the_host_as_a_volume(engine: Engine, full: str, tmp_path: Path):
    engine.docker("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", f"device={tmp_path}", "vv")
    engine.docker("run", "--rm", "-v", "vv:/data", full, "touch", "/data/new")
    assert sorted(os.listdir(tmp_path)) == ["f", "fifo", "hard", "new", "null", "soft", "sub"]
    assert os.listdir(data(engine, "vv")) == []
    engine.docker("volume", "rm", "vv")
    assert (tmp_path / "new").exists()


def test_a_directory_of_the_host_that_is_missing(engine: Engine):
    engine.docker("volume", "create", "-o", "type=none", "-o", "o=bind,ro", "-o", "device=/nosuch/place", "vv")
    place = data(engine, "vv")
    ran = engine.run("run", "--rm", "-v", "vv:/x:nocopy", "busybox", "true")
    assert ran.returncode == 127  # the docker CLI makes that of "no such file or directory"
    sentence = f"error while mounting volume '{place}': failed to mount local volume: mount /nosuch/place:{place}"
    assert f"{sentence}, flags: 0x1001: no such file or directory" in ran.stderr
    assert engine.docker("ps", "-aq") == ""


def test_a_tmpfs_volume_is_one_for_all_who_have_it_and_ends_with_the_last(engine: Engine):
    options = ("-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,uid=5,mode=0700,noexec")
    engine.docker("volume", "create", *options, "vv")
    shape = "grep -o ' /x rw[a-z,]*' /proc/self/mountinfo; df -k /x | awk 'NR>1{print $2}'; stat -c %a,%u /x"
    assert engine.docker("run", "--rm", "-v", "vv:/x", "busybox", "sh", "-c", shape).split("\n") == [
        " /x rw,noexec,relatime",
        "1024",
        "700,5",
    ]
    engine.docker("run", "-d", "--name", "aa", "-v", "vv:/a", "busybox", "sh", "-c", "echo 1 > /a/f; sleep 1000")
    engine.docker("run", "-d", "--name", "bb", "-v", "vv:/b", "busybox", "sh", "-c", "cat /b/f > /b/g; sleep 1000")
    engine.docker("rm", "-f", "aa")
    assert engine.docker("run", "--rm", "-v", "vv:/x", "busybox", "cat", "/x/f", "/x/g") == "1\n1"
    assert str(engine.data_root) not in Path("/proc/self/mountinfo").read_text()
    engine.docker("rm", "-f", "bb")
    assert engine.docker("run", "--rm", "-v", "vv:/x", "busybox", "ls", "/x") == ""
    assert os.listdir(data(engine, "vv")) == []


def test_a_tmpfs_volume_is_found_again_after_a_crash(own_engine: Engine):
    own_engine.start()
    own_engine.import_busybox()
    own_engine.docker("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "vv")
    own_engine.docker("run", "-d", "--name", "aa", "-v", "vv:/a", "busybox", "sh", "-c", "echo 1 > /a/f; sleep 1000")
    own_engine.crash()
    own_engine.start()
    assert own_engine.docker("run", "--rm", "-v", "vv:/x", "busybox", "cat", "/x/f") == "1"
    own_engine.docker("rm", "-f", "aa")
    assert str(own_engine.data_root) not in Path("/proc/self/mountinfo").read_text()
    assert own_engine.docker("run", "--rm", "-v", "vv:/x", "busybox", "ls", "/x") == ""


def test_a_file_system_that_the_kernel_lacks_is_told_in_dockerds_words(engine: Engine):
    options = ("-o", "type=nosuchfs", "-o", "device=:/x", "-o", "o=addr=127.0.0.1,nolock")
    engine.docker("volume", "create", *options, "vv")
    ran = engine.run("run", "--rm", "-v", "vv:/x", "busybox", "true")
    place = data(engine, "vv")
    sentence = f"failed to mount local volume: mount :/x:{place}, data: addr=127.0.0.1,nolock: no such device"
    assert f"Error response from daemon: error while mounting volume '{place}': {sentence}" in ran.stderr
    assert engine.docker("ps", "-aq") == ""


def test_the_server_of_a_network_file_system_is_looked_up(engine: Engine):
    engine.docker("volume", "create", "-o", "type=nfs", "-o", "device=:/x", "-o", "o=addr=localhost,nolock", "vv")
    ran = engine.run("run", "--rm", "-v", "vv:/x", "busybox", "true")
    assert ", data: addr=127.0.0.1,nolock: " in ran.stderr
    engine.docker("volume", "create", "-o", "type=nfs", "-o", "device=:/x", "-o", "o=addr=nosuch.invalid", "ww")
    ran = engine.run("run", "--rm", "-v", "ww:/x", "busybox", "true")
    place = engine.data_root / "volumes" / "ww" / "_data"
    assert f"error while mounting volume '{place}': error resolving passed in network volume address: " in ran.stderr
    assert "lookup nosuch.invalid: " in ran.stderr


def test_a_mount_can_make_a_volume_with_options_and_labels(engine: Engine):
    mount = "type=volume,src=vv,dst=/x,volume-label=a=b,volume-opt=type=tmpfs,volume-opt=device=tmpfs"
    engine.docker("create", "--mount", mount, "busybox", "true")
    found = json.loads(engine.docker("volume", "inspect", "vv"))[0]
    assert (found["Labels"], found["Options"]) == ({"a": "b"}, {"type": "tmpfs", "device": "tmpfs"})
