"""Making gzip, the same bytes from the same input each time: no name and no time in it.

isal, when it is installed, is several times faster than zlib at a comparable size; both let other threads run.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import Any

_LEVEL = 6
_ISAL_LEVEL = 2
_GZIP = 16 + zlib.MAX_WBITS


def _compressor() -> Any:
    try:
        from isal import isal_zlib  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    return isal_zlib.compressobj(_ISAL_LEVEL, isal_zlib.DEFLATED, _GZIP)


def compressed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the chunks as one gzip member, piece by piece."""
    compressor = _compressor()
    for chunk in chunks:
        if piece := compressor.compress(chunk):
            yield piece
    yield compressor.flush()
