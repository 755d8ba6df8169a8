"""Docker's json-file log, written chunk by chunk.

    {"log":"text\\n","stream":"stdout","attrs":{"label":"value"},"time":"2025-11-24T17:52:25.199275134Z"}

One line per line of output, in the escapes of Go's encoder: <, >, &, U+2028, U+2029 and control characters but \\n
and \\r as \\uXXXX, each byte that is not UTF-8 as \\ufffd. A line is cut after 16 KiB: a part without its "\\n" is
continued by the next record of that stream. "attrs" is absent when empty.

A whole chunk is turned into records by a handful of bytes operations, never by a loop over its lines: one
`replace` puts the end of a record and the start of the next in place of each newline. All lines of a chunk so
share one time: that of the read.
"""

from __future__ import annotations

import codecs
import json
import os
import time

from wherry.runtime.wire import LogTarget

CUT = 16 * 1024
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


def split(data: bytes) -> tuple[list[bytes], bytes]:
    """Cut `data` into blocks of whole lines and 16 KiB parts of longer ones; return them and the unended rest.

    A block either ends with a newline and holds only lines of at most `CUT` bytes, or is one part of `CUT` bytes.
    """
    blocks = []
    start = position = 0
    while len(data) - position >= CUT:
        newline = data.rfind(b"\n", position, position + CUT)
        if newline >= 0:
            position = newline + 1
            continue
        if position > start:
            blocks.append(data[start:position])
        blocks.append(data[position : position + CUT])
        start = position = position + CUT
    end = data.rfind(b"\n", position) + 1 or position
    if end > start:
        blocks.append(data[start:end])
    return blocks, data[end:]


def _attributes(attrs: dict[str, str]) -> bytes:
    text = json.dumps(attrs, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f'"attrs":{text},'.encode()


class JsonFileLog:
    """Writes the output of one container; a failed write raises OSError and leaves no torn line behind."""

    def __init__(self, target: LogTarget) -> None:
        self._target = target
        self._rest = {"stdout": b"", "stderr": b""}
        self._attrs = _attributes(target.attrs) if target.attrs else b""
        self._fd = -1
        self._size = 0
        self._open()

    def _open(self, flags: int = 0) -> None:
        self._fd = os.open(self._target.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | flags, 0o640)
        self._size = os.fstat(self._fd).st_size
        if self._size and os.pread(self._fd, 1, self._size - 1) != b"\n":
            self._append(b"\n")  # a crash tore the last line: keep it from swallowing ours

    def write(self, stream: str, data: bytes) -> None:
        """Log what was read from `stream`; an unended line waits for its end."""
        blocks, self._rest[stream] = split(self._rest[stream] + data)
        if blocks:
            self._put(b"".join(self._encode(stream, blocks)))

    def end(self, stream: str) -> None:
        """Log the unended last line of `stream`."""
        rest, self._rest[stream] = self._rest[stream], b""
        if rest:
            self._put(b"".join(self._encode(stream, [rest])))

    def close(self) -> None:
        """Log what is unended and close the file."""
        try:
            self.end("stdout")
            self.end("stderr")
        finally:
            if self._fd >= 0:
                os.close(self._fd)

    def _encode(self, stream: str, blocks: list[bytes]) -> list[bytes]:
        suffix = b'","stream":"%b",%b"time":"%b"}\n' % (
            stream.encode(),
            self._attrs,
            rfc3339(time.time_ns()).encode(),
        )
        between = b"\\n" + suffix + _PREFIX
        records: list[bytes] = []
        for block in blocks:
            if block.endswith(b"\n"):
                records += (_PREFIX, escape(block[:-1]).replace(b"\n", between), b"\\n", suffix)
            else:
                records += (_PREFIX, escape(block), suffix)
        return records

    def _put(self, records: bytes) -> None:
        limit = self._target.max_size
        if self._fd < 0:  # an earlier rotation failed half-way
            self._open()
        while 0 < limit < self._size + len(records):
            if self._size >= limit:
                self._rotate()
                continue
            cut = records.find(b"\n", limit - self._size - 1) + 1  # a file's last record may cross the limit
            self._append(records[:cut])
            records = records[cut:]
        if records:
            self._append(records)

    def _append(self, records: bytes) -> None:
        try:
            written = os.write(self._fd, records)
            while written < len(records):
                written += os.write(self._fd, records[written:])
        except OSError as error:
            os.ftruncate(self._fd, self._size)
            error.filename = self._target.path
            raise
        self._size += len(records)

    def _rotate(self) -> None:
        path = self._target.path
        os.close(self._fd)
        self._fd = -1
        if self._target.max_file < 2:
            self._open(os.O_TRUNC)
            return
        names = [path, *(f"{path}.{number}" for number in range(1, self._target.max_file))]
        for older, newer in zip(names[:0:-1], names[-2::-1], strict=True):
            try:
                os.rename(newer, older)
            except FileNotFoundError:
                continue
        self._open()
