"""Where the frames of a zstd stream end (RFC 8878): the zstandard package takes a stream that is cut off for its end.

    frame      magic 28 b5 2f fd, descriptor, [window 1], [dictionary id 1, 2, 4], [content size 1, 2, 4, 8],
               blocks, [checksum 4]
    block      3 bytes, little endian: bit 0 last, bits 1-2 type (0 raw, 1 repeated byte, 2 compressed), size;
               the content has `size` bytes, or 1 for a repeated byte
    skippable  magic 5X 2a 4d 18, size 4, content
"""

from __future__ import annotations

from collections.abc import Generator

_MAGIC = b"\x28\xb5\x2f\xfd"
_CONTENT_SIZE = (0, 2, 4, 8)
_DICTIONARY = (0, 1, 2, 4)

Step = tuple[int, str]
"""How many bytes follow, and what is done with them: "skip", "see", or "begin" (see; a frame has just ended)."""


class Frames:
    """Follows a stream piece by piece."""

    def __init__(self) -> None:
        self._parser = _parse()
        self._left, self._what = next(self._parser)
        self._seen = b""
        self.is_valid = True

    @property
    def at_end(self) -> bool:
        """Whether the stream may end here."""
        return self._what == "begin" and not self._seen

    def feed(self, data: bytes) -> None:
        """Take note of the next bytes of the stream."""
        position = 0
        while position < len(data) and self.is_valid:
            size = min(self._left, len(data) - position)
            if self._what != "skip":
                self._seen += data[position : position + size]
            position += size
            self._left -= size
            self._advance()

    def _advance(self) -> None:
        while not self._left and self.is_valid:
            seen, self._seen = self._seen, b""
            try:
                self._left, self._what = self._parser.send(seen)
            except StopIteration:
                self.is_valid = False  # no frame: the decompressor says what is wrong


def _parse() -> Generator[Step, bytes, None]:
    while True:
        magic = yield 4, "begin"
        if magic == _MAGIC:
            yield from _frame()
        elif magic[1:] == b"\x2a\x4d\x18" and magic[0] >> 4 == 5:
            size = yield 4, "see"
            yield int.from_bytes(size, "little"), "skip"
        else:
            return


def _frame() -> Generator[Step, bytes, None]:
    descriptor = (yield 1, "see")[0]
    single = descriptor >> 5 & 1
    sizes = _CONTENT_SIZE[descriptor >> 6] or single
    yield sizes + _DICTIONARY[descriptor & 3] + (not single), "skip"
    last = 0
    while not last:
        block = int.from_bytes((yield 3, "see"), "little")
        last = block & 1
        yield 1 if block >> 1 & 3 == 1 else block >> 3, "skip"
    if descriptor >> 2 & 1:
        yield 4, "skip"
