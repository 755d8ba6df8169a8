"""Paths as docker cp means them: all of it inside the tree, whatever its links say."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from wherry.errors import InvalidArgument, NotFound
from wherry.rootfs import paths

pytestmark = pytest.mark.root


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("/a/b", "/a/b"), ("a", "/a"), ("/a/", "/a/"), ("/a/.", "/a/."), ("/a/..", "/"), ("../../a", "/a"), ("/", "/"),
        ("/.", "/."), ("//a//b", "/a/b"), ("/a/./b/", "/a/b/"), ("/a/b/../c", "/a/c"), ("..", "/"), ("./", "/"),
    ],
)  # fmt: skip
def test_clean(text: str, meant: str) -> None:
    assert paths.clean(text) == meant


@pytest.mark.parametrize(
    ("mode", "go"),
    [
        (stat.S_IFREG | 0o644, 0o644),
        (stat.S_IFDIR | 0o755, 1 << 31 | 0o755),
        (stat.S_IFDIR | 0o1777, 1 << 31 | 1 << 20 | 0o777),
        (stat.S_IFLNK | 0o777, 1 << 27 | 0o777),
        (stat.S_IFREG | 0o6711, 1 << 23 | 1 << 22 | 0o711),
        (stat.S_IFCHR | 0o666, 1 << 26 | 1 << 21 | 0o666),
        (stat.S_IFBLK | 0o660, 1 << 26 | 0o660),
        (stat.S_IFIFO | 0o600, 1 << 25 | 0o600),
        (stat.S_IFSOCK | 0o600, 1 << 24 | 0o600),
    ],
)
def test_mode_as_go_has_it(mode: int, go: int) -> None:
    assert paths.go_mode(mode) == go


@pytest.fixture
def root(tmp_path: Path) -> int:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_text("hi")
    for name, target in {
        "rel": "d/f", "abs": "/d", "out": "../../../etc", "dangling": "/no/where", "loop": "loop", "d/up": "../abs/f",
    }.items():  # fmt: skip
        os.symlink(target, tmp_path / name)
    fd = os.open(tmp_path, os.O_PATH)
    yield fd  # type: ignore[misc]
    os.close(fd)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/rel", "/d/f"), ("/abs", "/d"), ("/abs/f", "/d/f"), ("/out", "/etc"), ("/dangling", "/no/where"),
        ("/d/up", "/d/f"), ("/abs/../d", "/d"), ("/", "/"), ("/nothing/at/all", "/nothing/at/all"),
    ],
)  # fmt: skip
def test_follow(root: int, path: str, place: str) -> None:
    assert paths.follow(root, path) == place


def test_a_loop_ends(root: int) -> None:
    with pytest.raises(InvalidArgument, match="too many levels"):
        paths.follow(root, "/loop")


def test_look(root: int) -> None:
    link = paths.look(root, "/rel", "here")
    assert (link.name, link.link_target, link.is_folder) == ("rel", "/d/f", False)
    assert paths.look(root, "/abs/", "here").is_folder
    assert paths.look(root, "d/f", "here").size == 2
    assert paths.look(root, "/d/.", "here").name == "."
    with pytest.raises(NotFound, match="Could not find the file /out/passwd here"):
        paths.look(root, "/out/passwd", "here")
    with pytest.raises(InvalidArgument, match="lstat /d/f/: not a directory"):
        paths.look(root, "/d/f/", "here")
