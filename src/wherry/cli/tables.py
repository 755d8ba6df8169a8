"""Tables, sizes, times and how long ago: what lists are made of."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows as columns, three spaces apart and at least ten wide, as docker's; the last one is not padded."""
    if not rows:
        return ""
    widths = [max(10, max(len(row[place]) for row in rows) + 3) for place in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        lines.append("".join([*cells, row[-1]]))
    return "\n".join(lines) + "\n"


def size(number: float, digits: int = 3) -> str:
    """Bytes in powers of 1000 with three significant digits: 1.98MB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            break
        number /= 1000
    return f"{number:.{digits}g}{unit}" if number < 1000 else f"{number:.0f}{unit}"


def binary_size(number: float) -> str:
    """Bytes in powers of 1024 with four significant digits: 23.55GiB."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if number < 1024 or unit == "TiB":
            break
        number /= 1024
    return f"{number:.4g}{unit}"


_STEPS = ((1, "Less than a second"), (2, "1 second"))
_UNITS = (
    (60, 1, "seconds"),
    (120, 0, "About a minute"),
    (3600, 60, "minutes"),
    (5400, 0, "About an hour"),
    (48 * 3600, 3600, "hours"),
    (14 * 86400, 86400, "days"),
    (60 * 86400, 7 * 86400, "weeks"),
    (730 * 86400, 30 * 86400, "months"),
)


def duration(seconds: float) -> str:
    """A length of time in words: "5 minutes", "About an hour"."""
    for limit, words in _STEPS:
        if seconds < limit:
            return words
    for limit, unit, words in _UNITS:
        if seconds < limit:
            return f"{int(seconds // unit)} {words}" if unit else words
    return f"{int(seconds // (365 * 86400))} years"


def ago(unix: float) -> str:
    """How long ago a moment was."""
    return duration(max(0.0, time.time() - unix)) + " ago"


def local_time(unix: float) -> str:
    """A moment as lists show it: 2026-11-24 17:06:28 +0000 UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(unix))


def parse_time(text: str) -> float:
    """RFC 3339 as the API writes it, to Unix time; fractions beyond microseconds are cut."""
    from datetime import datetime

    head, dot, tail = text.partition(".")
    if dot:
        digits = tail[: len(tail) - len(tail.lstrip("0123456789"))]
        text = f"{head}.{digits[:6]}{tail[len(digits) :]}"
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def listing(rows: Sequence[dict[str, Any]], shape: str, headers: dict[str, str]) -> str:
    """Rows in the shape that --format asks for: a template, "table TEMPLATE", or "json".

    headers: the title of each field, for tables.
    """
    from wherry.cli.templates import Template

    if shape == "json":
        rows = [dict(sorted(row.items())) for row in rows]  # as Go encodes a map
        shape = "{{json .}}"
    if not shape.startswith("table"):
        template = Template(shape.replace("\\t", "\t").replace("\\n", "\n"))
        return "".join(template.render(row) + "\n" for row in rows)
    template = Template(shape[5:].strip().replace("\\t", "\t"))
    titles: dict[str, Any] = dict(headers)
    titles["Label"] = lambda name: name
    lines = [template.render(titles)] + [template.render(row) for row in rows]
    return columns([line.split("\t") for line in lines])
