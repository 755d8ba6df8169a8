"""Reading the format of the driver local, and of the copies that drivers which send keep.

The supervisor writes it: runtime/logdrivers/localfile.py draws it. A frame holds several lines of one time.
"""

from __future__ import annotations

import os
import time

from wherry.errors import SystemFailure
from wherry.logs.records import Record
from wherry.runtime.logdrivers.localfile import AROUND, HEAD, LONGEST, TAIL, complete_size, ends_well

CHUNK = 1 << 18
_STREAMS = {1: "stdout", 2: "stderr"}
_TRIES = 20


def decode(data: bytes) -> tuple[list[Record], bytes]:
    """See `Format`; what is no frame ends the file."""
    records: list[Record] = []
    position = 0
    while len(data) - position >= AROUND:
        length, stream, at = HEAD.unpack_from(data, position)
        end = position + AROUND + length
        if length > LONGEST or stream not in _STREAMS:
            return records, b""
        if end > len(data):
            break
        name = _STREAMS[stream]
        records += [(name, at, line, {}) for line in _lines(data[position + HEAD.size : end - TAIL.size])]
        position = end
    return records, data[position:]


def _lines(output: bytes) -> list[bytes]:
    """Split at newlines alone, and keep them."""
    lines = [line + b"\n" for line in output.split(b"\n")]
    last = lines.pop()[:-1]
    return [*lines, last] if last else lines


def end(descriptor: int) -> int:
    """See `Format`; a frame that is not complete is waited for: it is being written, or a crash tore it."""
    for _ in range(_TRIES):
        size = os.fstat(descriptor).st_size
        if size == 0 or ends_well(descriptor, size):
            return size
        time.sleep(0.001)
    return complete_size(descriptor, size)


def tail(descriptor: int, lines: int) -> tuple[int, int, int]:
    """See `Format`; goes back by the length at the end of each frame."""
    position = end(descriptor)
    missing = lines
    while position >= AROUND and missing > 0:
        (length,) = TAIL.unpack(os.pread(descriptor, TAIL.size, position - TAIL.size))
        start = position - AROUND - length
        if start < 0:
            raise SystemFailure(f"the log is damaged: no frame ends at byte {position}")
        output = os.pread(descriptor, length, start + HEAD.size)
        count = output.count(b"\n") + (not output.endswith(b"\n"))
        if count >= missing:
            return start, count - missing, 0
        missing -= count
        position = start
    return position, 0, missing
