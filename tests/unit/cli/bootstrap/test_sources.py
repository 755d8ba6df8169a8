"""Package sources in both forms, and what of them a suite is made from."""

from __future__ import annotations

from pathlib import Path

import pytest

from wherry.cli.bootstrap import sources
from wherry.cli.failures import Failure

STANZAS = """Types: deb deb-src
# a comment
URIs: http://deb.debian.org/debian
Suites: bookworm bookworm-updates
Components: main
  contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://deb.debian.org/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb-src
URIs: http://nowhere/source
Suites: bookworm
Components: main

Types: deb
Enabled: no
URIs: http://nowhere/off
Suites: bookworm
Components: main
"""
LINES = """# deb http://nowhere/comment bookworm main
deb [arch=amd64 signed-by=/k.gpg] https://other.example/apt stable main extra # note
deb-src http://nowhere/source bookworm main
"""


@pytest.fixture
def apt(tmp_path: Path) -> str:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d/debian.sources").write_text(STANZAS)
    (tmp_path / "sources.list.d/other.list").write_text(LINES)
    (tmp_path / "sources.list.d/ignored.save").write_text(LINES)
    return str(tmp_path)


def test_the_own_suite_comes_with_security_and_updates(apt: str) -> None:
    key = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    assert sources.entries("bookworm", sources.read(apt)) == [
        f"deb {key} http://deb.debian.org/debian bookworm main contrib",
        f"deb {key} http://deb.debian.org/debian bookworm-updates main contrib",
        f"deb {key} http://deb.debian.org/debian-security bookworm-security main",
    ]


def test_another_suite_comes_from_the_same_mirror(apt: str) -> None:
    assert sources.entries("trixie", sources.read(apt)) == [
        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main"
    ]


def test_lines(apt: str) -> None:
    found = [each for each in sources.read(apt) if "other" in each.uri]
    wanted = "deb [signed-by=/k.gpg] https://other.example/apt stable main extra"
    assert [each.line("stable") for each in found] == [wanted]


@pytest.mark.parametrize("suite", ["", "Bookworm", "a b", "../x", "-o", "a\nb", "x" * 60])
def test_what_is_no_suite(apt: str, suite: str) -> None:
    with pytest.raises(Failure, match="is no name of a Debian suite"):
        sources.entries(suite, sources.read(apt))


def test_a_machine_without_sources(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="no Debian archive in"):
        sources.entries("bookworm", sources.read(str(tmp_path)))
