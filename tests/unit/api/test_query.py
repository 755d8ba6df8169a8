"""Query parameters."""

from __future__ import annotations

import pytest

from wherry.api.routes.containers import logs_query, parse_tail
from wherry.api.wire.query import Query, duration, filters, moment
from wherry.errors import InvalidArgument

SECOND = 1_000_000_000


@pytest.mark.parametrize("text", ["a=1", "a=true", "a=True", "a=yes", "a=foo"])
def test_flags_that_are_set(text):
    assert Query(text).flag("a")


@pytest.mark.parametrize("text", ["a=0", "a=false", "a=False", "a=no", "a=none", "a=", ""])
def test_flags_that_are_not(text):
    assert not Query(text).flag("a")


def test_numbers():
    assert Query("t=10").number("t") == 10
    assert Query("t=-1").number("t") == -1
    assert Query("").number("t") is None
    for text in ("t=abc", "t=1.5", "t=1_0", "t=%D9%A1"):
        with pytest.raises(InvalidArgument, match="invalid syntax"):
            Query(text).number("t")
    for text in ("t=9223372036854775808", "t=-9223372036854775809"):
        with pytest.raises(InvalidArgument, match="value out of range"):
            Query(text).number("t")
    with pytest.raises(InvalidArgument):
        Query("t=" + "9" * 5000).number("t")


def test_terminal_sizes():
    assert Query("h=24").size("h", "height") == 24
    with pytest.raises(InvalidArgument, match='invalid resize height "": invalid syntax'):
        Query("").size("h", "height")
    with pytest.raises(InvalidArgument, match='invalid resize height "-1": value out of range'):
        Query("h=-1").size("h", "height")
    with pytest.raises(InvalidArgument, match="out of range"):
        Query("h=65536").size("h", "height")


def test_moments():
    assert moment("1.5") == 1_500_000_000
    assert moment("1136073600.000000001") == 1136073600 * SECOND + 1
    assert moment("10m", now=1000 * SECOND) == 400 * SECOND
    assert moment("1970-01-01T00:01:00Z") == 60 * SECOND
    assert moment("1970-01-01T01:00:00.25+01:00") == SECOND // 4
    assert moment("1970-01-02") == 86400 * SECOND
    assert moment("-5") == 0
    assert moment("9" * 400) > 0
    for text in ("foo", "1.5.5", "2024-13-01", "10x", "\u0661"):
        with pytest.raises(InvalidArgument):
            moment(text)
    assert Query("").moment("since") == 0


def test_durations():
    assert duration("1h30m") == 5400 * SECOND
    assert duration("1.5s") == 1_500_000_000
    assert duration("") is None
    assert duration("5") is None
    assert duration("1h x") is None


def test_filters_in_both_forms():
    assert filters('{"name":["a","b"]}') == {"name": ["a", "b"]}
    assert filters('{"name":{"a":true,"b":false}}') == {"name": ["a", "b"]}
    assert filters("") == {}
    for text in (
        "foo",
        "[]",
        '{"name":"a"}',
        '{"name":[1]}',
        '{"name":{"a":1}}',
        "[" * 100_000,
        '{"a":["' + "x" * 70_000,
    ):
        with pytest.raises(InvalidArgument, match="invalid filter"):
            filters(text)


def test_too_many_parameters():
    with pytest.raises(InvalidArgument):
        Query("&".join("a=1" for _ in range(2000)))


def test_logs():
    wanted = logs_query(Query("stdout=1&tail=5&since=1.5&follow=1"))
    assert (wanted.stdout, wanted.stderr, wanted.tail, wanted.since, wanted.follow) == (
        True,
        False,
        5,
        1_500_000_000,
        True,
    )
    with pytest.raises(InvalidArgument, match="Bad parameters: you must choose at least one stream"):
        logs_query(Query("tail=5"))
    tails = {"all": -1, "": -1, "-3": -1, "foo": -1, "0": 0, "7": 7, "+2": 2, "9" * 50: -1}
    assert {text: parse_tail(text) for text in tails} == tails
