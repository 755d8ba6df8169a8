"""A D-Bus client as small as talking to systemd allows: method calls, their replies, and signals.

    hello      NUL, "AUTH EXTERNAL" and the user id in hexadecimal digits, "OK", "BEGIN"; lines end with CR LF
    message    "l" (little endian), type, flags, 1; length of the body, serial, length of the header fields (u32 each);
               header fields a(yv), padding to 8, body

D-Bus Specification 0.43, "Message Protocol" and "Authentication Protocol". No library: a supervisor runs without
site packages and pays for each module; this one is loaded where systemd makes the control groups, and nowhere else.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

CALL, REPLY, ERROR, SIGNAL = 1, 2, 3, 4
PATH, INTERFACE, MEMBER, ERROR_NAME, REPLY_SERIAL, DESTINATION, SIGNATURE = 1, 2, 3, 4, 5, 6, 8
MAXIMUM = 1 << 20
"""Bytes of a message that is taken; the protocol allows 128 MiB, systemd's answers to us have some hundred bytes."""

_FIELD_TYPES = {PATH: "o", INTERFACE: "s", MEMBER: "s", DESTINATION: "s", SIGNATURE: "g"}
_FIXED = {"y": "B", "b": "I", "n": "h", "q": "H", "i": "i", "u": "I", "x": "q", "t": "Q", "d": "d"}
_ALIGNMENT = {"s": 4, "o": 4, "g": 1, "v": 1, "a": 4, "(": 8, "{": 8} | {
    letter: struct.calcsize(code) for letter, code in _FIXED.items()
}


class Variant(NamedTuple):
    """A value that carries its type along: what the signature "v" stands for."""

    signature: str
    value: Any


class Remote(OSError):
    """The other side's error: errno EREMOTEIO, its words, and its name such as "org.freedesktop.DBus.Error.Failed"."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(errno.EREMOTEIO, text or name)
        self.name = name


class Message(NamedTuple):
    """What came in: its type (REPLY, ERROR, SIGNAL), header fields by code, and the values of its body."""

    kind: int
    fields: dict[int, Any]
    body: tuple[Any, ...]


def types(signature: str) -> list[str]:
    """Return the complete types of a signature: "sa{sv}u" has "s", "a{sv}" and "u". Raises OSError EBADMSG."""
    found, start = [], 0
    while start < len(signature):
        end = _end(signature, start)
        found.append(signature[start:end])
        start = end
    return found


def _end(signature: str, start: int) -> int:
    end = start
    while signature[end : end + 1] == "a":
        end += 1
    opening = signature[end : end + 1]
    if opening not in ("(", "{"):
        if opening not in _ALIGNMENT:
            raise OSError(errno.EBADMSG, f"not a D-Bus signature: {signature!r}")
        return end + 1
    depth = 0
    for position in range(end, len(signature)):
        depth += (signature[position] in "({") - (signature[position] in ")}")
        if depth == 0:
            return position + 1
    raise OSError(errno.EBADMSG, f"not a D-Bus signature: {signature!r}")


def encode(signature: str, values: Sequence[Any]) -> bytes:
    """Return the values in the wire's form. Structures and dictionary entries are sequences; "v" takes a Variant."""
    out = bytearray()
    for kind, value in zip(types(signature), values, strict=True):
        _put(out, kind, value)
    return bytes(out)


def _put(out: bytearray, kind: str, value: Any) -> None:
    letter = kind[0]
    out.extend(bytes(-len(out) % _ALIGNMENT[letter]))
    if letter in _FIXED:
        out += struct.pack("<" + _FIXED[letter], value)
    elif letter in "so":
        text = value.encode()
        out += struct.pack("<I", len(text)) + text + b"\0"
    elif letter == "g":
        out += bytes([len(value)]) + value.encode() + b"\0"
    elif letter == "v":
        _put(out, "g", value.signature)
        _put(out, value.signature, value.value)
    elif letter == "a":
        _put_array(out, kind[1:], value)
    else:
        for part, item in zip(types(kind[1:-1]), value, strict=True):
            _put(out, part, item)


def _put_array(out: bytearray, element: str, values: Sequence[Any]) -> None:
    """The length counts the elements alone, not the padding before the first of them."""
    place = len(out)
    out += bytes(4)
    out.extend(bytes(-len(out) % _ALIGNMENT[element[0]]))
    start = len(out)
    for each in values:
        _put(out, element, each)
    out[place : place + 4] = struct.pack("<I", len(out) - start)


class _Reader:
    """Takes values out of a message; alignment counts from its beginning."""

    def __init__(self, data: bytes, place: int = 0) -> None:
        self._data = data
        self.place = place

    def take(self, signature: str) -> tuple[Any, ...]:
        try:
            return tuple(self._take(kind) for kind in types(signature))
        except (struct.error, IndexError, UnicodeDecodeError) as error:
            raise OSError(errno.EBADMSG, f"a D-Bus message that does not match its signature {signature!r}") from error

    def align(self, alignment: int) -> None:
        self.place += -self.place % alignment

    def _fixed(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self._data, self.place)
        self.place += struct.calcsize(code)
        return value

    def _take(self, kind: str) -> Any:
        letter = kind[0]
        self.align(_ALIGNMENT[letter])
        if letter in _FIXED:
            value = self._fixed(_FIXED[letter])
            return bool(value) if letter == "b" else value
        if letter in "sog":
            return self._text(self._fixed("B" if letter == "g" else "I"))
        if letter == "v":
            return self.take(self._take("g"))[0]
        if letter == "a":
            return self._array(kind[1:])
        return self.take(kind[1:-1])

    def _text(self, length: int) -> str:
        raw = self._data[self.place : self.place + length]
        if len(raw) < length:
            raise IndexError(length)
        self.place += length + 1
        return raw.decode()

    def _array(self, element: str) -> list[Any]:
        length = self._fixed("I")
        self.align(_ALIGNMENT[element[0]])
        end = self.place + length
        if end > len(self._data):
            raise IndexError(end)
        found = []
        while self.place < end:
            found.append(self._take(element))
        return found


