"""Let children of a fork put their objects on pages of their own, close together.

The interpreter's allocator fills holes first: small objects of a child would lie on hundreds of pages, each shared
until then and copied for them. So the holes are filled before the fork, with bytes that stay.

    arena (1 MiB) -> pools (16 KiB), each of blocks of one size (16, 32 ... 512 bytes) after a header of 48 bytes
    (Objects/obmalloc.c, Python 3.10 to 3.12)
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

_POOL = 16 * 1024
_HEADER = 48
_MOST = 1024
_EMPTY = sys.getsizeof(b"")
_filling: list[object] = []


def fill_holes() -> None:
    """Fill what is free in pools that are in use; after a collection, and once."""
    _fill(object)  # 16 bytes
    _fill(lambda: 0.5 + len(_filling))  # 24
    for size in range(48, 513, 16):
        _fill(partial(bytes, size - _EMPTY))


def _fill(make: Callable[[], object]) -> None:
    for _ in range(_MOST):
        block = make()
        if id(block) % _POOL == _HEADER:  # the first of a pool: no other has room
            break
        _filling.append(block)
