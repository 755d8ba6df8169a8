"""What the readers of log files have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

Record = tuple[str, int | str, bytes, Mapping[str, str]]
"""stream ("stdout", "stderr"), time (Unix ns, or RFC 3339 in UTC), output, attributes.

Output is one line or several, each with its newline. Without a newline at its end it is one part of a line, which the
next record of its stream continues."""


class Format(Protocol):
    """How records stand in a file."""

    def decode(self, data: bytes, *, timed: bool) -> tuple[list[Record], int]:
        """Return the records of `data`, which begins where one does, and how many bytes of it they take.

        timed: each line with its own time. Without it a record may hold lines of several times, under the first's.
        """

    def end(self, descriptor: int) -> int:
        """Return where the last complete record of a file ends."""

    def tail(self, descriptor: int, lines: int) -> tuple[int, int, int]:
        """Find the last lines of a file from its end.

        Returns where to begin to read, how many lines to leave out there, and how many lines the file lacks.
        """

    def since(self, descriptor: int, at: int) -> int:
        """Return where to begin to read for all records from a time (Unix ns) on; some earlier ones may follow there.

        Takes the times of a file to be in order, and reads little of what comes before.
        """
