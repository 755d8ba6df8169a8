"""What every storage driver must show of the layers it was given."""

from __future__ import annotations

import io
import os
import random
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests import tars
from tests.conformance.drivers import Bench, chain, ingest
from tests.tars import file, folder, hard, link, node
from wherry.errors import InvalidArgument
from wherry.snapshots.drivers.overlay2 import Overlay2

pytestmark = pytest.mark.root

MTIME = 1_234_567_890


def test_one_layer_is_seen_whole(bench: Bench) -> None:
    top = bench.layer("a", "", folder("etc"), file("etc/name", b"hello", mode=0o640, uid=5, gid=6))
    view = bench.view(top)
    state = view.stat("etc/name")
    assert view.read("etc/name") == b"hello"
    assert (stat.S_IMODE(state.st_mode), state.st_uid, state.st_gid) == (0o640, 5, 6)


def test_an_empty_root_can_be_written(bench: Bench) -> None:
    view = bench.view("")
    view.write("new", b"1")
    assert view.names() == ["new"]


def test_an_upper_layer_replaces_a_file(bench: Bench) -> None:
    lower = bench.layer("a", "", file("x", b"old"), file("y", b"kept"))
    view = bench.view(bench.layer("b", lower, file("x", b"new")))
    assert (view.read("x"), view.read("y")) == (b"new", b"kept")


def test_a_chain_of_120_layers(bench: Bench) -> None:
    top = ""
    for number in range(120):
        members = [file(f"f{number}", str(number).encode()), file("last", str(number).encode())]
        if number == 100:
            members.append(file(".wh.f7"))
        top = bench.layer(f"l{number}", top, *members)
    view = bench.view(top)
    assert view.read("last") == b"119"
    assert view.read("f0") == b"0"
    assert not view.has("f7")
    assert len(view.names()) == 120  # 120 files and "last", less the one removed


def test_too_long_a_chain_is_refused(tmp_path: Path) -> None:
    driver = Overlay2(tmp_path / "d")
    top = ""
    for number in range(125):
        ingest(driver, tmp_path / "d", chain(str(number)), top, io.BytesIO(tars.END))
        top = chain(str(number))
    with pytest.raises(InvalidArgument, match="max depth exceeded"):
        ingest(driver, tmp_path / "d", chain("one more"), top, io.BytesIO(tars.END))


def test_a_whiteout_removes_a_file(bench: Bench) -> None:
    lower = bench.layer("a", "", file("gone", b"1"), file("kept", b"2"))
    view = bench.view(bench.layer("b", lower, file(".wh.gone")))
    assert view.names() == ["kept"]


def test_a_whiteout_removes_a_tree(bench: Bench) -> None:
    lower = bench.layer("a", "", folder("d"), folder("d/e"), file("d/e/f", b"1"), file("kept"))
    view = bench.view(bench.layer("b", lower, file(".wh.d")))
    assert view.names() == ["kept"]


def test_a_whiteout_of_nothing_is_harmless(bench: Bench) -> None:
    view = bench.view(bench.layer("a", "", file(".wh.never"), file("x")))
    assert view.names() == ["x"]


def test_a_whiteout_of_a_link_spares_its_target(bench: Bench) -> None:
    lower = bench.layer("a", "", file("target", b"1"), link("name", "target"))
    view = bench.view(bench.layer("b", lower, file(".wh.name")))
    assert view.names() == ["target"]


@pytest.mark.parametrize("order", ["before", "after"])
def test_a_whiteout_spares_what_its_own_layer_makes(bench: Bench, order: str) -> None:
    lower = bench.layer("a", "", folder("d"), file("d/old"))
    own = [folder("d"), file("d/new", b"1")]
    members = [file(".wh.d"), *own] if order == "before" else [*own, file(".wh.d")]
    view = bench.view(bench.layer("b", lower, *members))
    assert view.names("d") == ["new"]


