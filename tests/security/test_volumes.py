"""Volumes in hostile hands: directories that change while they are copied into, and images of strange things: FS-10."""

import contextlib
import io
import os
import stat
import tarfile
import threading
from pathlib import Path

import pytest

from tests.engine import Engine, busybox_tar
from tests.volumes import remove_volumes
from wherry.kernel.fsio.copy import copy_tree

pytestmark = [pytest.mark.root]


def open_directory(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def test_a_copy_into_a_directory_that_changes_touches_nothing_else(tmp_path: Path):
    """FS-10: hard links, modes and owners are set through descriptors of what was made, never through a link."""
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
