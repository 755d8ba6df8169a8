"""A file whose bytes come when they are read, from an eStargz layer: the experiment behind docs/lazy-start.md.

    python -m tests.kernel.snapshots.lazyfile FD BLOB TABLE END

FD: /dev/fuse, mounted already. The file is the tar that `promised_tar` makes of the layer's table: headers of ours, and
the data where they say. BLOB stands for the registry. On SIGUSR1 it answers no read any more; on SIGUSR2 it answers
EIO, and after another one data again.
The protocol is that of linux/fuse.h, 7.31.
"""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import stat
import struct
import sys
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wherry.archive import writer
from wherry.archive.estargz import Chunk, TocFile, promised

GETATTR, OPEN, READ, RELEASE, FLUSH, INIT = 3, 14, 15, 18, 25, 26
_SILENT = (2, 36, 42)  # FORGET, INTERRUPT, BATCH_FORGET want no answer
_HEAD = struct.Struct("<IIQQIIIHH")
_LONG = 1 << 30
_KEEP_CACHE = 2
_AHEAD = 1 << 20


@dataclass(frozen=True)
class Place:
    """Where a chunk is in the tar of the promise."""

    start: int
    chunk: Chunk


def placed(files: Iterator[TocFile]) -> Iterator[tuple[bytes, int, tuple[Place, ...]]]:
    """Yield (header, bytes of data, where its chunks are) of each member of the tar of a promise."""
    at = 0
    for file in files:
        head = writer.header(file.entry)
        at += len(head)
        yield head, file.entry.size, tuple(Place(at + each.place, each) for each in file.chunks)
        at += file.entry.size + -file.entry.size % 512


def promised_tar(table: bytes, end: int) -> bytes:
    """A tar with zeros for data: an index made of it has everything but the data."""
    parts = [head + bytes(size + -size % 512) for head, size, _ in placed(promised(table, end))]
    return b"".join(parts) + writer.END


class LazyFile:
    """The file, served."""

    def __init__(self, device: int, blob: Path, table: bytes, end: int) -> None:
        self._device = device
        self._blob = os.open(blob, os.O_RDONLY)
        members = list(placed(promised(table, end)))
        self._places = [each for _, _, places in members for each in places]
        self._starts = [each.start for each in self._places]
        self._size = sum(len(head) + size + -size % 512 for head, size, _ in members) + len(writer.END)
        self._data: dict[int, bytes] = {}
        self.fault = 0
        self.silent = False

    def serve(self) -> None:
        """Answer until it is unmounted or aborted."""
        while True:
            try:
                request = os.read(self._device, 2 << 20)
            except InterruptedError:
                continue
            except OSError as error:
                if error.errno == errno.ENODEV:
                    return
                raise
            _, code, unique, *_ = _HEAD.unpack_from(request)
            if code in _SILENT or (code == READ and self.silent):
                continue
            fault, body = self._answer(code, request[_HEAD.size :])
            try:
                os.write(self._device, struct.pack("<IiQ", 16 + len(body), -fault, unique) + body)
            except FileNotFoundError:
                pass  # who asked is gone, or all of it: RELEASE is sent as the last thing before an unmount

    def _answer(self, code: int, body: bytes) -> tuple[int, bytes]:
        if code == INIT:
            return 0, struct.pack("<IIIIHHIIHHI7I", 7, 31, _AHEAD, 1, 16, 12, 65536, 1, 0, 0, 0, *(0,) * 7)
        if code == GETATTR:
            return 0, struct.pack("<QII", _LONG, 0, 0) + struct.pack(
                "<6Q3I7I", 1, self._size, 0, *(0,) * 6, stat.S_IFREG | 0o400, 1, 0, 0, 0, 4096, 0
            )
        if code == OPEN:
            return 0, struct.pack("<QII", 0, _KEEP_CACHE, 0)
        if code == READ:
            if self.fault:
                return self.fault, b""
            _, offset, size = struct.unpack_from("<QQI", body)
            return 0, self._read(offset, min(size, self._size - offset))
        return (0, b"") if code in (RELEASE, FLUSH) else (errno.ENOSYS, b"")

    def _read(self, offset: int, size: int) -> bytes:
        """Put the chunks together that are within; what lies between files is zeros."""
        made = bytearray(size)
        at = max(bisect_right(self._starts, offset) - 1, 0)
        while at < len(self._places) and self._starts[at] < offset + size:
            start, data = self._starts[at], self._chunk(at)
            low, high = max(start, offset), min(start + len(data), offset + size)
            if low < high:
                made[low - offset : high - offset] = data[low - start : high - start]
            at += 1
        return bytes(made)

    def _chunk(self, at: int) -> bytes:
        if at not in self._data:
            chunk = self._places[at].chunk
            packed = os.pread(self._blob, 8 << 20, chunk.offset)
            data = zlib.decompressobj(31).decompress(packed, chunk.inner + chunk.length)[chunk.inner :]
            if f"sha256:{hashlib.sha256(data).hexdigest()}" != chunk.digest:
                raise ValueError(f"a chunk at {chunk.offset} with other data than its digest says")
            self._data[at] = data
        return self._data[at]


def main() -> None:
    device, blob, table, end = sys.argv[1:]
    file = LazyFile(int(device), Path(blob), Path(table).read_bytes(), int(end))
    signal.signal(signal.SIGUSR1, lambda *_: setattr(file, "silent", True))
    signal.signal(signal.SIGUSR2, lambda *_: setattr(file, "fault", errno.EIO - file.fault))
    print("ready", flush=True)
    file.serve()


if __name__ == "__main__":
    main()
