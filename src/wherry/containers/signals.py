"""Signals by the names and numbers that clients use."""

from __future__ import annotations

import signal

from wherry.errors import InvalidArgument

RTMIN = 34
RTMAX = 64
"""signal(7): glibc keeps 32 and 33 for itself, and the names count from its own SIGRTMIN."""


def parse(text: str) -> int:
    """Return the number for "9", "KILL", "SIGKILL" or "RTMIN+3"; raises InvalidArgument("invalid signal: x")."""
    name = text.upper().removeprefix("SIG")
    if name.isdigit() and name.isascii():
        number = int(name[:4])
        if 0 < number <= RTMAX:
            return number
    base, _, offset = name.partition("+" if name.startswith("RTMIN") else "-")
    if base in ("RTMIN", "RTMAX") and (not offset or (offset.isdigit() and offset.isascii())):
        number = RTMIN + int(offset or 0) if base == "RTMIN" else RTMAX - int(offset or 0)
        if RTMIN <= number <= RTMAX:
            return number
    try:
        return int(signal.Signals[f"SIG{name}"])
    except KeyError:
        raise InvalidArgument(f"invalid signal: {text}") from None
