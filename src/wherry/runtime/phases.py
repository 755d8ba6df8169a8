"""When the phases of a container's start began: kept for `wherry xray`, at the price of a clock reading each.

The child that becomes the container cannot tell anything once it is its program, and a message per phase would wake its
parent each time. So parent and child share a page of memory; the child writes to it, and execve(2) takes it away.

    page   entries of 24 bytes: name (16, padded with NUL) | CLOCK_MONOTONIC in ns (8); the first with 0 ns is the end
           the last 8 bytes: st_dev of the root file system, by which it is known whatever is mounted over it later

CLOCK_MONOTONIC is one clock for all processes here: a new time namespace starts without offsets (time_namespaces(7)).
"""

from __future__ import annotations

import mmap
import struct
import time

Phases = list[tuple[str, int]]
"""Name, and when it began, in CLOCK_MONOTONIC ns; the last one is "running"."""

_ENTRY = struct.Struct("16sQ")
_PAGE = 4096
_ROOT = struct.Struct("Q")
_MOST = (_PAGE - _ROOT.size) // _ENTRY.size - 1


class Marks:
    """A page that is shared with the children that are forked after it was made."""

    __slots__ = ("_count", "_last", "_page")

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, _PAGE)
        self._count = 0
        self._last = ""

    def begin(self, name: str) -> None:
        """Note that a phase begins now; one that goes on is not noted again."""
        if name != self._last and self._count < _MOST:
            self._last = name
            _ENTRY.pack_into(self._page, self._count * _ENTRY.size, name.encode(), time.monotonic_ns())
            self._count += 1

    @property
    def root(self) -> int:
        """st_dev of the root file system, 0 when there is none yet."""
        return int(_ROOT.unpack_from(self._page, _PAGE - _ROOT.size)[0])

    @root.setter
    def root(self, device: int) -> None:
        _ROOT.pack_into(self._page, _PAGE - _ROOT.size, device)

    def read(self) -> Phases:
        """Return what has been noted, by whichever process."""
        found = []
        for name, at in _ENTRY.iter_unpack(self._page[: _MOST * _ENTRY.size]):
            if not at:
                break
            found.append((name.rstrip(b"\0").decode(), at))
        return found

    def close(self) -> None:
        """Give the page back."""
        self._page.close()
