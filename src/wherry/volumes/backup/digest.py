"""The digest of a file's content, for which a hole costs nothing, however long. PURE.

The SHA-256 of the content, if none of its blocks (of 1 MiB, from its beginning) is all zeros. Else the SHA-256 of

    SHA-256 of the other blocks, one after another  +  SHA-256 of the runs of blocks of zeros, "FIRST COUNT\\n" each

so that it depends on the content alone: a hole and zeros that were written are the same.
"""

from __future__ import annotations

import hashlib

BLOCK = 1 << 20
_ZEROS = bytes(BLOCK)
_NONE = -1
"""The block has begun, and not with zeros alone."""


class ContentDigest:
    """Takes the content from the beginning, in pieces of any size."""

    def __init__(self) -> None:
        self._data = hashlib.sha256()
        self._runs = hashlib.sha256()
        self._run = (0, 0)
        """First block and number of those that are all zeros, up to here; 0 for none."""
        self._sparse = False
        self._position = 0
        self._zeros = 0
        """Bytes at the beginning of the block that we are in, all zeros and not yet in the digest; or _NONE."""

    def feed(self, piece: bytes) -> None:
        """Add data."""
        start = 0
        while start < len(piece):
            within = self._position % BLOCK
            part = piece[start : start + BLOCK - within] if start or len(piece) > BLOCK - within else piece
            start += len(part)
            if self._zeros == within and not part[0] and part == _ZEROS[: len(part)]:
                self._add_zeros(len(part))
            else:
                self._add(part)

    def hole(self, size: int) -> None:
        """Add so many zeros."""
        within = self._position % BLOCK
        if within:
            first = min(size, BLOCK - within)
            self._few_zeros(first)
            size -= first
        if blocks := size // BLOCK:
            self._add_run(self._position // BLOCK, blocks)
            self._position += blocks * BLOCK
        if size % BLOCK:
            self._few_zeros(size % BLOCK)

    def _few_zeros(self, size: int) -> None:
        """Add zeros that do not go beyond the block."""
        if not size:
            return
        if self._zeros == self._position % BLOCK:
            self._add_zeros(size)
        else:
            self._add(_ZEROS[:size])

    def _add_zeros(self, size: int) -> None:
        """As that, when there are only zeros in the block so far."""
        self._position += size
        self._zeros += size
        if self._zeros == BLOCK:
            self._add_run(self._position // BLOCK - 1, 1)
            self._zeros = 0

    def _add(self, part: bytes) -> None:
        if self._zeros > 0:
            self._data.update(_ZEROS[: self._zeros])
        self._data.update(part)
        self._position += len(part)
        self._zeros = _NONE if self._position % BLOCK else 0

    def _add_run(self, here: int, blocks: int) -> None:
        first, count = self._run
        if count and first + count == here:
            self._run = first, count + blocks
        else:
            self._end_run()
            self._run = here, blocks

    def _end_run(self) -> None:
        if self._run[1]:
            self._runs.update(b"%d %d\n" % self._run)
            self._sparse = True

    def hexdigest(self) -> str:
        """Return the digest; nothing can be added after."""
        if self._zeros > 0:
            self._data.update(_ZEROS[: self._zeros])
        self._end_run()
        if not self._sparse:
            return self._data.hexdigest()
        return hashlib.sha256(self._data.digest() + self._runs.digest()).hexdigest()
