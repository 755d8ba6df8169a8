"""Docker's multiplexed stream taken apart: STREAM 0 0 0 SIZE(4, big endian), then the payload (runtime/wire.py)."""

from __future__ import annotations

from collections.abc import Iterator

HEADER = 8


class Frames:
    """Takes bytes as they come, cut anywhere."""

    def __init__(self) -> None:
        self._rest = b""
        self._left = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the payloads, of whichever stream, that are in these bytes."""
        data = self._rest + data
        self._rest = b""
        at = 0
        while at < len(data):
            if not self._left:
                if len(data) - at < HEADER:
                    self._rest = data[at:]
                    return
                self._left = int.from_bytes(data[at + 4 : at + HEADER], "big")
                at += HEADER
                continue
            piece = data[at : at + self._left]
            self._left -= len(piece)
            at += len(piece)
            yield piece
