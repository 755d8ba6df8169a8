"""The filters of the prune commands: until, label, label!."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from wherry.errors import InvalidArgument
from wherry.models.labels import selected

UNITS = {"s": 1, "m": 60, "h": 3600}
FILTERS = frozenset({"until", "label", "label!"})

Chosen = Callable[[int, Mapping[str, str]], bool]
"""Whether an object made at that time (Unix ns), with these labels, may be removed."""


def _point_in_time(text: str, now: int) -> int:
    """Return Unix ns for seconds since 1970 or a duration before now ("90m", "1h30m")."""
    if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", text, re.ASCII):
        return int(float(text) * 1e9)
    parts = re.findall(r"([0-9]{1,9})([hms])", text, re.ASCII)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidArgument(f'failed to parse value as time or duration: "{text}"')
    return now - sum(int(number) * UNITS[unit] for number, unit in parts) * 1_000_000_000


def chosen(filters: Mapping[str, Sequence[str]], now: int) -> Chosen:
    """Return the test of a prune; raises InvalidArgument for a filter or value it does not know."""
    for name in filters:
        if name not in FILTERS:
            raise InvalidArgument(f"invalid filter '{name}'")
    limits = [_point_in_time(text, now) for text in filters.get("until", ())]
    return lambda created, labels: all(created < limit for limit in limits) and selected(labels, filters)
