"""JSON messages with descriptors over AF_UNIX SOCK_SEQPACKET.

    small   one packet: the JSON text                              fds: the message's own
    big     one packet: {"memfd":LENGTH}; the text is in the memfd   fds: the message's own, memfd

A packet has to fit the send buffer (net.core.wmem_default, often 208 KiB), so a text over `INLINE` bytes goes into
a sealed memfd, sent as the last descriptor. Descriptors arrive close-on-exec. The receiver owns them.
"""

from __future__ import annotations

import array
import fcntl
import json
import os
import socket
from collections.abc import Sequence
from typing import Any

INLINE = 64 * 1024
LIMIT = 64 * 1024 * 1024
MAX_FDS = 253  # SCM_MAX_FD, unix(7)
_FD_SPACE = socket.CMSG_SPACE(MAX_FDS * 4)
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW

_IN_MEMFD = b'{"memfd":'
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets fit for `send` and `receive`."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(sock: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
    """Send one message and duplicates of `fds`; raises BlockingIOError when a non-blocking socket is full."""
    send_text(sock, _encode(message).encode(), fds)


def send_text(sock: socket.socket, text: bytes, fds: Sequence[int] = ()) -> None:
    """Send a message that is JSON text already."""
    if len(text) <= INLINE:
        _transmit(sock, text, fds)
        return
    memfd = os.memfd_create("wherry-message", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with os.fdopen(memfd, "wb", closefd=False) as file:
            file.write(text)
        fcntl.fcntl(memfd, fcntl.F_ADD_SEALS, _SEALS)
        _transmit(sock, b"%b%d}" % (_IN_MEMFD, len(text)), [*fds, memfd])
    finally:
        os.close(memfd)


def _transmit(sock: socket.socket, text: bytes, fds: Sequence[int]) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([text], rights, socket.MSG_NOSIGNAL)


def receive(sock: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Return the next message and its descriptors; raises EOFError when the peer is gone."""
    text, fds = receive_text(sock)
    try:
        message = json.loads(text)
        if not isinstance(message, dict):
            raise ValueError("a message is a JSON object")
    except BaseException:
        close_all(fds)
        raise
    return message, fds


def receive_text(sock: socket.socket) -> tuple[bytes, list[int]]:
    """Return the next message as JSON text, and its descriptors; raises EOFError when the peer is gone."""
    try:
        text, ancillary, result, _ = sock.recvmsg(INLINE, _FD_SPACE, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError as error:  # the peer closed with something of ours unread: the same end
        raise EOFError("the peer is gone") from error
    received = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            received.frombytes(data[: len(data) - len(data) % received.itemsize])
    fds = received.tolist()
    try:
        if not text:
            raise EOFError("the peer is gone")
        if result & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise ValueError("message or descriptors truncated")
        return _read_memfd(fds) if text.startswith(_IN_MEMFD) else text, fds
    except BaseException:
        close_all(fds)
        raise


def close_all(fds: Sequence[int]) -> None:
    """Close the descriptors of a message that is not wanted."""
    for fd in fds:
        os.close(fd)


def _read_memfd(owned: list[int]) -> bytes:
    memfd = owned.pop()
    try:
        size = os.fstat(memfd).st_size
        if size > LIMIT:
            raise ValueError(f"message of {size} bytes")
        return os.pread(memfd, size, 0)
    finally:
        os.close(memfd)
