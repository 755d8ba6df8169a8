"""The driver syslog: RFC 3164, RFC 5424, or what dockerd sends when no format is named; over any transport of syslog.

What dockerd does when a receiver is gone: it connects once more, and what cannot be sent then is lost. An empty line
is not sent. Messages end with a newline, and over TLS in RFC 5424 they begin with their length (RFC 5425).
"""

from __future__ import annotations

import errno
import os
import time
from typing import Any

from wherry.runtime.logdrivers.lines import Lines
from wherry.runtime.logdrivers.transport import Connection

LOCAL = ("/dev/log", "/var/run/syslog", "/var/run/log")
_SEVERITIES = {"stdout": 6, "stderr": 3}
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Syslog:
    """options: network ("" = the machine's own syslog), address, tls, facility (0-23), format, tag."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._facility = options["facility"] * 8
        self._format = options["format"]
        self._tag = options["tag"]
        self._host = os.uname().nodename
        self._lines = Lines()
        if options["network"]:
            self._connection = Connection(options["network"], options["address"], options["tls"])
            self._connection.dial()
        else:
            self._connection = _dial_local()
        self._counted = self._connection.network == "tcp+tls" and self._format.startswith("rfc5424")

    def put(self, stream: str, at: int, blocks: list[bytes]) -> None:
        """Send the lines; raises OSError with the last failure when all have been tried."""
        head = self._head(self._facility + _SEVERITIES[stream], at).encode()
        failure: OSError | None = None
        for line, _ in self._lines.of(stream, blocks):
            if line:
                message = head + line + b"\n"
                try:
                    self._send(b"%d %b" % (len(message), message) if self._counted else message)
                except OSError as error:
                    failure = error
        if failure is not None:
            raise failure

    def _send(self, message: bytes) -> None:
        if self._connection.open:
            try:
                return self._connection.send(message)
            except OSError:
                if self._connection.open:
                    raise
        self._connection.dial()
        self._connection.send(message)

    def _head(self, priority: int, at: int) -> str:
        clock = time.localtime(at // 1_000_000_000)
        pid = os.getpid()
        if self._format.startswith("rfc5424"):
            micro = f".{at % 1_000_000_000 // 1000:06d}" if self._format == "rfc5424micro" else ""
            stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', clock)}{micro}{_offset(clock)}"
            return f"<{priority}>1 {stamp} {self._host} {self._tag} {pid} {self._tag} - "
        stamp = f"{_MONTHS[clock.tm_mon - 1]} {clock.tm_mday:2d} {time.strftime('%H:%M:%S', clock)}"
        host = f"{self._host} " if self._format == "rfc3164" else ""
        return f"<{priority}>{stamp} {host}{self._tag}[{pid}]: "

    def close(self) -> None:
        """Let go of the receiver."""
        self._connection.close()


def _offset(clock: time.struct_time) -> str:
    text = time.strftime("%z", clock)
    return "Z" if text in ("+0000", "") else f"{text[:3]}:{text[3:]}"


def _dial_local() -> Connection:
    for network in ("unixgram", "unix"):
        for path in LOCAL:
            connection = Connection(network, [path], {})
            try:
                connection.dial()
            except OSError:
                continue
            return connection
    raise OSError(errno.ENOTCONN, "Unix syslog delivery error")
