"""Docker's json-file log, written chunk by chunk.

    {"log":"text\\n","stream":"stdout","attrs":{"label":"value"},"time":"2025-11-24T17:52:25.199275134Z"}

One line per line of output, in the escapes of Go's encoder: <, >, &, U+2028, U+2029 and control characters but \\n
and \\r as \\uXXXX, each byte that is not UTF-8 as \\ufffd. A line is cut after 16 KiB (see `blocks`): a part without
its "\\n" is continued by the next record of that stream. "attrs" is absent when empty.

A whole chunk is turned into records by a handful of bytes operations, never by a loop over its lines: one
`replace` puts the end of a record and the start of the next in place of each newline. All lines of a chunk so
share one time: that of the read.
"""

from __future__ import annotations

import codecs
import json
import os
import time

from wherry.runtime.logdrivers.rotation import RotatedFile
from wherry.runtime.wire import LogTarget

_PREFIX = b'{"log":"'
_ESCAPES = {byte: b"\\u%04x" % byte for byte in (*range(0x20), *b"<>&")}
_ESCAPES |= {0x0D: b"\\r", 0x22: b'\\"', 0x5C: b"\\\\"}
del _ESCAPES[0x0A]
_PLAIN = bytes(byte for byte in range(0x100) if byte not in _ESCAPES)


def _replacements(error: UnicodeError) -> tuple[str, int]:
    """Answer each byte of an ill-formed sequence with one escaped U+FFFD, as Go does; Python would merge them."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\\ufffd" * (error.end - error.start), error.end


codecs.register_error("wherry-go", _replacements)


def escape(data: bytes) -> bytes:
    """Return `data` as the inside of a JSON string; newlines are left as they are."""
    special = data.translate(None, _PLAIN)
    if b"\\" in special:  # first: the other escapes bring backslashes of their own
        data = data.replace(b"\\", b"\\\\")
    while special:
        kind = special[:1]
        special = special.replace(kind, b"")
        if kind != b"\\":
            data = data.replace(kind, _ESCAPES[kind[0]])
    return data if data.isascii() else _escape_unicode(data)


def _escape_unicode(data: bytes) -> bytes:
    try:
        data.decode()
    except UnicodeDecodeError:
        data = data.decode("utf-8", "wherry-go").encode()
    return data.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")


def rfc3339(nanoseconds: int) -> str:
    """Format a Unix time as Go's RFC3339Nano does: no trailing zeros in the fraction."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{text}.{fraction:09d}".rstrip("0").rstrip(".") + "Z"


def _attributes(attrs: dict[str, str]) -> bytes:
    text = json.dumps(attrs, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f'"attrs":{text},'.encode()


class JsonFile:
    """The file of one container; a failed write raises OSError and leaves no torn line behind."""

    def __init__(self, target: LogTarget) -> None:
        self._attrs = _attributes(target.attrs) if target.attrs else b""
        self._file = RotatedFile(target, repair=_end_line, first_time=_first_time)

    def put(self, stream: str, at: int, blocks: list[bytes]) -> None:
        """Write blocks (see `blocks`) as records of the time `at` (Unix ns)."""
        suffix = b'","stream":"%b",%b"time":"%b"}\n' % (stream.encode(), self._attrs, rfc3339(at).encode())
        between = b"\\n" + suffix + _PREFIX
        records: list[bytes] = []
        for block in blocks:
            if block.endswith(b"\n"):
                records += (_PREFIX, escape(block[:-1]).replace(b"\n", between), b"\\n", suffix)
            else:
                records += (_PREFIX, escape(block), suffix)
        self._file.append(b"".join(records), at, _record_end)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _record_end(records: bytes, room: int) -> int:
    """Return the end of the record that crosses `room` bytes: a file's last record may be beyond its limit."""
    return records.find(b"\n", room - 1) + 1


def _end_line(fd: int, size: int) -> int:
    """Keep a line that a crash tore from swallowing ours."""
    return size if os.pread(fd, 1, size - 1) == b"\n" else size + os.write(fd, b"\n")


def _first_time(head: bytes) -> int:
    """Return the time of a file's first record in Unix ns."""
    text = head.partition(b"\n")[0].rpartition(b'"time":"')[2]
    numbers = text[:19].replace(b"-", b":").replace(b"T", b":").split(b":")
    if len(numbers) != 6 or not all(number.isdigit() for number in numbers):
        return 0
    year, month, day, hour, minute, second = map(int, numbers)
    return int(time.mktime((year, month, day, hour, minute, second, 0, 0, 0)) - time.timezone) * 1_000_000_000
