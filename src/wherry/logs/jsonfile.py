"""Reading Docker's json-file format; the supervisor writes it (runtime/logdrivers/jsonfile.py).

    {"log":"text\\n","stream":"stdout","attrs":{"label":"value"},"time":"2026-01-02T03:04:05.678901234Z"}

A line that was cut at 16 KiB has no newline at the end of "log"; the next record goes on with it. A torn line (power
loss) is skipped.
"""

from __future__ import annotations

import calendar
import os
import re
import time
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import groupby

import msgspec

from wherry.logs.records import Record
from wherry.models.times import SECOND

CHUNK = 1 << 18
_LONGEST = 1 << 20  # of a record that is looked for: 16 KiB of output, six bytes each, and the attributes
_PROBE = 1 << 12


class LogRecord(msgspec.Struct, frozen=True, gc=False):
    """One record of the file."""

    log: str = ""
    stream: str = "stdout"
    time: str = ""
    attrs: dict[str, str] | None = None


_decoder = msgspec.json.Decoder(LogRecord)
_list_decoder = msgspec.json.Decoder(list[LogRecord])
_text_decoder = msgspec.json.Decoder(str)
_NOTHING: dict[str, str] = {}
_BROKEN = (msgspec.MsgspecError, UnicodeDecodeError)  # the second for a name or text that a disk has spoilt


@lru_cache(maxsize=256)
def _seconds(text: str) -> int:
    return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))


def parse_time(text: str) -> int:
    """Return RFC 3339 (UTC, up to nine decimals) as Unix ns; raises ValueError."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return _seconds(whole) * SECOND + int(fraction.ljust(9, "0")[:9] or "0")


def decode(data: bytes, *, timed: bool) -> tuple[list[Record], int]:
    """See `Format`."""
    used = data.rfind(b"\n") + 1
    if not used:
        return [], 0
    if not timed and (runs := _runs(data, used)) is not None:
        return runs, used
    whole = data[: used - 1]
    try:  # all at once, which takes a third of the time: no record has a newline in it
        found = _list_decoder.decode(b"[%b]" % whole.replace(b"\n", b","))
    except _BROKEN:
        found = _one_by_one(whole.split(b"\n"))
    return [
        (record.stream, record.time, record.log.encode("utf-8", "replace"), record.attrs or _NOTHING)
        for record in found
    ], used


def _one_by_one(lines: Iterable[bytes]) -> list[LogRecord]:
    """Leave out what is no record: a line that was torn when the machine lost power."""
    found = []
    for line in lines:
        try:
            found.append(_decoder.decode(line))
        except _BROKEN:
            continue
    return found


# Many records at once

_BEGIN = b'{"log":"'
_MIDDLE = b'\\n","stream":"'


def _runs(data: bytes, size: int) -> list[Record] | None:
    """Return the first `size` bytes as one record for each change of stream; None when they are not all whole lines.

    No record is looked at: what stands between the texts of two lines is the same each time but for stream and time,
    and taking it out leaves the output in JSON's escapes. Should a record differ, quotation marks are left that no
    JSON string can have, or newlines that were not ends of lines, and the answer is None.
    """
    first = data[: data.find(b"\n")]
    after = first.partition(_MIDDLE)[2]
    attributes, _, stamp = after.partition(b'",')[2].rpartition(b'"time":"')
    last = data.rfind(_MIDDLE, 0, size)
    ending = re.compile(_end(attributes)).fullmatch(data, last, size) if stamp and first.startswith(_BEGIN) else None
    if ending is None:
        return None  # the first or the last record is no whole line
    texts = _between(attributes).split(data[len(_BEGIN) : last])
    streams = [*texts[1::2], ending[1]]
    del texts[1::2]
    output = _unescaped(texts)
    if output is None:
        return None
    try:
        record = _decoder.decode(first)
    except _BROKEN:
        return None
    return [(name.decode(), record.time, text, record.attrs or _NOTHING) for name, text in _by_stream(streams, output)]


def _unescaped(texts: list[bytes]) -> bytes | None:
    output = b"\n".join(texts)
    if b"\\" in output or b'"' in output:
        try:
            output = _text_decoder.decode(b'"%b"' % b"\\n".join(texts)).encode("utf-8", "replace")
        except _BROKEN:
            return None
        if output.count(b"\n") != len(texts) - 1:
            return None
    return output + b"\n"


def _by_stream(streams: list[bytes], output: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Cut output where another stream begins; streams: of each line."""
    if streams.count(streams[0]) == len(streams):
        yield streams[0], output
        return
    lines = output.split(b"\n")
    start = 0
    for stream, group in groupby(streams):
        end = start + len(list(group))
        yield stream, b"\n".join(lines[start:end]) + b"\n"
        start = end


def _end(attributes: bytes) -> bytes:
    """Return a pattern of the end of a record of a whole line, with its stream as a group."""
    return re.escape(_MIDDLE) + rb'(stdout|stderr)",' + re.escape(attributes) + rb'"time":"[^"\n]*"\}\n'


@lru_cache(maxsize=64)
def _between(attributes: bytes) -> re.Pattern[bytes]:
    """Return what separates the texts of two lines: the end of one record and the begin of the next."""
    return re.compile(_end(attributes) + re.escape(_BEGIN))


# Places in a file


def end(descriptor: int) -> int:
    """See `Format`."""
    size = os.fstat(descriptor).st_size
    start = max(0, size - CHUNK)
    return start + os.pread(descriptor, size - start, start).rfind(b"\n") + 1


def tail(descriptor: int, lines: int) -> tuple[int, int, int]:
    """See `Format`; a record is a line of the file, so none has to be left out."""
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
                return position - size + found + 1, 0, 0
            end = found
        position -= size
    return 0, 0, missing if first else max(missing - 1, 0)


def since(descriptor: int, at: int) -> int:
    """See `Format`; halves the file until a block is left."""
    low, high = 0, os.fstat(descriptor).st_size
    while high - low > CHUNK:
        middle = (low + high) // 2
        start, when = _record_after(descriptor, middle)
        if 0 < when < at and start < high:
            low = start
        else:
            high = middle
    return low


def _record_after(descriptor: int, offset: int) -> tuple[int, int]:
    """Return where the first record begins that does so after `offset`, and its time; (0, 0) when there is none."""
    size = _PROBE
    while size <= _LONGEST:
        block = os.pread(descriptor, size, offset)
        start = block.find(b"\n") + 1
        while start and (stop := block.find(b"\n", start) + 1):
            if found := _one_by_one([block[start : stop - 1]]):
                return offset + start, parse_time(found[0].time)
            start = stop
        if len(block) < size:
            break
        size *= 4
    return 0, 0
