"""Paths below a root that somebody else fills."""

import errno
import os

import pytest

from wherry.kernel import const, pathsafe


@pytest.fixture
def tree(tmp_path):
    """A root beside a folder that must never be reached."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("secret")
    fd = os.open(inside, os.O_PATH)
    yield fd, inside, outside
    os.close(fd)


def kept(fd):
    """Close a descriptor and return the path that it was."""
    path = os.readlink(f"/proc/self/fd/{fd}")
    os.close(fd)
    return path


def test_absolute_links_and_dots_stay_inside(tree):
    root, inside, _ = tree
    (inside / "outside").mkdir()
    (inside / "absolute").symlink_to("/outside")
    (inside / "up").symlink_to("../../../outside")
    for name in ("absolute", "up", "../outside", "/../../outside"):
        assert kept(pathsafe.open_path(root, name)) == str(inside / "outside")


@pytest.mark.parametrize("link", ["/outside/new", "../../outside/new", "{outside}/new"])
def test_made_directories_stay_inside(tree, link):
    root, inside, outside = tree
    (inside / "link").symlink_to(link.format(outside=outside))
    made = kept(pathsafe.make_directories(root, "/link/a/b"))
    assert made.startswith(f"{inside}/")
    assert os.listdir(outside) == ["secret"]


def test_dangling_links_are_made_good(tree):
    root, inside, _ = tree
    (inside / "var").mkdir()
    (inside / "var/run").symlink_to("/run")
    assert kept(pathsafe.make_directories(root, "/var/run/app")) == str(inside / "run/app")
    (inside / "etc").mkdir()
    (inside / "etc/resolv.conf").symlink_to("../run/stub/resolv.conf")
    assert kept(pathsafe.make_file(root, "/etc/resolv.conf")) == str(inside / "run/stub/resolv.conf")


def test_links_in_circles_end(tree):
    root, inside, _ = tree
    (inside / "a").symlink_to("b")
    (inside / "b").symlink_to("a")
    for make in (pathsafe.make_directories, pathsafe.make_file):
        with pytest.raises(OSError, match="openat2") as caught:
            make(root, "/a/x")
        assert caught.value.errno == errno.ELOOP


def test_a_file_in_the_way(tree):
    root, inside, _ = tree
    (inside / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        pathsafe.make_directories(root, "/file/x")


def test_files_are_made_once_and_kept(tree):
    root, inside, _ = tree
    assert kept(pathsafe.make_file(root, "/a/b/file")) == str(inside / "a/b/file")
    (inside / "a/b/file").write_text("content")
    os.close(pathsafe.make_file(root, "/a/b/file"))
    assert (inside / "a/b/file").read_text() == "content"


def test_magic_links_are_not_followed(tree):
    """CVE-2024-21626: a working directory of /proc/self/fd/N led out of the container."""
    _, _, outside = tree
    leaked = os.open(outside, os.O_RDONLY)
    root = os.open("/", os.O_PATH)
    try:
        for path in (f"/proc/self/fd/{leaked}", f"/proc/self/fd/{leaked}/secret", "/proc/self/cwd", "/proc/self/root"):
            with pytest.raises(OSError, match="openat2") as caught:
                pathsafe.open_path(root, path)
            assert caught.value.errno == errno.ELOOP
    finally:
        os.close(leaked)
        os.close(root)


def test_errors_carry_call_and_path(tree):
    with pytest.raises(FileNotFoundError, match="openat2") as caught:
        pathsafe.open_path(tree[0], "/nothing")
    assert caught.value.filename == "/nothing"


def test_read_regular(tree):
    root, inside, _ = tree
    (inside / "file").write_bytes(b"x" * 100)
    assert pathsafe.read_regular(root, "file", 100) == b"x" * 100
    with pytest.raises(OSError, match="larger") as caught:
        pathsafe.read_regular(root, "file", 99)
    assert caught.value.errno == errno.EFBIG


def test_filesystem_magic():
    fd = os.open("/proc", os.O_PATH)
    try:
        assert pathsafe.filesystem_magic(fd) == const.PROC_SUPER_MAGIC
    finally:
        os.close(fd)
