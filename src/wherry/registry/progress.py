"""Progress records as the docker CLI draws them: a line per id, with a bar where there are numbers."""

from __future__ import annotations

import time
from typing import Any

from wherry.registry.api import Report

_WIDTH = 50
_INTERVAL = 0.1
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def status(text: str, layer: str = "") -> dict[str, Any]:
    """Return a record that says something about a layer, or about the whole."""
    return {"status": text, "progressDetail": {}, "id": layer} if layer else {"status": text}


def advance(text: str, layer: str, current: int, total: int) -> dict[str, Any]:
    """Return a record that says how far it is, in bytes."""
    detail = {"current": current, "total": total}
    return {"status": text, "progressDetail": detail, "progress": bar(current, total), "id": layer}


def bar(current: int, total: int) -> str:
    """Return what clients that do not count themselves print."""
    if total <= 0:
        return size(current)
    done = min(current * _WIDTH // total, _WIDTH)
    drawn = "=" * done + ">" + " " * (_WIDTH - done)
    return f"[{drawn}]  {size(current)}/{size(total)}"


def size(number: float) -> str:
    """Return bytes in decimal units with four digits: "1.081MB"."""
    unit = 0
    while number >= 1000 and unit < len(_UNITS) - 1:
        number /= 1000
        unit += 1
    return f"{number:.4g}{_UNITS[unit]}"


class Meter:
    """Tells how far something is, ten times a second at most and once at its end."""

    def __init__(self, report: Report, text: str, layer: str, total: int) -> None:
        self._report = report
        self._text = text
        self._layer = layer
        self._total = total
        self._next = time.monotonic() + _INTERVAL

    def __call__(self, current: int) -> None:
        """Take note of the bytes that are done."""
        now = time.monotonic()
        if now >= self._next or current == self._total:
            self._next = now + _INTERVAL
            self._report(advance(self._text, self._layer, current, self._total))


def short(digest: str) -> str:
    """Return the name of a layer in progress records."""
    return digest[7:19]
