"""Points in time and durations in the forms that Docker's clients expect."""

from __future__ import annotations

import time

NEVER = "0001-01-01T00:00:00Z"
"""Go's zero time, which stands for "not yet" in the Engine API."""

SECOND = 1_000_000_000


def rfc3339(at: int) -> str:
    """Return Unix ns as RFC 3339 in UTC with as many decimals as needed (Go's RFC3339Nano); 0 is `NEVER`."""
    if not at:
        return NEVER
    seconds, nanoseconds = divmod(at, SECOND)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    if nanoseconds:
        text += f".{nanoseconds:09d}".rstrip("0")
    return text + "Z"


def human(duration: int) -> str:
    """Return ns in the words of ``docker ps``: "5 seconds", "About a minute", "3 hours"."""
    seconds = duration // SECOND
    if seconds < 1:
        return "Less than a second"
    if seconds < 60:
        return "1 second" if seconds == 1 else f"{seconds} seconds"
    minutes = seconds // 60
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    days = hours // 24
    for limit, size, word in ((14, 1, "days"), (60, 7, "weeks"), (730, 30, "months")):
        if days < limit:
            return f"{days // size} {word}"
    return f"{days // 365} years"
