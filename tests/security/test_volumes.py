"""Volumes in hostile hands: names that change while they are looked up, and images that want to be copied elsewhere."""

import contextlib
import io
import json
import os
import stat
import tarfile
import threading
from collections import Counter
from pathlib import Path

import pytest

from tests.engine import Engine, busybox_tar
from tests.volumes import Requests, remove_volumes
from wherry.kernel.fsio.copy import copy_tree
from wherry.runtime.ops_volumes import OpenParts
from wherry.runtime.setup import Setup, SetupError

pytestmark = [pytest.mark.root]

ROUNDS = 1000
SWAPS = 30
"""Rounds through the whole engine; the thousand are of the step that decides."""


def open_directory(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def swap(volume: Path, stop: threading.Event) -> None:
    """Replace the directory `part` by a link that leads out, and back, as fast as it goes."""
    while not stop.is_set():
        os.rename(volume / "part", volume / "aside")
        os.symlink("/etc", volume / "part")
        os.unlink(volume / "part")
        os.symlink("../outside", volume / "part")
        os.unlink(volume / "part")
        os.rename(volume / "aside", volume / "part")


@contextlib.contextmanager
def swapping(volume: Path):
    stop = threading.Event()
    thread = threading.Thread(target=swap, args=(volume, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    inside = tmp_path / "volume"
    (inside / "part").mkdir(parents=True)
    (inside / "part" / "mine").touch()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").touch()
    return inside


def test_a_part_that_is_swapped_while_it_is_opened_is_never_outside(volume: Path):
    """CVE-2021-30465: each round mounts the part or is refused; what is mounted is the volume's own."""
    found, refused, rounds = 0, Counter[str](), 0
    with swapping(volume):
        # On a busy machine the other side may not get a turn in the first rounds.
        while rounds < ROUNDS or (not (found and refused) and rounds < 20 * ROUNDS):
            rounds += 1
            setup = Setup(None, {}, None)  # type: ignore[arg-type]
            try:
                OpenParts(((1, str(volume), "part"),)).run(setup)
            except SetupError as error:
                refused[error.message.partition(" /")[0].partition(",")[0]] += 1
                continue
            tree = setup.sources[1]
            try:
                listed = os.listdir(f"/proc/self/fd/{tree}")
            finally:
                os.close(tree)
            assert listed == ["mine"]
            found += 1
    assert set(refused) <= {"cannot access path", "path concatenation escapes the base directory"}
    assert found + refused.total() == rounds
    assert found > 0
    assert refused.total() > 0


@pytest.mark.engine
def test_a_container_that_swaps_a_part_while_others_start_gains_nothing(engine: Engine):
    engine.docker("volume", "create", "vv")
    place = engine.data_root / "volumes" / "vv" / "_data"
    (place / "part").mkdir()
    (place / "part" / "mine").touch()
    mount = {"Type": "volume", "Source": "vv", "Target": "/x", "VolumeOptions": {"Subpath": "part", "NoCopy": True}}
    body = {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"Mounts": [mount], "NetworkMode": "none"}}
    seen = set()
    with contextlib.closing(Requests(engine)) as request, swapping(place):
        for _ in range(SWAPS):
            made = json.loads(request("POST", "/containers/create", body)[1])["Id"]
            status, text = request("POST", f"/containers/{made}/start")
            if status == 204:
                pid = json.loads(request("GET", f"/containers/{made}/json")[1])["State"]["Pid"]
                seen |= set(os.listdir(f"/proc/{pid}/root/x"))
            else:
                assert status == 500, text
            assert request("DELETE", f"/containers/{made}?force=1")[0] == 204
    assert seen <= {"mine"}
    remove_volumes(engine)


def test_a_copy_into_a_directory_that_changes_touches_nothing_else(tmp_path: Path):
    """Hard links, modes and owners are set through descriptors of what was made, never through a link put there."""
    source, outside = tmp_path / "source", tmp_path / "outside"
    (source / "part").mkdir(parents=True)
    (source / "part" / "f").write_text("new")
    (source / "part" / "f").chmod(0o777)
    os.link(source / "part" / "f", source / "z")
    os.mkfifo(source / "part" / "fifo")
    os.chmod(source / "part" / "fifo", 0o777)
    outside.mkdir()
    for name in ("f", "fifo", "z"):
        (outside / name).write_text("old")
        (outside / name).chmod(0o600)
    for number in range(60):
        target = tmp_path / f"target{number}"
        target.mkdir()
        stop = threading.Event()
        thread = threading.Thread(target=_divert, args=(target, outside, stop))
        thread.start()
        try:
            from_fd, to_fd = open_directory(source), open_directory(target)
            try:
                with contextlib.suppress(OSError):
                    copy_tree(from_fd, to_fd)
            finally:
                os.close(from_fd)
                os.close(to_fd)
        finally:
            stop.set()
            thread.join()
        for name in ("f", "fifo", "z"):
            state = (outside / name).lstat()
            assert (stat.S_IMODE(state.st_mode), state.st_nlink) == (0o600, 1)
            assert (outside / name).read_text() == "old"


def _divert(target: Path, outside: Path, stop: threading.Event) -> None:
    """Put a link to the outside in place of the directory, and of the FIFO in it, whenever they are there."""
    while not stop.is_set():
        with contextlib.suppress(OSError):
            part = os.open(target / "part", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                os.rename("fifo", "was-fifo", src_dir_fd=part, dst_dir_fd=part)
                os.symlink(outside / "fifo", "fifo", dir_fd=part)
            finally:
                os.close(part)
                os.rename(target / "part", target / "was-part")
                os.symlink(outside, target / "part")


@pytest.mark.engine
def test_an_image_of_links_sockets_and_devices_is_copied_as_it_is(engine: Engine):
    buffer = io.BytesIO(busybox_tar())
    with tarfile.open(fileobj=buffer, mode="a") as tar:
        for name, kind, link in (
            ("evil", tarfile.DIRTYPE, ""),
            ("evil/passwd", tarfile.SYMTYPE, "/etc/passwd"),
            ("evil/up", tarfile.SYMTYPE, "../../../../../../.."),
            ("evil/disk", tarfile.BLKTYPE, ""),
            ("loop", tarfile.SYMTYPE, "/loop"),
            ("proc/self", tarfile.SYMTYPE, "/etc"),
            ("magic", tarfile.SYMTYPE, "/proc/self/root/etc"),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.mode = kind, link, 0o777
            entry.devmajor, entry.devminor = 8, 0
            tar.addfile(entry)
    engine.docker("import", "-c", "CMD true", "-", "evil", input=buffer.getvalue())
    engine.docker("create", "-v", "vv:/evil", "evil")
    place = engine.data_root / "volumes" / "vv" / "_data"
    assert os.readlink(place / "passwd") == "/etc/passwd"
    assert stat.S_ISBLK((place / "disk").lstat().st_mode)
    assert sorted(os.listdir(place)) == ["disk", "passwd", "up"]
    assert engine.run("create", "-v", "ww:/loop/x", "evil").returncode == 1
    engine.docker("create", "-v", "xx:/magic", "evil")
    assert os.listdir(engine.data_root / "volumes" / "xx" / "_data") == []
    assert engine.run("run", "--rm", "-v", "vv:/evil", "evil", "cat", "/evil/disk").returncode != 0
    remove_volumes(engine)
