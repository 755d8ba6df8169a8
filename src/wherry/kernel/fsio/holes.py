"""The pieces of a file that are data, and the holes between them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator


def extents(file: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield (offset, length) of what is data in the first `size` bytes of a file, in order; the rest is holes.

    SEEK_DATA and SEEK_HOLE of lseek(2); a file system that does not know them says that all is data. A file that
    becomes shorter meanwhile ends there. Moves the file's position. Raises OSError.
    """
    position = 0
    while position < size:
        try:
            start = os.lseek(file, position, os.SEEK_DATA)
            position = min(os.lseek(file, start, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno != errno.ENXIO:  # ENXIO: only a hole follows, or the end
                raise
            return
        if start < position:
            yield start, position - start
