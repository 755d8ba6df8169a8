"""Patterns for names: each line was put to dockerd 28.5, or to Go's path.Match."""

from __future__ import annotations

import time

import pytest

from wherry.errors import InvalidArgument
from wherry.images.patterns import compiled


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("content/*", "content/a", True),
        ("content/*", "content/a/b", False),
        ("*", "a/b", False),
        ("**/a", "b/a", True),
        ("content/[ab]", "content/b", True),
        ("content/[^ab]", "content/b", False),
        ("content/[a-c]:1", "content/b:1", True),
        ("content/[c-a]", "content/b", False),
        ("content/[^c-a]", "content/b", True),
        ("content/\\a", "content/a", True),
        ("a\\*", "ab", False),
        ("[\\]]", "]", True),
        ("content/{a,b}", "content/a", False),
        ("content/?:1", "content/a:1", True),
        ("a.c", "abc", False),
        ("", "a", False),
        ("", "", True),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("a*b*c", "abbc", True),
        ("a*b*c", "ab/bc", False),
        ("*b/c", "a/b/c", False),
        ("*b/c", "ab/c", True),
        ("*/*b", "x/yb", True),
        ("*[ab]c*", "xbcx", True),
    ],
)
def test_what_fits(pattern: str, text: str, fits: bool) -> None:
    assert compiled(pattern).fits(text) is fits


@pytest.mark.parametrize("pattern", ["[", "[]", "[]a]", "[a", "[a-", "[a-]", "[-a]", "[^", "a\\", "[a\\", "x" * 2000])
def test_broken_ones(pattern: str) -> None:
    with pytest.raises(InvalidArgument, match="syntax error in pattern"):
        compiled(pattern)


def test_many_stars_take_no_time() -> None:
    start = time.monotonic()
    assert not compiled("*a" * 12 + "b").fits("a" * 60)
    assert not compiled("*" * 1000 + "b").fits("a" * 300)
    assert time.monotonic() - start < 5
