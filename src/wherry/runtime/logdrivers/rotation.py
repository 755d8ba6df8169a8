"""A log file that begins anew when it is large or old enough, and its older ones: PATH.1, PATH.2 ... or PATH.1.gz.

A reader may have any of these files open. So none is ever written to again, or emptied, after it was rotated away; a
reader that holds it reads on to its end. What a compressed file was made from stands in its head, so that a reader
finds it again: the inode number, in an extra field "WH" of RFC 1952, section 2.3.1.1.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable

from wherry.runtime.wire import LogTarget

Repair = Callable[[int, int], int]
"""Called with a file and its size: mends the end that a crash tore, returns the size then."""
FirstTime = Callable[[bytes], int]
"""Called with the beginning of a file: returns the time of its first record in Unix ns, 0 when there is none."""
RecordEnd = Callable[[bytes, int], int]
"""Called with records and the room left: returns where the record ends that crosses the limit."""

_GZIP_HEAD = struct.Struct("<4sIBBH2sHQ")
_GZIP_MAGIC = b"\x1f\x8b\x08\x04"  # deflate, with an extra field
_CHUNK = 1 << 18
_SPARED = 64 << 20  # bytes, and files, that may be kept longer for a follower that is behind
_MOST_SPARED = 1000


class RotatedFile:
    """The current file of one log and its rotation; a failed write raises OSError and leaves nothing torn."""

    def __init__(self, target: LogTarget, *, repair: Repair, first_time: FirstTime) -> None:
        self._target = target
        self._repair = repair
        self._first_time = first_time
        self._fd = -1
        self._size = 0
        self._begun = 0
        self._compressor = 0
        self._open()

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self._target.path, flags, 0o640)
        size = os.fstat(self._fd).st_size
        self._size = self._repair(self._fd, size) if size else 0
        self._begun = self._first_time(os.pread(self._fd, _CHUNK, 0)) if self._size and self._target.max_age else 0

    def append(self, records: bytes, at: int, record_end: RecordEnd) -> None:
        """Write whole records of the time `at` (Unix ns), in as many files as it takes."""
        limit = self._target.max_size
        if self._fd < 0:  # an earlier rotation failed half-way
            self._open()
        if self._is_old(at):
            self._rotate()
        while 0 < limit < self._size + len(records):
            if self._size >= limit:
                self._rotate()
                continue
            cut = record_end(records, limit - self._size)
            self._write(records[:cut], at)
            records = records[cut:]
        if records:
            self._write(records, at)

    def _is_old(self, at: int) -> bool:
        age = self._target.max_age
        return 0 < age <= at - self._begun and self._begun > 0 and self._size > 0

    def _write(self, records: bytes, at: int) -> None:
        try:
            written = os.write(self._fd, records)
            while written < len(records):
                written += os.write(self._fd, records[written:])
        except OSError as error:
            os.ftruncate(self._fd, self._size)
            error.filename = self._target.path
            raise
        self._begun = self._begun if self._size else at
        self._size += len(records)

    def _rotate(self) -> None:
        path, count = self._target.path, self._target.max_file
        self._await_compressor()
        os.close(self._fd)
        self._fd = -1
        if count < 2:
            os.unlink(path)
            self._open()
            return
        for number in range(self._make_room(), 0, -1):
            for suffix in ("", ".gz"):
                _rename(f"{path}.{number}{suffix}", f"{path}.{number + 1}{suffix}")
        _rename(path, f"{path}.1")
        self._open()
        if self._target.compress:
            self._compress(f"{path}.1")

    def _make_room(self) -> int:
        """Delete the files that are too many, and return the number of the oldest that is kept.

        One that a follower has not read to its end is kept, and so are the newer ones that it has yet to read, as long
        as that takes no more than 64 MiB beyond what was asked for.
        """
        path, most = self._target.path, self._target.max_file - 2
        oldest = 0
        while os.path.lexists(f"{path}.{oldest + 1}") or os.path.lexists(f"{path}.{oldest + 1}.gz"):
            oldest += 1
        spared = min(_MOST_SPARED, _SPARED // self._target.max_size) if self._target.max_size else 0
        while oldest > most and (oldest > most + spared or not _is_read(f"{path}.{oldest}")):
            _forget(f"{path}.{oldest}")
            _forget(f"{path}.{oldest}.gz")
            oldest -= 1
        return oldest

    def _compress(self, path: str) -> None:
        pid = os.fork()
        if pid:
            self._compressor = pid
            return
        status = 1
        try:
            compress(path)
            status = 0
        finally:  # the file stays as it is when there is no room for another; it is read just so
            os._exit(status)

    def _await_compressor(self) -> None:
        if self._compressor:
            os.waitpid(self._compressor, 0)
            self._compressor = 0

    def close(self) -> None:
        """Close the file."""
        self._await_compressor()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _is_read(path: str) -> bool:
    """Return whether a follower is at this file: it has a shared lock on the one that it reads, see logs/reader.py."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _forget(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def _rename(source: str, target: str) -> None:
    try:
        os.rename(source, target)
    except FileNotFoundError:
        return


def compress(path: str) -> None:
    """Replace a file by PATH.gz; at every moment one of the two is there and complete. Raises OSError."""
    import zlib

    partial = f"{path}.gz.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    target = os.open(partial, flags, 0o640)
    deflate, checksum, size = zlib.compressobj(wbits=-zlib.MAX_WBITS), 0, 0
    extra = struct.pack("<2sHQ", b"WH", 8, os.fstat(source).st_ino)
    _write_all(target, _GZIP_MAGIC + struct.pack("<IBBH", 0, 0, 255, len(extra)) + extra)
    while chunk := os.read(source, _CHUNK):
        checksum, size = zlib.crc32(chunk, checksum), size + len(chunk)
        _write_all(target, deflate.compress(chunk))
    _write_all(target, deflate.flush() + struct.pack("<II", checksum, size & 0xFFFFFFFF))
    os.rename(partial, f"{path}.gz")
    os.unlink(path)


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def origin(head: bytes) -> int:
    """Return the inode number of the file that a compressed one was made from, 0 when its head does not tell."""
    if len(head) < _GZIP_HEAD.size:
        return 0
    magic, _, _, _, _, field, length, inode = _GZIP_HEAD.unpack_from(head)
    return int(inode) if (magic, field, length) == (_GZIP_MAGIC, b"WH", 8) else 0
