"""Query parameters as dockerd reads them."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import datetime
from urllib.parse import parse_qs

import msgspec

from wherry.errors import InvalidArgument
from wherry.models.times import SECOND

MAX_PARAMETERS = 1000
LONGEST_FILTERS = 64 << 10
LATEST = 1 << 62
"""Times are kept within 63 bits: what comes later is for ever."""

FALSE = frozenset({"", "0", "no", "false", "none"})
UNITS = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND}
DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)", re.ASCII)
STAMP = re.compile(r"(-?\d+)(?:\.(\d{1,9})\d*)?", re.ASCII)
RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?)(?:\.(\d{1,9})\d*)?)?(Z|[+-]\d\d:\d\d)?", re.ASCII)


class Query:
    """The parameters of one request; the first of several values counts, as in Go."""

    def __init__(self, text: str) -> None:
        try:
            self._values = parse_qs(text, keep_blank_values=True, max_num_fields=MAX_PARAMETERS) if text else {}
        except ValueError as error:
            raise InvalidArgument(f"invalid query: {error}") from error

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def text(self, name: str, default: str = "") -> str:
        """Return a parameter as it is."""
        return self._values[name][0] if name in self._values else default

    def all(self, name: str) -> list[str]:
        """Return every value of a parameter."""
        return self._values.get(name, [])

    def flag(self, name: str, default: bool = False) -> bool:
        """Return a parameter as yes or no: everything but "", 0, no, false and none is yes."""
        return self.text(name).strip().lower() not in FALSE if name in self._values else default

    def number(self, name: str) -> int | None:
        """Return a whole number, None when absent or empty; raises InvalidArgument."""
        text = self.text(name)
        if not text:
            return None
        if not re.fullmatch(r"[+-]?\d{1,19}", text, re.ASCII):
            raise InvalidArgument(f'strconv.Atoi: parsing "{text}": invalid syntax')
        if int(text) not in range(-(1 << 63), 1 << 63):
            raise InvalidArgument(f'strconv.Atoi: parsing "{text}": value out of range')
        return int(text)

    def size(self, name: str, what: str) -> int:
        """Return a terminal's height or width, required, of 16 bits as ioctl_tty(2) has it; raises InvalidArgument."""
        text = self.text(name)
        if not re.fullmatch(r"[+-]?\d+", text, re.ASCII) or text.startswith("+"):
            raise InvalidArgument(f'invalid resize {what} "{text}": invalid syntax')
        if text.startswith("-") or len(text) > 10 or int(text) >= 1 << 16:
            raise InvalidArgument(f'invalid resize {what} "{text}": value out of range')
        return int(text)

    def moment(self, name: str) -> int:
        """Return a point in time as Unix ns, 0 when absent; raises InvalidArgument."""
        text = self.text(name)
        return moment(text) if text else 0

    def filters(self) -> dict[str, list[str]]:
        """Return the filters, in either of the two forms that clients send; raises InvalidArgument."""
        return filters(self.text("filters"))


def moment(text: str, now: int | None = None) -> int:
    """Return "1.5" (Unix), "10m" (so long ago) or RFC 3339 as Unix ns; raises InvalidArgument."""
    if stamp := STAMP.fullmatch(text):
        fraction = int((stamp[2] or "").ljust(9, "0"))
        return max(0, min(int(stamp[1][:20]) * SECOND + fraction, LATEST))
    if (ago := duration(text)) is not None:
        return max(0, (time.time_ns() if now is None else now) - ago)
    if date := RFC3339.fullmatch(text):
        return _date(date, text)
    raise InvalidArgument(f'strconv.ParseInt: parsing "{text}": invalid syntax')


def duration(text: str) -> int | None:
    """Return a Go duration such as "1h30m" in ns, None when it is none."""
    parts = DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text or len(text) > 40:
        return None
    return min(LATEST, int(sum(float(number) * UNITS[unit] for number, unit in parts)))


def _date(date: re.Match[str], text: str) -> int:
    day, clock, fraction, zone = date.groups()
    try:
        at = datetime.fromisoformat(f"{day}T{clock or '00:00'}{(zone or 'Z').replace('Z', '+00:00')}")
    except ValueError as error:
        raise InvalidArgument(f"invalid time {text!r}: {error}") from error
    return max(0, int(at.timestamp()) * SECOND + int((fraction or "").ljust(9, "0")))


def filters(text: str) -> dict[str, list[str]]:
    """Return {"name": ["a"]} or {"name": {"a": true}} as name to values; raises InvalidArgument.

    What a value is mapped to counts for nothing, as in dockerd: a filter that is left out would let all things through.
    """
    if not text:
        return {}
    try:
        found = msgspec.json.decode(text[: LONGEST_FILTERS + 1])
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        raise InvalidArgument("invalid filter") from None
    if not isinstance(found, dict) or len(text) > LONGEST_FILTERS:
        raise InvalidArgument("invalid filter")
    return {name: _values(values) for name, values in found.items()}


def _values(values: object) -> list[str]:
    if isinstance(values, Mapping) and all(isinstance(each, bool) for each in values.values()):
        return list(values)
    if isinstance(values, list) and all(isinstance(each, str) for each in values):
        return values
    raise InvalidArgument("invalid filter")
