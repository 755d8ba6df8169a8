"""What a container changed as a layer: unpacked on top of the same parent it shows the same tree."""

from __future__ import annotations

import io
import os
import tarfile

import pytest

from tests.conformance.drivers import Bench, View
from tests.tars import file, folder, link
from wherry.errors import Conflict

pytestmark = pytest.mark.root

KEY = "own"


def image(bench: Bench) -> str:
    return bench.layer(
        "a", "", folder("etc"), file("etc/old", b"1"), file("etc/kept", b"2"), folder("lib"), folder("lib/deep"),
        file("lib/deep/x", b"3"), folder("gone"), file("gone/inner", b"5"), link("name", "etc/old"), file("kind", b"6"),
        folder("anew"), file("anew/before", b"7"),
    )  # fmt: skip


def tree(view: View) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for folder_, names, files in os.walk(view.path("")):
        for name in names + files:
            path = os.path.join(folder_, name)
            state = os.lstat(path)
            content: object = ""
            if os.path.islink(path):
                content = os.readlink(path)
            elif os.path.isfile(path):
                with open(path, "rb") as opened:
                    content = opened.read()
            found[os.path.relpath(path, view.path(""))] = (state.st_mode, state.st_uid, state.st_gid, content)
    return found


def change(view: View) -> None:
    view.write("etc/kept", b"other")
    view.write("etc/new", b"new")
    os.unlink(view.path("etc/old"))
    os.unlink(view.path("gone/inner"))
    os.rmdir(view.path("gone"))
    os.unlink(view.path("kind"))
    os.mkdir(view.path("kind"), 0o700)
    view.write("kind/below", b"k")
    os.unlink(view.path("anew/before"))
    os.rmdir(view.path("anew"))
    os.mkdir(view.path("anew"))
    view.write("anew/after", b"8")
    os.chown(view.path("lib/deep"), 5, 6)
    os.link(view.path("etc/new"), view.path("etc/hard"))
    os.symlink("x", view.path("lib/deep/sym"))


def test_a_layer_that_says_the_same(bench: Bench) -> None:
    below = image(bench)
    view = bench.view(below, KEY)
    change(view)
    data = b"".join(bench.driver.layer(KEY))
    bench.ingest("f" * 64, below, io.BytesIO(data))
    again = bench.view("f" * 64, "again")
    assert tree(again) == tree(view)
    assert os.stat(again.path("etc/new")).st_ino == os.stat(again.path("etc/hard")).st_ino
    assert not again.has("anew/before")


def test_only_what_changed_is_in_it(bench: Bench) -> None:
    view = bench.view(image(bench), KEY)
    change(view)
    with tarfile.open(fileobj=io.BytesIO(b"".join(bench.driver.layer(KEY)))) as archive:
        names = set(archive.getnames())
    assert names == {
        "anew", "anew/.wh.before", "anew/after", "etc", "etc/.wh.old", "etc/hard", "etc/kept", "etc/new", ".wh.gone",
        "kind", "kind/below", "lib", "lib/deep", "lib/deep/sym",
    }  # fmt: skip


def test_nothing(bench: Bench) -> None:
    bench.view(image(bench), KEY)
    assert b"".join(bench.driver.layer(KEY)) == bytes(1024)


def test_a_name_that_would_remove_a_file(bench: Bench) -> None:
    view = bench.view(image(bench), KEY)
    view.write("etc/.wh.kept", b"")
    with pytest.raises(Conflict, match=r"/etc/\.wh\.kept"):
        b"".join(bench.driver.layer(KEY))
