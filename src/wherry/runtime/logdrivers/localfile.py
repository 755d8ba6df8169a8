"""The file of the driver local: the output as it is, in frames of many lines.

    length of the output, u32 | stream, u8 (1 stdout, 2 stderr) | Unix time in ns, u64 | output | length again, u32

All little-endian. A frame holds whole lines, or one part of a line (see `blocks`). The second length lets a reader go
from the end backwards. Not dockerd's protobuf, which has a record for each line: a chunk of output is written by one
call without a look at its lines, no byte of it is changed, and 17 bytes are added to it.
"""

from __future__ import annotations

import os
import struct

from wherry.runtime.logdrivers.rotation import RotatedFile
from wherry.runtime.wire import LogTarget

HEAD = struct.Struct("<IBQ")
TAIL = struct.Struct("<I")
AROUND = HEAD.size + TAIL.size
LONGEST = 1 << 20
_SMALLEST = 1 << 10
_FRAME = 64 << 10  # of output; less where files are so small that they would become too large by it
NUMBERS = {"stdout": 1, "stderr": 2}


class LocalFile:
    """The file of one container; a failed write raises OSError and leaves no torn frame behind."""

    def __init__(self, target: LogTarget) -> None:
        os.makedirs(os.path.dirname(target.path), mode=0o710, exist_ok=True)
        self._longest = min(_FRAME, max(target.max_size // 8, _SMALLEST)) if target.max_size else _FRAME
        self._file = RotatedFile(target, repair=_cut_torn, first_time=_first_time)

    def put(self, stream: str, at: int, blocks: list[bytes]) -> None:
        """Write blocks (see `blocks`) as frames of the time `at` (Unix ns)."""
        number = NUMBERS[stream]
        for block in blocks:
            while block:
                part = self._head(block)
                block = block[len(part) :]
                frame = b"".join((HEAD.pack(len(part), number, at), part, TAIL.pack(len(part))))
                self._file.append(frame, at, lambda records, room: len(records))

    def _head(self, block: bytes) -> bytes:
        """Return the lines that go into one frame, at least one."""
        if len(block) <= self._longest:
            return block
        end = block.rfind(b"\n", 0, self._longest) + 1 or block.find(b"\n") + 1
        return block[:end] if end else block

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _cut_torn(fd: int, size: int) -> int:
    """Cut off a frame that a crash tore."""
    if ends_well(fd, size):
        return size
    position = complete_size(fd, size)
    os.ftruncate(fd, position)
    return position


def complete_size(fd: int, size: int) -> int:
    """Return where the last complete frame ends, found by walking from the beginning."""
    position = 0
    while position + AROUND <= size:
        length = HEAD.unpack(os.pread(fd, HEAD.size, position))[0]
        end = position + AROUND + length
        if length > LONGEST or end > size or TAIL.unpack(os.pread(fd, TAIL.size, end - TAIL.size))[0] != length:
            break
        position = end
    return position


def ends_well(fd: int, size: int) -> bool:
    """Return whether a complete frame ends there."""
    if size < AROUND:
        return False
    length = TAIL.unpack(os.pread(fd, TAIL.size, size - TAIL.size))[0]
    start = size - AROUND - length
    return start >= 0 and bool(HEAD.unpack(os.pread(fd, HEAD.size, start))[0] == length)


def _first_time(head: bytes) -> int:
    return int(HEAD.unpack_from(head)[2]) if len(head) >= HEAD.size else 0
