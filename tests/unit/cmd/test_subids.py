"""userns-remap: whose ids of /etc/subuid and /etc/subgid containers get."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest

from wherry.cmd import subids
from wherry.errors import InvalidArgument, SystemFailure
from wherry.runtime import idholder
from wherry.runtime.idmaps import Ids

USER = next(each for each in pwd.getpwall() if each.pw_uid)


@pytest.fixture
def etc(tmp_path):
    (tmp_path / "subuid").write_text(f"other:100000:65536\n{USER.pw_name}:200000:1000\nbroken:x:1\n")
    (tmp_path / "subgid").write_text(f"{USER.pw_uid}:300000:500\nother:1:2\n{USER.pw_uid}:400000:500\n\n")
    return tmp_path


@pytest.mark.parametrize("text", [USER.pw_name, str(USER.pw_uid), f"{USER.pw_name}:0", f"{USER.pw_uid}:root"])
def test_by_name_or_number_and_ranges_in_a_row(etc, text):
    assert subids.read(text, etc) == Ids(((0, 200000, 1000),), ((0, 300000, 500), (500, 400000, 500)))


def test_none_and_root_are_the_host_itself(etc):
    assert subids.read("", etc) is None
    assert subids.read("root", etc) is None
    assert subids.read("0:0", etc) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("no-such-user", "there is no such user"),
        (f"{USER.pw_name}:no-such-group", "there is no group no-such-group"),
        ("99999999999999999999", "there is no such user"),
        ("uids=0-0-10;gids=0-1000-10", "0 must be another id on the host"),
        ("uids=1-1000-10;gids=0-1000-10", "0 must be another id on the host"),
        ("uids=0-1-1", "both needed"),
    ],
)
def test_refused(etc, text, why):
    with pytest.raises(InvalidArgument, match=why):
        subids.read(text, etc)


def test_who_has_no_ids_is_told_what_to_do(etc):
    (etc / "subgid").unlink()
    with pytest.raises(InvalidArgument, match=f"add a line such as {USER.pw_name}:100000:65536"):
        subids.read(USER.pw_name, etc)


def test_the_ranges_themselves():
    assert subids.read("uids=0-7-9;gids=0-8-9") == Ids(((0, 7, 9),), ((0, 8, 9),))


def test_default_sets_ids_aside_once(etc):
    (etc / "subuid").write_text(f"{USER.pw_name}:200000:65536")  # no newline at the end
    found = subids.read("default", etc)
    assert found == Ids(((0, 100000, 65536),), ((0, 100000, 65536),))
    assert (etc / "subuid").read_text() == f"{USER.pw_name}:200000:65536\ndockremap:100000:65536\n"
    before = [(etc / name).read_text() for name in ("subuid", "subgid")]
    assert subids.read("default", etc) == found
    assert [(etc / name).read_text() for name in ("subuid", "subgid")] == before


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ("dockremap:0:65536", "0 must be another id on the host"),
        ("dockremap:4294967290:65536", "invalid idmap range"),
        ("dockremap:100000:5", "there must be a group 5"),
        (f"dockremap:1:{'9' * 5000}\ndockremap:100000:5", "there must be a group 5"),
        ("dockremap:100000:65536\ndockremap:120000:65536", "ranges overlap"),
    ],
)
def test_lines_that_cannot_be(tmp_path, lines, why):
    for name in ("subuid", "subgid"):
        (tmp_path / name).write_text(lines + "\n")
    with pytest.raises(InvalidArgument, match=why):
        subids.read("default", tmp_path)


def test_ids_are_set_aside_where_there_are_some(tmp_path):
    (tmp_path / "subuid").write_text("a:4294901760:65535\nb:165536:65536\n")
    assert subids.read("default", tmp_path).uids == ((0, 100000, 65536),)
    full = "a:100000:4294867195\n"
    for name in ("subuid", "subgid"):
        (tmp_path / name).write_text(full)
    with pytest.raises(SystemFailure, match="leave no 65536 ids"):
        subids.read("default", tmp_path)
    assert (tmp_path / "subuid").read_text() == full


def test_ranges_that_overlap_are_refused(etc):
    (etc / "subuid").write_text(f"{USER.pw_name}:200000:1000\n{USER.pw_name}:200500:1000\n")
    with pytest.raises(InvalidArgument, match="ranges overlap"):
        subids.read(USER.pw_name, etc)


@pytest.fixture(scope="module", autouse=True)
def _program() -> Iterator[None]:
    """A process keeps it for good; this one does not."""
    kept = idholder._program(0)
    yield
    idholder._program.cache_clear()
    os.close(kept)


@pytest.mark.root
def test_the_data_root_has_to_be_able_to_show_other_owners(tmp_path):
    ids = Ids(((0, 300000, 10),), ((0, 300000, 10),))
    subids.check(ids, tmp_path)
    with pytest.raises(SystemFailure, match=r"userns-remap cannot be used with /proc.*proc.*cannot show other owners"):
        subids.check(ids, Path("/proc"))


def test_default_on_a_host_without_these_files(tmp_path):
    assert subids.read("default", tmp_path) == Ids(((0, 100000, 65536),), ((0, 100000, 65536),))
