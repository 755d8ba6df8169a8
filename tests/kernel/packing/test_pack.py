"""Trees to tars: what is in the archive is what is on the disk, whatever the tree does."""

from __future__ import annotations

import io
import os
import socket
import tarfile
import threading
import time
from pathlib import Path

import pytest

from wherry.packing.pack import OPEN, Packer
from wherry.packing.unpack import Unpacker

pytestmark = pytest.mark.root


def packed(tree: Path, name: bytes = b"", *, itself: bool = False) -> bytes:
    root = os.open(tree, os.O_RDONLY)
    try:
        packer = Packer(root)
        return b"".join([*packer.tree("", name, itself=itself), *packer.end()])
    finally:
        os.close(root)


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name: member for member in archive}


def test_every_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir(mode=0o750)
    (tmp_path / "d/f").write_bytes(b"data" * 1000)
    os.chown(tmp_path / "d/f", 70_000, 3_000_000)
    os.chmod(tmp_path / "d/f", 0o4711)
    os.setxattr(tmp_path / "d/f", "user.note", b"\0\xff")
    os.link(tmp_path / "d/f", tmp_path / "hard")
    os.symlink("../nowhere", tmp_path / "d/sym")
    os.mkfifo(tmp_path / "fifo")
    os.mknod(tmp_path / "null", 0o020666, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    os.utime(tmp_path / "d/f", ns=(0, 1_234_567_890_999_999_999))
    found = members(packed(tmp_path))
    assert sorted(found) == ["d", "d/f", "d/sym", "fifo", "hard", "null"]
    file = found["d/f"]
    assert (file.mode, file.uid, file.gid, file.size, file.mtime) == (0o4711, 70_000, 3_000_000, 4000, 1_234_567_890)
    assert "SCHILY.xattr.user.note" in file.pax_headers
    assert (found["hard"].type, found["hard"].linkname) == (tarfile.LNKTYPE, "d/f")
    assert found["d/sym"].linkname == "../nowhere"
    assert found["null"].ischr()
    assert found["fifo"].isfifo()


def test_there_and_back(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    (source / "x/y").mkdir(parents=True)
    target.mkdir()
    (source / "x/y/f").write_bytes(os.urandom(3_000_001))
    os.setxattr(source / "x/y/f", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    os.symlink("f", source / "x/y/l")
    os.chmod(source / "x", 0o2770)
    root = os.open(target, os.O_RDONLY)
    Unpacker(root).run(io.BytesIO(packed(source)))
    os.close(root)
    assert (target / "x/y/f").read_bytes() == (source / "x/y/f").read_bytes()
    assert os.getxattr(target / "x/y/f", "security.capability") == os.getxattr(source / "x/y/f", "security.capability")
    assert (target / "x").stat().st_mode == (source / "x").stat().st_mode
    assert os.readlink(target / "x/y/l") == "f"


def test_deeper_than_descriptors_are_held(tmp_path: Path) -> None:
    depth = OPEN * 3
    deep = tmp_path
    for _ in range(depth):
        deep = deep / "d"
        deep.mkdir()
        (deep / "e").touch()
        (deep / "z").touch()
    before = len(os.listdir("/proc/self/fd"))
    found = members(packed(tmp_path))
    assert len(found) == 3 * depth
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_generator_that_is_not_read_to_the_end_keeps_no_descriptor(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_bytes(bytes(10 << 20))
    before = os.listdir("/proc/self/fd")
    root = os.open(tmp_path, os.O_RDONLY)
    chunks = iter(Packer(root).tree("", b""))
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]
    os.close(root)
    assert os.listdir("/proc/self/fd") == before


def test_what_speaks_to_overlayfs_stays_behind(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    os.setxattr(tmp_path / "f", "trusted.overlay.opaque", b"y")
    os.setxattr(tmp_path / "f", "user.overlay.opaque", b"y")
    assert not members(packed(tmp_path))["f"].pax_headers


def test_a_link_in_the_place_of_a_directory_leads_nowhere(tmp_path: Path) -> None:
    outside, tree = tmp_path / "outside", tmp_path / "tree"
    outside.mkdir()
    tree.mkdir()
    (outside / "secret").write_text("no")
    (tree / "d").mkdir()
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.rename(tree / "d", tree / "e")
            os.symlink(outside, tree / "d")
            os.unlink(tree / "d")
            os.rename(tree / "e", tree / "d")

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        deadline = time.monotonic() + 1
        rounds = 0
        while time.monotonic() < deadline or rounds < 1000:
            assert not any("secret" in name for name in members(packed(tree)))
            rounds += 1
    finally:
        stop.set()
        thread.join()


def test_a_file_that_changes_its_size_keeps_the_archive_whole(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(4 << 20))
    (tmp_path / "g").write_bytes(b"after")
    root = os.open(tmp_path, os.O_RDONLY)
    packer = Packer(root)
    chunks = iter(packer.tree("", b""))
    data = next(chunks)
    os.truncate(tmp_path / "f", 5)
    data += b"".join([*chunks, *packer.end()])
    os.close(root)
    assert members(data)["f"].size == 4 << 20
    assert members(data)["g"].size == 5