def test_an_opaque_directory_hides_what_is_below(bench: Bench) -> None:
    lower = bench.layer("a", "", folder("d"), file("d/old"), folder("d/sub"), file("d/sub/old"), file("other"))
    top = bench.layer("b", lower, folder("d"), file("d/.wh..wh..opq"), file("d/new"), file("d/sub/new"))
    view = bench.view(top)
    assert view.names() == ["d", "other"]
    assert view.names("d") == ["new", "sub"]
    assert view.names("d/sub") == ["new"]


def test_an_opaque_marker_after_the_content_keeps_the_content(bench: Bench) -> None:
    lower = bench.layer("a", "", folder("d"), file("d/old"))
    view = bench.view(bench.layer("b", lower, folder("d"), file("d/new"), file("d/.wh..wh..opq")))
    assert view.names("d") == ["new"]


def test_an_opaque_root(bench: Bench) -> None:
    lower = bench.layer("a", "", folder("d"), file("d/old"), file("old"))
    view = bench.view(bench.layer("b", lower, file(".wh..wh..opq"), file("new")))
    assert view.names() == ["new"]


def test_something_can_come_back_after_a_whiteout(bench: Bench) -> None:
    first = bench.layer("a", "", folder("d"), file("d/old"))
    second = bench.layer("b", first, file(".wh.d"))
    view = bench.view(bench.layer("c", second, folder("d"), file("d/new")))
    assert view.names("d") == ["new"]


def test_a_directory_is_replaced_by_a_file_and_back(bench: Bench) -> None:
    first = bench.layer("a", "", folder("x"), file("x/inside"))
    second = bench.layer("b", first, file("x", b"a file now"))
    assert bench.view(second).read("x") == b"a file now"
    view = bench.view(bench.layer("c", second, folder("x"), file("x/again")))
    assert view.names("x") == ["again"]


def test_a_directory_is_replaced_by_a_link(bench: Bench) -> None:
    lower = bench.layer("a", "", folder("lib"), file("lib/x"), folder("usr"), folder("usr/lib"), file("usr/lib/y"))
    view = bench.view(bench.layer("b", lower, link("lib", "usr/lib")))
    assert os.readlink(view.path("lib")) == "usr/lib"


def test_an_entry_repeated_in_a_layer_counts_once_and_last(bench: Bench) -> None:
    top = bench.layer("a", "", file("x", b"first, longer"), file("x", b"last"))
    assert bench.view(top).read("x") == b"last"
    assert bench.driver.usage(top).size == 4


def test_hard_links_stay_links(bench: Bench) -> None:
    top = bench.layer("a", "", folder("d"), file("d/one", b"x"), hard("two", "d/one"), hard("d/three", "./d/one"))
    first = bench.view(top)
    assert first.stat("two").st_nlink == 3
    assert first.stat("two").st_ino == first.stat("d/three").st_ino
    assert bench.driver.usage(top).size == 1


def test_a_hard_link_may_repeat_the_size_of_its_target(bench: Bench) -> None:
    """Without its data: some writers do, and Docker reads it so."""
    content = tars.header(b"one", size=5) + tars.padded(b"12345")
    content += tars.header(b"two", size=5, kind=b"1", link=b"one") + tars.header(b"three") + tars.END
    bench.ingest(chain("a"), "", io.BytesIO(content))
    view = bench.view(chain("a"))
    assert (view.read("two"), view.names()) == (b"12345", ["one", "three", "two"])


def test_extended_attributes(bench: Bench) -> None:
    capability = "\x01\x00\x00\x02\x00\x04" + "\x00" * 14
    members = [
        file("f", b"1", xattrs={"user.a": "value", "security.capability": capability}),
        folder("d", xattrs={"user.b": "of a folder"}),
    ]
    view = bench.view(bench.layer("a", "", *members))
    assert os.getxattr(view.path("f"), "user.a") == b"value"
    assert os.getxattr(view.path("f"), "security.capability") == capability.encode()
    assert os.getxattr(view.path("d"), "user.b") == b"of a folder"


