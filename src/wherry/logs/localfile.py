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
_NOTHING: dict[str, str] = {}


def decode(data: bytes, *, timed: bool) -> tuple[list[Record], int]:
    """See `Format`; what is no frame ends the file."""
    records: list[Record] = []
    position = 0
    while len(data) - position >= AROUND:
        length, stream, at = HEAD.unpack_from(data, position)
        end = position + AROUND + length
        if length > LONGEST or stream not in _STREAMS:
            return records, len(data)
        if end > len(data):
            break
        records.append((_STREAMS[stream], at, data[position + HEAD.size : end - TAIL.size], _NOTHING))
        position = end
    return records, position


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
        start, length, _ = _frame_before(descriptor, position)
        output = os.pread(descriptor, length, start + HEAD.size)
        count = output.count(b"\n") + (not output.endswith(b"\n"))
        if count >= missing:
            return start, count - missing, 0
        missing -= count
        position = start
    return position, 0, missing


def since(descriptor: int, at: int) -> int:
    """See `Format`; goes back from the end over what will be read anyway. No other way is safe: a frame that begins
    in the middle of nowhere could be what a container has written to look like one."""
    position = end(descriptor)
    while position >= AROUND:
        start, _, when = _frame_before(descriptor, position)
        if when < at:
            break
        position = start
    return position


def _frame_before(descriptor: int, position: int) -> tuple[int, int, int]:
    """Return where the frame begins that ends at `position`, the length of its output, and its time."""
    (length,) = TAIL.unpack(os.pread(descriptor, TAIL.size, position - TAIL.size))
    start = position - AROUND - length
    if start < 0:
        raise SystemFailure(f"the log is damaged: no frame ends at byte {position}")
    return start, length, HEAD.unpack(os.pread(descriptor, HEAD.size, start))[2]
