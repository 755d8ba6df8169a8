"""What the readers of log files have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

Record = tuple[str, int | str, bytes, Mapping[str, str]]
"""stream ("stdout", "stderr"), time (Unix ns, or RFC 3339 in UTC), output, attributes. Output without a newline at its
end is continued by the next record of its stream."""


class Format(Protocol):
    """How records stand in a file."""

    def decode(self, data: bytes) -> tuple[list[Record], bytes]:
        """Return the records of `data`, which begins where one does, and what is left of one that is not complete."""

    def end(self, descriptor: int) -> int:
        """Return where the last complete record of a file ends."""

    def tail(self, descriptor: int, lines: int) -> tuple[int, int, int]:
        """Find the last lines of a file from its end.

        Returns where to begin to read, how many records to leave out there, and how many lines the file lacks.
        """
