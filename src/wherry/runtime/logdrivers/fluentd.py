"""The driver fluentd: the forward protocol, version 1, in message mode: [tag, time, record, option] in msgpack.

A receiver that is gone is dialled again for ever, or as often as `max_retries` says, and the output waits meanwhile
(`async`: it does not wait, and what is too much is dropped; see `outlet`).
"""

from __future__ import annotations

import os
import struct
import time
from base64 import b64encode
from typing import Any

from wherry.runtime.logdrivers import msgpack
from wherry.runtime.logdrivers.lines import Lines, Part
from wherry.runtime.logdrivers.transport import Connection

_SLOWER = 1.5  # each wait is so much longer than the one before
_LONGEST = 60.0
_ACK_PATIENCE = 60.0


class Fluentd:
    """options: network, address, tls, tag, fields, connect (dial at once), max_retries, retry_wait (s), precise (times
    with ns), ack (ask for an answer to each message), write_timeout (s, 0 = any), reconnect_interval (s, 0 = never).
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._tag = msgpack.text(options["tag"].encode())
        self._fields = [msgpack.pair(name, value.encode()) for name, value in options["fields"].items()]
        self._lines = Lines()
        patience = options["write_timeout"] or (_ACK_PATIENCE if options["ack"] else 0.0)
        self._connection = Connection(options["network"], options["address"], options["tls"], patience)
        self._dialled = 0.0
        if options["connect"]:
            self._dial()

    def _dial(self) -> None:
        self._connection.dial()
        self._dialled = time.monotonic()

    def put(self, stream: str, at: int, blocks: list[bytes]) -> None:
        """Send the lines; raises OSError when the receiver did not come back in time."""
        interval = self._options["reconnect_interval"]
        if interval and time.monotonic() - self._dialled > interval:
            self._connection.close()
        if self._options["precise"]:
            seconds, rest = divmod(at, 1_000_000_000)
            stamp = b"\xd7\x00" + struct.pack(">II", seconds & 0xFFFFFFFF, rest)  # EventTime, an extension type 0
        else:
            stamp = msgpack.integer(at // 1_000_000_000)
        messages = [self._message(stream, stamp, line, part) for line, part in self._lines.of(stream, blocks)]
        if self._options["ack"]:
            for message in messages:
                self._acknowledged(message)
        else:
            self._persist(b"".join(message + b"\x80" for message in messages))

    def _message(self, stream: str, stamp: bytes, line: bytes, part: Part | None) -> bytes:
        pairs = [*self._fields, msgpack.pair("source", stream.encode()), msgpack.pair("log", line)]
        if part is not None:
            pairs += (
                msgpack.pair("partial_message", b"true"),
                msgpack.pair("partial_id", part.id.encode()),
                msgpack.pair("partial_ordinal", b"%d" % part.ordinal),
                msgpack.pair("partial_last", b"true" if part.last else b"false"),
            )
        return b"\x94" + self._tag + stamp + msgpack.mapping(pairs)

    def _acknowledged(self, message: bytes) -> None:
        chunk = b64encode(os.urandom(16))
        option = msgpack.mapping([msgpack.pair("chunk", chunk)])
        self._persist(message + option, lambda: self._await_ack(chunk))

    def _await_ack(self, chunk: bytes) -> None:
        answer = b""
        while chunk not in answer:  # {"ack": chunk}
            answer += self._connection.receive()

    def _persist(self, data: bytes, then: Any = None) -> None:
        wait = self._options["retry_wait"]
        for attempt in range(self._options["max_retries"] + 1):
            try:
                if not self._connection.open:
                    self._dial()
                self._connection.send(data)
                if then:
                    then()
                return
            except OSError:
                self._connection.close()
                if attempt == self._options["max_retries"]:
                    raise
            time.sleep(wait)
            wait = min(wait * _SLOWER, _LONGEST)

    def close(self) -> None:
        """Let go of the receiver."""
        self._connection.close()
