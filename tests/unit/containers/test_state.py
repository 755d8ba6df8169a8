"""The table of states in the documentation is the one in the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from wherry.containers.state import MOVES, check_move
from wherry.errors import Conflict

PAGE = Path(__file__).resolve().parents[3] / "docs/protocol/http-api.md"


def test_the_page_has_every_move_and_no_other() -> None:
    rows = re.findall(r"^\| (\w+) \| (\w+) \| .+ \|$", PAGE.read_text(), re.MULTILINE)
    told = {(old, new) for old, new in rows if old in MOVES}
    assert told == {(old, new) for old, all_new in MOVES.items() for new in all_new}


@pytest.mark.parametrize(("old", "new"), [("created", "paused"), ("paused", "removing"), ("dead", "running")])
def test_what_is_not_in_it_is_refused(old: str, new: str) -> None:
    with pytest.raises(Conflict, match=f"is {old} and cannot become {new}"):
        check_move("x", old, new)
