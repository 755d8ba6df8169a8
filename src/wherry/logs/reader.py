"""Reading a log from where it is: its tail without the rest, a window of time, and what comes later."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from wherry.logs import files
from wherry.logs.files import LogFile
from wherry.logs.jsonfile import parse_time
from wherry.logs.records import Format, Record

CHUNK = 1 << 17
"""Bytes that are read at once. A follower that does not read keeps some ten times as many in memory."""
_FIRST = 4 << 10
_LONGEST = 16 << 20
"""Bytes of a record, its attributes and all; where none ends within so many, the file is damaged."""


@dataclass(frozen=True, slots=True)
class Window:
    """Which records are wanted. since, until: Unix ns, 0 = open. tail: number of lines, -1 = all."""

    since: int = 0
    until: int = 0
    tail: int = -1


def time_of(record: Record) -> int:
    """Return a record's time in Unix ns."""
    at = record[1]
    return at if isinstance(at, int) else parse_time(at)


class Reader:
    """Reads a container's log and goes on when asked again, across rotations. Its calls may wait for the disk.

    Nothing is opened before the first call of `read`.
    """

    def __init__(self, path: str, form: Format, window: Window, *, timed: bool = True) -> None:
        self.path = path
        self._form = form
        self._window = window
        self._timed = timed or bool(window.since or window.until)
        self._files: list[LogFile] = []
        self._offset = 0
        self._skip = 0
        self._opened = False
        self.done = False

    def _open(self) -> None:
        """Open all files, and let go of those before what is wanted."""
        self._opened = True
        self._files = files.open_newer(self.path, 0)
        if self._files:
            self._files[-1].hold()
        if self._window.tail >= 0:
            self._seek_tail()
        elif self._window.since and self._files:
            self._seek_time()

    def _seek_tail(self) -> None:
        wanted = self._window.tail
        for number in reversed(range(len(self._files))):
            descriptor = self._files[number].descriptor
            if wanted == 0:
                self._offset, self._skip = self._form.end(descriptor), 0
            else:
                files.expand(self._files[number])
                self._offset, self._skip, wanted = self._form.tail(descriptor, wanted)
            if wanted == 0:
                self._let_go(number)
                return

    def _seek_time(self) -> None:
        """Begin in the newest file that was begun before the time that is asked for."""
        for number in reversed(range(len(self._files))):
            if 0 < self._begun(self._files[number]) < self._window.since:
                self._let_go(number)
                break
        files.expand(self._files[0])
        self._offset = self._form.since(self._files[0].descriptor, self._window.since)

    def _begun(self, file: LogFile) -> int:
        """Return the time of a file's first record in Unix ns, 0 when it has none."""
        size = _FIRST
        while size <= _LONGEST:
            head = files.head(file, size)
            records, used = self._form.decode(head, timed=True)
            if records:
                return time_of(records[0])
            if len(head) < size or used:
                break
            size *= 4
        return 0

    def _let_go(self, count: int) -> None:
        for file in self._files[:count]:
            file.close()
        del self._files[:count]

    def read(self) -> Iterator[list[Record]]:
        """Yield batches of the records that are there now; call again for later ones."""
        if not self._opened:
            self._open()
        while not self.done:
            yield from self._read_first()
            if len(self._files) < 2:
                known = self._files[0].inode if self._files else 0
                newer = files.open_newer(self.path, known)
                if not newer:
                    return
                newer[-1].hold()
                self._files += newer
                if not known:
                    continue
                yield from self._read_first()  # what was written until it was rotated away
            self._files.pop(0).close()
            self._offset = 0

    def _read_first(self) -> Iterator[list[Record]]:
        if not self._files:
            return
        files.expand(self._files[0])
        size = CHUNK
        while block := os.pread(self._files[0].descriptor, size, self._offset):
            records, used = self._form.decode(block, timed=self._timed)
            if not used and len(block) < size:
                return  # its end is not written yet
            if not used and size < _LONGEST:
                size *= 2
                continue
            self._offset += used or len(block)
            size = CHUNK
            if self._skip:
                records = self._without_first(records)
            yield self._in_window(records)
            if self.done:
                return

    def _without_first(self, records: list[Record]) -> list[Record]:
        """Leave out the lines before the tail."""
        for number, (stream, at, output, attributes) in enumerate(records):
            count = output.count(b"\n") + (not output.endswith(b"\n"))
            if count > self._skip:
                kept = output.split(b"\n", self._skip)[self._skip]
                self._skip = 0
                return [(stream, at, kept, attributes), *records[number + 1 :]]
            self._skip -= count
        return []

    def _in_window(self, records: list[Record]) -> list[Record]:
        since, until = self._window.since, self._window.until
        if since:
            records = [record for record in records if time_of(record) >= since]
        if until and records and time_of(records[-1]) > until:
            self.done = True
            records = [record for record in records if time_of(record) <= until]
        return records

    def close(self) -> None:
        """Close the files."""
        while self._files:
            self._files.pop().close()
