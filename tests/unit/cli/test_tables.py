"""Columns, sizes and times as lists show them."""

from __future__ import annotations

import pytest

from wherry.cli import tables


def test_columns_are_ten_wide_at_least_and_three_apart() -> None:
    text = tables.columns([["ID", "NAME", "X"], ["1", "a-long-name-indeed", ""]])
    assert text == "ID        NAME                 X\n1         a-long-name-indeed   \n"


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0B"), (999, "999B"), (1000, "1kB"), (1_984_132, "1.98MB"), (1883, "1.88kB"), (654_000_000, "654MB")],
)
def test_sizes(number: int, text: str) -> None:
    assert tables.size(number) == text


def test_binary_sizes() -> None:
    assert tables.binary_size(25_275_568_128) == "23.54GiB"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (150, "2 minutes"),
        (3600, "About an hour"),
        (7200, "2 hours"),
        (86400 * 3, "3 days"),
        (86400 * 21, "3 weeks"),
        (86400 * 90, "3 months"),
        (86400 * 800, "2 years"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert tables.duration(seconds) == text


def test_times_with_nanoseconds_are_read() -> None:
    assert tables.parse_time("2026-11-24T17:08:53.988589569Z") == pytest.approx(1795540133.988589)
    assert tables.parse_time("2026-11-24T18:08:53+01:00") == 1795540133


def test_a_list_is_a_table_a_template_or_json() -> None:
    rows = [{"A": "1", "B": "x"}, {"A": "2", "B": "y"}]
    titles = {"A": "FIRST", "B": "SECOND"}
    assert tables.listing(rows, "table {{.A}}\\t{{.B}}", titles) == "FIRST     SECOND\n1         x\n2         y\n"
    assert tables.listing(rows, "{{.B}}:{{.A}}", titles) == "x:1\ny:2\n"
    assert tables.listing(rows[:1], "json", titles) == '{"A":"1","B":"x"}\n'
