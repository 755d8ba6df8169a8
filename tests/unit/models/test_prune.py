from __future__ import annotations

import pytest

from wherry.errors import InvalidArgument
from wherry.models import prune

HOUR = 3600 * 10**9


@pytest.mark.parametrize(
    ("filters", "now", "chosen"),
    [
        ({}, 3 * HOUR, True),
        ({"until": ["1h"]}, 3 * HOUR, True),
        ({"until": ["2h30m"]}, 3 * HOUR, False),
        ({"label": ["tier=db"]}, 0, True),
        ({"label": ["tier=web"]}, 0, False),
        ({"label!": ["tier"]}, 0, False),
    ],
)
def test_prune_takes_only_what_its_filters_choose(filters, now, chosen):
    assert prune.chosen(filters, now)(1 * HOUR, {"tier": "db"}) is chosen


@pytest.mark.parametrize("wanted", [{"until": ["bad"]}, {"until": ["1h "]}, {"name": ["x"]}])
def test_prune_refuses_what_it_does_not_know(wanted):
    with pytest.raises(InvalidArgument):
        prune.chosen(wanted, 0)
