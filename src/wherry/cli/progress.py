"""The engine's progress records, as docker draws them: on a terminal a line per layer, which changes in its place."""

from __future__ import annotations

import os

from wherry.cli.failures import ApiError
from wherry.cli.tables import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any

    from wherry.cli.http import Response

_WIDE = 110  # columns, below which there is no bar
_BAR = 50


def bar(detail: dict[str, Any], columns: int) -> str:
    """What stands after the text: "[=====>    ]  1.2MB/3.4MB"."""
    current, total = int(detail.get("current", 0)), int(detail.get("total", 0))
    if not current and not total:
        return ""
    if total <= 0 or current > total:
        return size(current, 4)
    done = min(current * _BAR // total, _BAR)
    drawn = f"[{'=' * (done - (done == _BAR))}>{' ' * (_BAR - done)}]  " if columns > _WIDE else ""
    return f"{drawn}{size(current, 4)}/{size(total, 4)}"


class Display:
    """Where the lines of layers are on a terminal; elsewhere each thing is said once."""

    def __init__(self, output: IO[str]) -> None:
        self._output = output
        self._terminal = output.isatty()
        self._columns = os.get_terminal_size(output.fileno()).columns if self._terminal else 0
        self._places: dict[str, int] = {}
        self._lines = 0

    def show(self, record: dict[str, Any]) -> None:
        """Draw one record."""
        name, text, detail = record.get("id", ""), record.get("status"), record.get("progressDetail") or {}
        if "stream" in record:
            self._output.write(record["stream"])
        elif text is not None and not self._terminal:
            if not detail:
                self._output.write(f"{name}: {text}\n" if name else f"{text}\n")
        elif text is not None:
            self._draw(name, text, bar(detail, self._columns), keeps_place="progressDetail" in record)
        self._output.flush()

    def _draw(self, name: str, text: str, drawn: str, *, keeps_place: bool) -> None:
        line = f"{name}: {text}" if name else text
        line += f" {drawn}" if drawn else ""
        if not name or not keeps_place:
            self._places.clear()  # what comes after it cannot go up over it
            self._lines = 0
            self._output.write(f"{line}\n")
            return
        if name not in self._places:
            self._places[name] = self._lines
            self._lines += 1
            self._output.write("\n")
        up = self._lines - self._places[name]
        self._output.write(f"\x1b[{up}A\x1b[2K\r{line}\r\x1b[{up}B")


def follow(response: Response, output: IO[str] | None) -> None:
    """Show all records, or none when there is no output; an error among them is the end."""
    display = Display(output) if output is not None else None
    try:
        for record in response.records():
            if "error" in record:
                raise ApiError(500, record["error"])
            if display is not None:
                display.show(record)
    finally:
        response.close()
