"""The driver journald: the native protocol of systemd-journald, a datagram for each line (JOURNAL_NATIVE_PROTOCOL).

MESSAGE=text\\n   or, for a value with newlines:   KEY\\n length, u64 little-endian, value\\n
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Any

from wherry.runtime.logdrivers.jsonfile import rfc3339
from wherry.runtime.logdrivers.lines import Lines, Part

SOCKET = "/run/systemd/journal/socket"
_PRIORITIES = {"stdout": b"6", "stderr": b"3"}


class Journald:
    """options: fields, a mapping of names in capitals to text, which every message carries."""

    def __init__(self, options: dict[str, Any]) -> None:
        if not os.path.exists(SOCKET):
            raise OSError(errno.ENOTCONN, "journald is not enabled on this host")
        self._fields = b"".join(_field(name, value.encode()) for name, value in options["fields"].items())
        self._epoch = _field("CONTAINER_LOG_EPOCH", os.urandom(32).hex().encode())
        self._ordinal = 0
        self._lines = Lines()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def put(self, stream: str, at: int, blocks: list[bytes]) -> None:
        """Send the lines; raises OSError with the last failure when all have been tried."""
        head = self._fields + _field("PRIORITY", _PRIORITIES[stream]) + self._epoch
        head += _field("SYSLOG_TIMESTAMP", rfc3339(at).encode())
        failure: OSError | None = None
        for line, part in self._lines.of(stream, blocks):
            self._ordinal += 1
            message = head + _field("CONTAINER_LOG_ORDINAL", b"%d" % self._ordinal) + _part(part)
            try:  # to the path each time: a journald that was started again has another socket there
                self._socket.sendto(message + _field("MESSAGE", line), SOCKET)
            except OSError as error:
                failure = OSError(error.errno, f"write unixgram {SOCKET}: {error.strerror}")
        if failure is not None:
            raise failure

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _field(name: str, value: bytes) -> bytes:
    if b"\n" in value:
        return b"%b\n%b%b\n" % (name.encode(), struct.pack("<Q", len(value)), value)
    return b"%b=%b\n" % (name.encode(), value)


def _part(part: Part | None) -> bytes:
    if part is None:
        return b""
    fields = {
        "CONTAINER_PARTIAL_MESSAGE": b"true",
        "CONTAINER_PARTIAL_ID": part.id.encode(),
        "CONTAINER_PARTIAL_ORDINAL": b"%d" % part.ordinal,
        "CONTAINER_PARTIAL_LAST": b"true" if part.last else b"false",
    }
    return b"".join(_field(name, value) for name, value in fields.items())
