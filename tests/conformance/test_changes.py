"""docker diff, of every storage driver."""

import os
import shutil

import pytest

from tests.conformance.drivers import Bench
from tests.tars import file, folder, link
from tests.trash import settle
from wherry.snapshots.changes import ADDED, DELETED, MODIFIED

pytestmark = pytest.mark.root

KEY = "own"


def image(bench: Bench) -> str:
    below = bench.layer(
        "a", "", folder("etc"), file("etc/old", b"1"), file("etc/kept", b"2"), folder("lib"), folder("lib/deep"),
        file("lib/deep/x", b"3"), file("lib/deep/y", b"3"), file("top", b"4"), link("name", "top"), folder("gone"),
        file("gone/inner", b"5"),
    )  # fmt: skip
    return bench.layer("b", below, file("etc/.wh.old"), file("etc/new", b"6"), file(".wh.gone"), file("lib/z", b"7"))


def changes(bench: Bench) -> dict[str, int]:
    found = bench.driver.changes(KEY)
    assert found == sorted(found)
    return {each.path: each.kind for each in found}


def test_nothing(bench: Bench) -> None:
    bench.view(image(bench), KEY)
    assert changes(bench) == {}


def test_what_was_written_changed_and_removed(bench: Bench) -> None:
    view = bench.view(image(bench), KEY)
    view.write("etc/kept", b"other")
    view.write("etc/old", b"again")  # hidden by the second layer: new
    view.write("fresh", b"")
    os.mkdir(view.path("made"))
    view.write("made/inner", b"")
    os.unlink(view.path("lib/deep/x"))
    os.unlink(view.path("top"))
    os.unlink(view.path("name"))
    os.symlink("elsewhere", view.path("name"))
    assert changes(bench) == {
        "/etc": MODIFIED, "/etc/kept": MODIFIED, "/etc/old": ADDED, "/fresh": ADDED, "/made": ADDED,
        "/made/inner": ADDED, "/lib": MODIFIED, "/lib/deep": MODIFIED, "/lib/deep/x": DELETED, "/top": DELETED,
        "/name": MODIFIED,
    }  # fmt: skip


def test_a_folder_that_was_made_anew(bench: Bench) -> None:
    view = bench.view(image(bench), KEY)
    shutil.rmtree(view.path("lib"))
    os.mkdir(view.path("lib"))
    view.write("lib/z", b"7")
    view.write("lib/own", b"8")
    found = changes(bench)
    found.pop("/lib/z", None)  # overlayfs knows that it was written, not that it is the same
    assert found == {"/lib": MODIFIED, "/lib/deep": DELETED, "/lib/own": ADDED}


def test_a_file_in_place_of_a_folder_and_back(bench: Bench) -> None:
    view = bench.view(image(bench), KEY)
    shutil.rmtree(view.path("lib"))
    view.write("lib", b"a file")
    os.unlink(view.path("top"))
    os.mkdir(view.path("top"))
    view.write("top/inner", b"")
    assert changes(bench) == {"/lib": MODIFIED, "/top": MODIFIED, "/top/inner": ADDED}


def test_only_the_mode_of_a_folder(bench: Bench) -> None:
    view = bench.view(image(bench), KEY)
    os.chmod(view.path("etc"), 0o700)
    assert changes(bench) == {"/etc": MODIFIED}


def test_what_the_engine_prepares_is_not_the_containers(bench: Bench) -> None:
    bench.driver.prepare(KEY, "", ".dockerenv")
    (mount,) = bench.driver.mounts(KEY)
    root = mount.source if mount.type == "bind" else next(
        each.removeprefix("upperdir=") for each in mount.options if each.startswith("upperdir=")
    )  # fmt: skip
    root = os.path.join(mount.source, root)  # relative to the source where short links are used
    for name in ("proc", "sys", "dev", "etc"):
        os.mkdir(f"{root}/{name}")
    for name in ("etc/hosts", "etc/hostname"):
        with open(f"{root}/{name}", "w"):
            pass
    assert changes(bench) == {}
    with open(f"{root}/etc/mine", "w"):
        pass
    assert changes(bench) == {"/etc": MODIFIED, "/etc/mine": ADDED}


def test_deep_trees(bench: Bench) -> None:
    view = bench.view("", KEY)
    here = os.open(view.path(""), os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    assert len(changes(bench)) == 1500
    bench.close()
    bench.driver.remove(KEY)  # who clears temporary folders after tests does not get so deep
    settle()
    assert not list(bench.root.rglob("d"))
