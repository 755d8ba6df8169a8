"""Reading a log from where it is: its tail without the rest, a window of time, and what comes later."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from wherry.logs import files
from wherry.logs.files import LogFile
from wherry.logs.jsonfile import parse_time
from wherry.logs.records import Format, Record

CHUNK = 1 << 18


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

    def __init__(self, path: str, form: Format, window: Window) -> None:
        self.path = path
        self._form = form
        self._window = window
        self._files: list[LogFile] = []
        self._offset = 0
        self._skip = 0
        self._rest = b""
        self._opened = False
        self.done = False

    def _open(self) -> None:
        """Open all files, and let go of those before the tail."""
        self._opened = True
        self._files = files.open_newer(self.path, 0)
        if self._files:
            self._files[-1].hold()
        wanted = self._window.tail
        if wanted < 0:
            return
        for number in reversed(range(len(self._files))):
            descriptor = self._files[number].descriptor
            if wanted == 0:
                self._offset, self._skip = self._form.end(descriptor), 0
            else:
                files.expand(self._files[number])
                self._offset, self._skip, wanted = self._form.tail(descriptor, wanted)
            if wanted == 0:
                for file in self._files[:number]:
                    file.close()
                del self._files[:number]
                return

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
            self._offset, self._rest = 0, b""

    def _read_first(self) -> Iterator[list[Record]]:
        if not self._files:
            return
        files.expand(self._files[0])
        while block := os.pread(self._files[0].descriptor, CHUNK, self._offset):
            self._offset += len(block)
            records, self._rest = self._form.decode(self._rest + block if self._rest else block)
            if self._skip:
                records, self._skip = records[self._skip :], max(0, self._skip - len(records))
            yield self._in_window(records)
            if self.done:
                return

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