def test_attributes_that_speak_to_overlayfs_are_dropped(bench: Bench) -> None:
    hostile = {"trusted.overlay.redirect": "/etc", "trusted.overlay.opaque": "y", "user.overlay.opaque": "y"}
    lower = bench.layer("a", "", folder("d"), file("d/seen"))
    top = bench.layer("b", lower, folder("d", xattrs=hostile), file("f", xattrs=hostile))
    view = bench.view(top)
    assert view.names("d") == ["seen"]
    for name in ("d", "f"):
        path = bench.root_of(top) / name
        assert [each for each in os.listxattr(path) if "overlay" in each] == []


def test_device_nodes_and_fifos(bench: Bench) -> None:
    top = bench.layer(
        "a", "", node("null", tarfile.CHRTYPE, 1, 3, mode=0o666), node("disk", tarfile.BLKTYPE, 8, 0),
        node("pipe", tarfile.FIFOTYPE, mode=0o600),
    )  # fmt: skip
    view = bench.view(top)
    null = view.stat("null")
    assert (stat.S_IFMT(null.st_mode), stat.S_IMODE(null.st_mode)) == (stat.S_IFCHR, 0o666)
    assert null.st_rdev == os.makedev(1, 3)
    assert (stat.S_ISBLK(view.stat("disk").st_mode), view.stat("disk").st_rdev) == (True, os.makedev(8, 0))
    assert stat.S_ISFIFO(view.stat("pipe").st_mode)


def test_sockets_of_a_container_survive(bench: Bench) -> None:
    """A tar has no sockets; a container makes them, and usage and removal must cope."""
    view = bench.view("", key="own")
    os.mknod(view.path("socket"), stat.S_IFSOCK | 0o600)
    assert bench.driver.usage("own").inodes == 1


def test_long_and_strange_names(bench: Bench) -> None:
    deep = "/".join(["d" * 200] * 10)
    odd = [b"\xff\xfe", "ünïcödé".encode(), b"new\nline", b" blank ", b"back\\slash", b"quote'\"", b"x" * 255]
    names = [os.fsdecode(each) for each in odd]
    view = bench.view(bench.layer("a", "", file(f"{deep}/leaf", b"1"), *(file(name, b"2") for name in names)))
    assert view.read(f"{deep}/leaf") == b"1"
    assert set(view.names()) == {*names, "d" * 200}


def test_times_to_the_nanosecond(bench: Bench) -> None:
    exact = {"mtime": f"{MTIME}.123456789"}
    members = []
    for info, data in (folder("d"), file("d/f", b"1"), link("d/l", "f"), folder("d/e"), file("d/e/g")):
        info.pax_headers.update(exact)
        members.append((info, data))
    view = bench.view(bench.layer("a", "", *members))
    for name in ("d", "d/f", "d/l", "d/e", "d/e/g"):
        assert view.stat(name).st_mtime_ns == MTIME * 1_000_000_000 + 123_456_789, name


def test_special_modes_survive_a_change_of_owner(bench: Bench) -> None:
    top = bench.layer(
        "a", "", file("su", b"1", mode=0o4755, uid=10, gid=10), folder("sticky", mode=0o1777),
        folder("sgid", mode=0o2775, gid=50), file("sgid/inside", gid=0), file("none", mode=0),
    )  # fmt: skip
    view = bench.view(top)
    assert stat.S_IMODE(view.stat("su").st_mode) == 0o4755
    assert stat.S_IMODE(view.stat("sticky").st_mode) == 0o1777
    assert stat.S_IMODE(view.stat("sgid").st_mode) == 0o2775
    assert view.stat("sgid/inside").st_gid == 0
    assert stat.S_IMODE(view.stat("none").st_mode) == 0