def decode(signature: str, data: bytes) -> tuple[Any, ...]:
    """Return the values in `data`; a variant is its value. Raises OSError EBADMSG."""
    return _Reader(data).take(signature)


class Connection:
    """One connection to a bus, or to a program that speaks D-Bus without one (bus=False)."""

    def __init__(self, address: str, *, bus: bool = True, seconds: float = 30.0) -> None:
        """Connect and say who we are. seconds: what any later wait may take. Raises OSError with the address."""
        self._serial = 0
        self._signals: list[Message] = []
        self._seconds = seconds
        self._buffer = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.settimeout(seconds)
            self._socket.connect(address)
            self._authenticate()
            if bus:
                self.call("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus.Hello")
        except OSError as error:
            self._socket.close()
            raise OSError(error.errno or errno.ETIMEDOUT, f"connect: {error.strerror or error}", address) from error

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def _authenticate(self) -> None:
        self._socket.sendall(b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\n")
        while b"\r\n" not in self._buffer:
            self._receive()
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        if not line.startswith(b"OK "):
            raise OSError(errno.EACCES, f"not let in: {line.decode(errors='replace')}")
        self._socket.sendall(b"BEGIN\r\n")

    def call(
        self, destination: str, path: str, method: str, signature: str = "", values: Sequence[Any] = ()
    ) -> tuple[Any, ...]:
        """Call a method, "INTERFACE.MEMBER", and return the values of its reply. Raises Remote, OSError."""
        self._serial += 1
        interface, _, member = method.rpartition(".")
        fields = {PATH: path, INTERFACE: interface, MEMBER: member, DESTINATION: destination}
        if signature:
            fields[SIGNATURE] = signature
        body = encode(signature, values)
        message = bytearray(struct.pack("<cBBBII", b"l", CALL, 0, 1, len(body), self._serial))
        _put(message, "a(yv)", [(code, Variant(_FIELD_TYPES[code], text)) for code, text in fields.items()])
        self._socket.sendall(message + bytes(-len(message) % 8) + body)
        reply = self._wait(lambda message: message.fields.get(REPLY_SERIAL) == self._serial)
        if reply.kind == ERROR:
            raise Remote(str(reply.fields.get(ERROR_NAME, "")), str(reply.body[0]) if reply.body else "")
        return reply.body

    def signal(self, member: str, wanted: Callable[[tuple[Any, ...]], bool]) -> tuple[Any, ...]:
        """Return the body of the next signal of that name that is wanted, one that came already included.

        Raises OSError ETIMEDOUT.
        """

        def fits(message: Message) -> bool:
            return message.kind == SIGNAL and message.fields.get(MEMBER) == member and wanted(message.body)

        for message in self._signals:
            if fits(message):
                return message.body
        return self._wait(fits).body

    def fileno(self) -> int:
        """The socket, for waiting: what is to be read may be a signal."""
        return self._socket.fileno()

    def signals(self) -> list[Message]:
        """Return the signals that have come, without waiting for more. Raises OSError when the connection is gone."""
        while select.select([self._socket], [], [], 0)[0]:
            self._receive()
        while (message := self._complete()) is not None:
            if message.kind == SIGNAL:
                self._signals.append(message)
        found, self._signals = self._signals, []
        return found

    def _wait(self, wanted: Callable[[Message], bool]) -> Message:
        deadline = time.monotonic() + self._seconds
        while True:
            message = self._next(deadline)
            if wanted(message):
                return message
            if message.kind == SIGNAL:
                self._signals.append(message)

    def _next(self, deadline: float) -> Message:
        while (message := self._complete()) is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise OSError(errno.ETIMEDOUT, "no answer over D-Bus")
            self._socket.settimeout(left)
            self._receive()
        return message

    def _receive(self) -> None:
        try:
            data = self._socket.recv(65536)
        except TimeoutError as error:
            raise OSError(errno.ETIMEDOUT, "no answer over D-Bus") from error
        if not data:
            raise OSError(errno.ECONNRESET, "the D-Bus connection was closed")
        self._buffer += data

    def _complete(self) -> Message | None:
        """Take one message off the buffer when all of it is there."""
        data = self._buffer
        if len(data) < 16:
            return None
        order, kind, _, _, body, _, listed = struct.unpack_from("<cBBBIII", data)
        start = 16 + listed + -listed % 8
        if order != b"l" or start + body > MAXIMUM:
            raise OSError(errno.EBADMSG, "a D-Bus message in another byte order, or larger than any that is expected")
        if len(data) < start + body:
            return None
        self._buffer = data[start + body :]
        fields: dict[int, Any] = dict(_Reader(data[:start], 12).take("a(yv)")[0])
        return Message(kind, fields, decode(str(fields.get(SIGNATURE, "")), data[start : start + body]))
