"""The driver gelf: Graylog's format 1.1, one JSON object for each line.

Over UDP an object is compressed and, above 1420 bytes, cut into at most 128 chunks:
    0x1e 0x0f | message id, 8 bytes | number of the chunk, u8 | how many, u8 | data
Over TCP objects end with a zero byte, and a receiver that is gone is dialled again `max_reconnect` times.
"""

from __future__ import annotations

import errno
import json
import os
import time
import zlib
from typing import Any

from wherry.runtime.logdrivers.jsonfile import escape
from wherry.runtime.logdrivers.lines import Lines
from wherry.runtime.logdrivers.transport import Connection

CHUNK = 1420
_HEAD = 12
_MOST = 128
_LEVELS = {"stdout": b"6", "stderr": b"3"}
_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "zlib": zlib.MAX_WBITS}


class Gelf:
    """options: network (udp or tcp), address, compression (gzip, zlib, none), level (-1 to 9), fields (with their
    underscores), max_reconnect, reconnect_delay (seconds).
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        host = json.dumps(os.uname().nodename)
        self._head = b'{"version":"1.1","host":%b,"short_message":"' % host.encode()
        fields = json.dumps(options["fields"], ensure_ascii=False, sort_keys=True, separators=(",", ":"))[1:]
        self._tail = b"," + fields.encode() if options["fields"] else b"}"
        self._lines = Lines()
        self._connection = Connection(options["network"], options["address"], {})
        try:
            self._connection.dial()
        except OSError as error:
            text = f"gelf: cannot connect to GELF endpoint: {self._connection.where} {error.strerror}"
            raise OSError(error.errno, text) from error

    def put(self, stream: str, at: int, blocks: list[bytes]) -> None:
        """Send the lines; raises OSError with the last failure when all have been tried."""
        middle = b'","timestamp":%b,"level":%b%b' % (
            json.dumps(at // 1_000_000 / 1000).encode(),
            _LEVELS[stream],
            self._tail,
        )
        failure: OSError | None = None
        for line, _ in self._lines.of(stream, blocks):
            if not line:
                continue
            try:
                self._send(self._head + escape(line) + middle)
            except OSError as error:
                failure = error
        if failure is not None:
            raise failure

    def _send(self, message: bytes) -> None:
        if self._options["network"] == "udp":
            for chunk in chunks(self._compressed(message)):
                self._connection.send(chunk)
        else:
            self._send_tcp(message + b"\0")

    def _compressed(self, message: bytes) -> bytes:
        window = _WINDOWS.get(self._options["compression"])
        if window is None:
            return message
        deflate = zlib.compressobj(self._options["level"], wbits=window)
        return deflate.compress(message) + deflate.flush()

    def _send_tcp(self, message: bytes) -> None:
        failure = OSError(errno.ENOTCONN, "gelf: not connected")
        for attempt in range(self._options["max_reconnect"] + 1):
            try:
                if not self._connection.open:
                    self._connection.dial()
                return self._connection.send(message)
            except OSError as error:
                failure = error
            if attempt < self._options["max_reconnect"]:
                time.sleep(self._options["reconnect_delay"])
        raise failure

    def close(self) -> None:
        """Let go of the receiver."""
        self._connection.close()


def chunks(message: bytes) -> list[bytes]:
    """Return the datagrams of a message; raises OSError EMSGSIZE above 128 chunks."""
    if len(message) <= CHUNK:
        return [message]
    size = CHUNK - _HEAD
    count = -(-len(message) // size)
    if count > _MOST:
        raise OSError(errno.EMSGSIZE, f"gelf: message of {len(message)} bytes needs {count} chunks, more than {_MOST}")
    head = b"\x1e\x0f" + os.urandom(8)
    return [head + bytes((n, count)) + message[n * size : (n + 1) * size] for n in range(count)]
