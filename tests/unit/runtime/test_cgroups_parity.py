"""docs/kernel/cgroups.md says what is written for each limit in both versions; here the code is asked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from wherry.runtime import cgroups_v1, cgroups_v2

TABLE = Path(__file__).resolve().parents[3] / "docs" / "kernel" / "cgroups.md"
ROW = re.compile(r"\| ([^|]+) \| (\{.+\}) \| ([^|]+) \| ([^|]+) \|")
OF_CPUSET = {"cpus", "mems"}
"""Version 1's cpusets are written by cgroups_tree, which has to fill the parents first."""


def rows() -> list[tuple[str, dict[str, Any], str, str]]:
    """Return flag, OCI resources, and what is written in version 1 and 2."""
    matches = [match for line in TABLE.read_text().splitlines() if (match := ROW.fullmatch(line))]
    return [(match[1], json.loads(match[2]), match[3], match[4]) for match in matches]


def test_the_table_is_not_empty() -> None:
    assert len(rows()) >= 30


@pytest.mark.parametrize(("flag", "resources", "old", "new"), rows(), ids=lambda value: str(value)[:30])
def test_what_the_table_says_is_written(flag: str, resources: dict[str, Any], old: str, new: str) -> None:
    if old == "refused":
        with pytest.raises(OSError, match="version 2"):
            cgroups_v1.writes(resources)
    elif not OF_CPUSET & set(resources.get("cpu", ())):
        assert old in {f"{controller}/{file} = {text}" for controller, file, text in cgroups_v1.writes(resources)}
    if new == "refused":
        with pytest.raises(OSError, match="version 1"):
            cgroups_v2.writes(resources)
    elif new == "nothing":
        assert cgroups_v2.writes(resources) == []
    else:
        assert new in {f"{file} = {text}" for file, text in cgroups_v2.writes(resources)}


def test_every_limit_that_a_container_can_have_is_in_the_table() -> None:
    """By the names of linux.resources that the code of either version reads."""
    known = {key for _, resources, _, _ in rows() for value in resources.values() for key in _keys(value)}
    folder = Path(cgroups_v1.__file__).parent
    text = "".join((folder / f"cgroups_v{version}.py").read_text() for version in (1, 2))
    read = set(re.findall(r'(?:memory|cpu|pids|block|network)(?:\.get\(|\[)"(\w+)"', text))
    read |= set(re.findall(r'\("(throttle\w+|realtime\w+|shares|period|quota|burst|idle)"', text))
    assert read - known == {"kernelTCP", "priorities"}  # gone from the kernel with kmem; of the network, not of a limit


def _keys(value: Any) -> set[str]:
    return set(value) if isinstance(value, dict) else set()
