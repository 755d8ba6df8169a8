"""Values of log options as Go reads them, with its errors."""

from __future__ import annotations

import re
from collections.abc import Mapping

from wherry.errors import InvalidArgument
from wherry.models import booleans, sizes

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h|d)", re.ASCII)


def flag(options: Mapping[str, str], name: str, default: bool = False, label: str = "") -> bool:
    """Return a boolean option; raises InvalidArgument."""
    if name not in options:
        return default
    value = booleans.parse(options[name])
    if value is None:
        raise InvalidArgument(f'{label}strconv.ParseBool: parsing "{options[name]}": invalid syntax')
    return value


def integer(text: str, label: str = "") -> int:
    """Return a whole number; raises InvalidArgument."""
    if not re.fullmatch(r"[+-]?\d{1,9}", text, re.ASCII):
        raise InvalidArgument(f'{label}strconv.Atoi: parsing "{text}": invalid syntax')
    return int(text)


def size(text: str, label: str = "") -> int:
    """Return bytes; raises InvalidArgument."""
    try:
        return sizes.positive(text)
    except (ValueError, OverflowError) as error:
        raise InvalidArgument(f"{label}{error}") from error


def duration(text: str, label: str = "", *, days: bool = False) -> float:
    """Return the seconds of "1m30s", "-1s" or, when days are allowed, "7d"; raises InvalidArgument."""
    number = text.removeprefix("-").removeprefix("+")
    parts = _DURATION.findall(number)
    complete = bool(parts) and len(text) < 40 and "".join(amount + unit for amount, unit in parts) == number
    if complete and (days or not any(unit == "d" for _, unit in parts)):
        seconds = sum(float(amount) * _UNITS[unit] for amount, unit in parts)
        return -seconds if text.startswith("-") else seconds
    if text in ("0", "+0", "-0"):
        return 0.0
    if re.fullmatch(r"[+-]?\d+", text, re.ASCII):
        raise InvalidArgument(f'{label}time: missing unit in duration "{text}"')
    raise InvalidArgument(f'{label}time: invalid duration "{text}"')
