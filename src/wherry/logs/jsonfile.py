"""Reading Docker's json-file logs: tail without reading the rest, time limits, following across rotation.

    {"log":"text\\n","stream":"stdout","time":"2026-01-02T03:04:05.678901234Z"}

A line that was cut at 16 KiB has no newline at the end of "log"; the next record goes on with it. The supervisor
writes the files; the newest is PATH, older ones are PATH.1, PATH.2 ... A torn last line (power loss) is skipped.
"""

from __future__ import annotations

import calendar
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from wherry.errors import SystemFailure
from wherry.models.times import SECOND

CHUNK = 1 << 18


class LogRecord(msgspec.Struct, frozen=True):
    """One record of the file."""

    log: str = ""
    stream: str = "stdout"
    time: str = ""
    attrs: dict[str, str] = {}


_decoder = msgspec.json.Decoder(LogRecord)


@dataclass(frozen=True, slots=True)
class Window:
    """Which records are wanted. since, until: Unix ns, 0 = open. tail: number of lines, -1 = all."""

    since: int = 0
    until: int = 0
    tail: int = -1


def parse_time(text: str) -> int:
    """Return RFC 3339 (UTC, up to nine decimals) as Unix ns; raises ValueError."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    seconds = calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S"))
    return seconds * SECOND + int(fraction.ljust(9, "0")[:9] or "0")


def files(path: str) -> list[str]:
    """Return the log's files, oldest first; the newest always stands last, there or not."""
    older = []
    number = 1
    while os.path.exists(f"{path}.{number}"):
        older.append(f"{path}.{number}")
        number += 1
    return [*reversed(older), path]


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise SystemFailure(f"cannot read the log {path}: {error.strerror}") from error


def _tail_offset(descriptor: int, lines: int) -> tuple[int, int]:
    """Return where the last `lines` lines begin and how many of them this file lacks; reads from the end only."""
    position = os.fstat(descriptor).st_size
    missing = lines
    first = True
    while position > 0:
        size = min(CHUNK, position)
        block = os.pread(descriptor, size, position - size)
        end = len(block)
        if first and block.endswith(b"\n"):
            end -= 1
        first = False
        while (found := block.rfind(b"\n", 0, end)) >= 0:
            missing -= 1
            if missing == 0:
                return position - size + found + 1, 0
            end = found
        position -= size
    return 0, max(missing - 1, 0)


class Reader:
    """Reads a container's log from where it is and goes on when asked again, across a rotation."""

    def __init__(self, path: str, window: Window) -> None:
        self._path = path
        self._window = window
        self._queue: list[tuple[int, int]] = []
        self._rest = b""
        self._current: os.stat_result | None = None
        self._open_all()

    def _open_all(self) -> None:
        wanted = self._window.tail
        for path in reversed(files(self._path)):
            if not os.path.exists(path):
                continue
            descriptor = _open(path)
            if self._current is None:
                self._current = os.fstat(descriptor)
            offset = 0
            if wanted == 0:
                offset = os.fstat(descriptor).st_size
            elif wanted > 0:
                offset, wanted = _tail_offset(descriptor, wanted)
            self._queue.insert(0, (descriptor, offset))
            if wanted == 0:
                return

    def _take_up_newer(self) -> None:
        """Open the file that the writer has begun since, when there is one."""
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            return
        if self._current is None or (status.st_ino, status.st_dev) != (self._current.st_ino, self._current.st_dev):
            descriptor = _open(self._path)
            self._current = os.fstat(descriptor)
            self._queue.append((descriptor, 0))

    def read(self) -> Iterator[list[LogRecord]]:
        """Yield batches of the records that are there now; call again for later ones."""
        self._take_up_newer()
        while self._queue:
            descriptor, offset = self._queue[0]
            while block := os.pread(descriptor, CHUNK, offset):
                offset += len(block)
                self._queue[0] = (descriptor, offset)
                yield self._decode(block)
            if len(self._queue) == 1:
                return
            self._queue.pop(0)
            os.close(descriptor)
            self._rest = b""

    def _decode(self, block: bytes) -> list[LogRecord]:
        lines = (self._rest + block).split(b"\n")
        self._rest = lines.pop()
        records = []
        for line in lines:
            try:
                records.append(_decoder.decode(line))
            except msgspec.MsgspecError:
                continue  # a torn line: the machine lost power while it was written
        if self._window.since or self._window.until:
            return [record for record in records if self._in_window(record)]
        return records

    def _in_window(self, record: LogRecord) -> bool:
        at = parse_time(record.time)
        return at >= self._window.since and (not self._window.until or at <= self._window.until)

    def close(self) -> None:
        """Close the files."""
        while self._queue:
            os.close(self._queue.pop()[0])
