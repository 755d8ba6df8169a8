"""Blocks as the single messages that receivers of logs know, with what tells them that a line was cut."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(slots=True)
class Part:
    """A piece of a line that was cut: its line's id, its number from 1 on, and whether it is the last."""

    id: str
    ordinal: int
    last: bool


class Lines:
    """Follows both streams of one container."""

    def __init__(self) -> None:
        self._open: dict[str, Part] = {}

    def of(self, stream: str, blocks: list[bytes]) -> Iterator[tuple[bytes, Part | None]]:
        """Yield each line without its newline, and which part of a longer one it is."""
        for block in blocks:
            if not block.endswith(b"\n"):
                yield block, self._next(stream, last=False)
                continue
            lines = block[:-1].split(b"\n")
            if stream in self._open:
                yield lines.pop(0), self._next(stream, last=True)
            for line in lines:
                yield line, None

    def _next(self, stream: str, *, last: bool) -> Part:
        before = self._open.pop(stream, None)
        part = Part(before.id if before else os.urandom(32).hex(), before.ordinal + 1 if before else 1, last)
        if not last:
            self._open[stream] = part
        return part