def test_sparse_files_stay_sparse(bench: Bench, tmp_path: Path) -> None:
    source = tmp_path / "sparse"
    with open(source, "wb") as sparse:
        sparse.write(b"start")
        sparse.seek(64 << 20)
        sparse.write(b"middle")
        sparse.truncate(256 << 20)
    made = {}
    for form in ("gnu", "posix"):
        command = ["tar", "--sparse", f"--format={form}", "-C", str(tmp_path), "-cf", "-", "sparse"]
        made[form] = subprocess.run(command, capture_output=True, check=True).stdout
    for form, content in made.items():
        bench.ingest(chain(form), "", io.BytesIO(content))
        view = bench.view(chain(form))
        state = view.stat("sparse")
        assert state.st_size == 256 << 20
        with open(view.path("sparse"), "rb") as copy:
            assert os.lseek(copy.fileno(), 1 << 20, os.SEEK_DATA) == 64 << 20
            assert os.lseek(copy.fileno(), 0, os.SEEK_HOLE) <= 1 << 20
            copy.seek(0)
            assert copy.read(5) == b"start"
            copy.seek(64 << 20)
            assert copy.read(7) == b"middle\0"
        os.chmod(view.path("sparse"), 0o600)  # copied up
        assert view.stat("sparse").st_blocks * 512 < 4 << 20


def test_what_gnu_tar_writes_comes_out_the_same(bench: Bench, tmp_path: Path) -> None:
    source = tmp_path / "source"
    _random_tree(source, random.Random(7))
    for form in ("gnu", "ustar", "posix", "v7"):
        command = ["tar", f"--format={form}", "-C", str(source), "-cf", "-", "."]
        content = subprocess.run(command, capture_output=True, check=True).stdout
        bench.ingest(chain(form), "", io.BytesIO(content))
        view = bench.view(chain(form))
        # diff follows the kernel's own view of both trees
        subprocess.run(["diff", "-r", "--no-dereference", str(source), view.path("")], check=True, pass_fds=[view.fd])
        for folder_name, _, names in os.walk(source):
            for name in names:
                relative = os.path.relpath(os.path.join(folder_name, name), source)
                wanted, found = os.lstat(source / relative), view.stat(relative)
                assert (wanted.st_mode, wanted.st_size) == (found.st_mode, found.st_size), relative


def _random_tree(root: Path, rng: random.Random) -> None:
    folders = [root]
    root.mkdir()
    for number in range(200):
        place = rng.choice(folders)
        kind = rng.randrange(4)
        if kind == 0 and len(folders) < 30:
            folders.append(place / f"d{number}")
            folders[-1].mkdir()
        elif kind == 1:
            (place / f"l{number}").symlink_to(rng.choice(["../x", "/etc/passwd", "nowhere"]))
        else:
            (place / f"f{number}").write_bytes(rng.randbytes(rng.choice([0, 1, 511, 512, 513, 5000])))
            (place / f"f{number}").chmod(rng.choice([0o600, 0o644, 0o755, 0o4755]))


def test_a_layer_without_its_root_keeps_the_root_below(bench: Bench) -> None:
    lower = bench.layer("a", "", folder(".", mode=0o751, uid=3, gid=4), file("x"))
    view = bench.view(bench.layer("b", lower, file("y")))
    state = view.stat(".")
    assert (stat.S_IMODE(state.st_mode), state.st_uid, state.st_gid) == (0o751, 3, 4)


def test_writes_of_a_container_touch_no_layer(bench: Bench) -> None:
    top = bench.layer("a", "", file("x", b"layer"), folder("d"), file("d/y", b"layer"))
    first = bench.view(top, key="one")
    first.write("x", b"changed")
    os.unlink(first.path("d/y"))
    os.rmdir(first.path("d"))
    second = bench.view(top, key="two")
    assert (second.read("x"), second.read("d/y")) == (b"layer", b"layer")
    assert first.names() == ["x"]


def test_a_container_can_replace_a_file_and_a_directory_of_a_layer(bench: Bench) -> None:
    """Copy-up, whiteout and opaque directory in one: what package managers do."""
    view = bench.view(bench.layer("a", "", folder("d"), file("d/y", b"layer"), file("x", b"layer")))
    os.rename(view.path("x"), view.path("z"))
    os.unlink(view.path("d/y"))
    os.rmdir(view.path("d"))
    os.mkdir(view.path("d"))
    assert (view.names(), view.names("d"), view.read("z")) == (["d", "z"], [], b"layer")
