"""The file that an index is written to: it grows at its end, and what was written can be read and changed."""

from __future__ import annotations

import os

from wherry.kernel.fsio.space import Reserve

_BUFFERED = 1 << 20


class Output:
    """size: where the next bytes go. Holes take no space on the disk. Raises OSError: ENOSPC near a full disk."""

    def __init__(self, fd: int, start: int) -> None:
        self.size = start
        self._fd = fd
        self._begin = start  # of the buffer
        self._buffer = bytearray()
        self._reserve = Reserve(fd)

    def align(self, unit: int) -> int:
        """Go on at a multiple of `unit`; return where that is."""
        gap = -self.size % unit
        if gap:
            self.append(bytes(gap))
        return self.size

    def append(self, data: bytes) -> int:
        """Write at the end; return where the bytes are."""
        place = self.size
        self._buffer += data
        self.size += len(data)
        if len(self._buffer) >= _BUFFERED:
            self.flush()
        return place

    def skip(self, size: int) -> int:
        """Leave a hole of `size` bytes at the end; return where it is."""
        self.flush()
        place = self.size
        self.size = self._begin = place + size
        return place

    def read(self, place: int, size: int) -> bytes:
        """Return what was written before."""
        if place >= self._begin:
            start = place - self._begin
            return bytes(self._buffer[start : start + size])
        return os.pread(self._fd, size, place)

    def change(self, place: int, data: bytes | memoryview) -> None:
        """Write over what was written, or left out, before; a piece is on one side of the buffer's begin."""
        if place >= self._begin:
            start = place - self._begin
            self._buffer[start : start + len(data)] = data
            return
        self._reserve.spend(len(data))
        done = 0
        while done < len(data):
            done += os.pwrite(self._fd, data[done:], place + done)

    def flush(self) -> None:
        """Hand all that is buffered to the kernel."""
        data = self._buffer
        self._buffer = bytearray()
        self._reserve.spend(len(data))
        self._write(data)

    def _write(self, data: bytearray) -> None:
        view = memoryview(data)
        while view:
            done = os.pwrite(self._fd, view, self._begin)
            self._begin += done
            view = view[done:]

    def finish(self, unit: int) -> None:
        """Write everything; the file's size becomes a multiple of `unit`."""
        self.flush()
        self.size += -self.size % unit
        os.ftruncate(self._fd, self.size)
