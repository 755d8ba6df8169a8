"""Output cut into blocks: whole lines, or parts of longer ones. All log drivers are given these."""

from __future__ import annotations

CUT = 16 * 1024
"""A line is cut after so many bytes, as dockerd does: a part has no newline, and the next one goes on with it."""


def split(data: bytes) -> tuple[list[bytes], bytes]:
    """Cut `data` into blocks of whole lines and 16 KiB parts of longer ones; return them and the unended rest.

    A block either ends with a newline and holds only lines of at most `CUT` bytes, or is one part of `CUT` bytes.
    """
    blocks = []
    start = position = 0
    while len(data) - position >= CUT:
        newline = data.rfind(b"\n", position, position + CUT)
        if newline >= 0:
            position = newline + 1
            continue
        if position > start:
            blocks.append(data[start:position])
        blocks.append(data[position : position + CUT])
        start = position = position + CUT
    end = data.rfind(b"\n", position) + 1 or position
    if end > start:
        blocks.append(data[start:end])
    return blocks, data[end:]


class Cutter:
    """Cuts what is read from the two streams, however it arrives; an unended line waits for its end."""

    def __init__(self) -> None:
        self._rest = {"stdout": b"", "stderr": b""}

    def cut(self, stream: str, data: bytes) -> list[bytes]:
        """Return the blocks that are complete now."""
        rest = self._rest[stream]
        blocks, self._rest[stream] = split(rest + data if rest else data)
        return blocks

    def end(self, stream: str) -> list[bytes]:
        """Return the unended last line of `stream` as a block."""
        rest, self._rest[stream] = self._rest[stream], b""
        return [rest] if rest else []
