"""docs/run-flags.md knows every flag of docker run, and every test that it names is there."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

from tests.arch.rules import ROOT

TABLE = ROOT / "docs" / "run-flags.md"
ROW = re.compile(r"\| `--([a-z0-9-]+)`[^|]* \| ([^|]+) \| `([^`|]+)::([^`|]+)` \|")
FLAG = re.compile(r"^ {2,6}(?:-\w, )?--([a-z0-9-]+)\b")


def flags_of_the_client() -> set[str]:
    """Return the names in `docker run --help`."""
    text = subprocess.run(["docker", "run", "--help"], check=True, capture_output=True, text=True).stdout
    return {match[1] for line in text.splitlines() if (match := FLAG.match(line))}


def rows() -> list[tuple[str, str, str, str]]:
    """Return flag, meaning, file and test of each row."""
    lines = [line for line in TABLE.read_text().splitlines() if line.startswith("| `")]
    found = [ROW.fullmatch(line) for line in lines]
    assert all(found), [line for line, match in zip(lines, found, strict=True) if match is None]
    return [(match[1], match[2], match[3], match[4]) for match in found if match]


def names_in(path: Path) -> set[str]:
    """Return the names of the tests of a file."""
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


def test_every_flag_of_docker_run_is_in_the_table() -> None:
    flags = flags_of_the_client()
    assert len(flags) > 90
    listed = [flag for flag, _, _, _ in rows()]
    assert len(listed) == len(set(listed))
    assert flags <= set(listed)
    if "health-start-interval" in flags:  # a client of 25.0 or newer; those of distributions may lack flags
        assert set(listed) == flags


def test_every_test_that_the_table_names_is_there() -> None:
    wanted = {(file, name) for _, _, file, name in rows()}
    missing = {(file, name) for file, name in wanted if name not in names_in(ROOT / "tests" / file)}
    assert not missing
