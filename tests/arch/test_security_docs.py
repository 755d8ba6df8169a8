"""docs/security.md has a line for every attack on files and mounts, and the tests that it names try that attack."""

from __future__ import annotations

import ast
import re

from tests.arch.rules import ROOT, functions, python_files

TABLE = ROOT / "docs" / "security.md"
NUMBERS = {*(f"FS-{number:02}" for number in range(1, 15)), "RT-07", "RT-08"}
_ROW = re.compile(r"\| ((?:FS|RT)-\d\d) \|(.*)\|$", re.MULTILINE)
_TEST = re.compile(r"`([\w/]+\.py)::(test_\w+)`")


def named() -> dict[str, set[str]]:
    """The tests that the table names, by number."""
    rows = _ROW.findall(TABLE.read_text())
    assert len({number for number, _ in rows}) == len(rows), "a number twice"
    return {number: {f"{path}::{test}" for path, test in _TEST.findall(text)} for number, text in rows}


def tried() -> dict[str, set[str]]:
    """The tests that say which number they try, in their names or in their docstrings."""
    found: dict[str, set[str]] = {number: set() for number in NUMBERS}
    for path, text in python_files("tests/security"):
        for name, function in functions(ast.parse(text)):
            if name.startswith("test_") and "." not in name:
                for number in numbers(name, ast.get_docstring(function) or ""):
                    found[number].add(f"{path.removeprefix('tests/')}::{name}")
    return found


def numbers(name: str, docstring: str) -> set[str]:
    """Return the numbers of the table that a test says it tries; "FS-01 to FS-03" are three."""
    said = set(re.findall(r"\b(?:FS|RT)-\d\d\b", docstring))
    for kind, first, last in re.findall(r"\b(FS|RT)-(\d\d) to (?:FS|RT)-(\d\d)\b", docstring):
        said |= {f"{kind}-{number:02}" for number in range(int(first), int(last) + 1)}
    said |= {f"{kind.upper()}-{number}" for kind, number in re.findall(r"_(fs|rt)(\d\d)(?=_|$)", name)}
    return said & NUMBERS


def test_every_attack_has_a_line_and_every_line_tests_that_try_it() -> None:
    assert named() == tried()
    assert all(tests for tests in tried().values())


def test_numbers_are_found() -> None:
    assert numbers("test_fs01_fs06_x", "") == {"FS-01", "FS-06"}
    assert numbers("test_x", "FS-01 to FS-03, RT-08: so.") == {"FS-01", "FS-02", "FS-03", "RT-08"}
    assert numbers("test_rt05_x", "FS-15 and XFS-01") == set()
