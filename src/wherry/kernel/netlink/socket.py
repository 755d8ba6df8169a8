"""A netlink socket that sends many requests in one system call and checks every answer.

The kernel handles the messages of one datagram in order, inside sendmsg(2), and goes on after one that fails
(netlink_rcv_skb, net/netlink/af_netlink.c). An error is always answered, a success only when NLM_F_ACK is set; so only
the last request asks for an acknowledgement, and once it has come all errors of the ones before it have come too.

A socket belongs to the network namespace it was made in, wherever its holder goes afterwards: the namespace of a
container is configured through a socket made inside it, from any thread. It keeps that namespace alive.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Sequence
from types import TracebackType

from wherry.kernel.netlink.codec import (
    HEADER,
    NLM_F_ACK,
    NLM_F_ACK_TLVS,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLMSG_DONE,
    NLMSG_ERROR,
    Reply,
    Request,
    as_text,
    attributes,
    decode,
    encode,
)

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12
SOL_NETLINK = 270
NETLINK_CAP_ACK = 10  # since 4.3: an error does not carry our whole request back
NETLINK_EXT_ACK = 11  # since 4.12: an error carries a sentence
NETLINK_GET_STRICT_CHK = 12  # since 4.20: dumps honour the filters in their request
NLMSGERR_ATTR_MSG = 1
SO_SNDBUFFORCE = 32
"""As SO_SNDBUF, but past net.core.wmem_max, for those with CAP_NET_ADMIN: socket(7). Python's module lacks it."""
BUFFER = 1 << 16
DUMP_ATTEMPTS = 8

_deadline = struct.pack("ll", 20, 0)


class NetlinkSocket:
    """A bound netlink socket of the calling thread's network namespace. Not for several threads at once."""

    def __init__(self, protocol: int = NETLINK_ROUTE) -> None:
        """Open and bind a socket. Raises OSError."""
        self._sequence = 0
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _deadline)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
                self._socket.setsockopt(SOL_NETLINK, option, 1)
            self._socket.bind((0, 0))
        except OSError:
            self._socket.close()
            raise

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def __enter__(self) -> NetlinkSocket:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def apply(self, *requests: Request) -> None:
        """Send all requests in one message and wait until the kernel has handled them.

        Raises OSError for the first that failed with an errno it does not tolerate, with its operation and subject.
        The ones behind a failed one were tried too: a caller undoes as a whole.
        """
        self.batch(requests)

    def batch(self, requests: Sequence[Request], *, begin: bytes = b"", end: bytes = b"") -> None:
        """Like `apply`, framed by an opening and a closing message for families that have transactions.

        The opening message counts as sequence 0: an error for it is the failure of the whole transaction.
        """
        if not requests:
            return
        first = self._sequence + 1
        last = self._sequence = first + len(requests) - 1
        parts = [encode(each, first + at, NLM_F_ACK if first + at == last else 0) for at, each in enumerate(requests)]
        self._send(b"".join((begin, *parts, end)))
        failure: OSError | None = None
        finished = False
        while not finished:
            for reply in decode(self._receive()):
                if reply.type != NLMSG_ERROR or not (first <= reply.sequence <= last or (begin and not reply.sequence)):
                    continue
                request = requests[reply.sequence - first if reply.sequence else 0]
                failure = failure or _failure(reply, request)
                finished = finished or reply.sequence in (0, last)
        if failure:
            raise failure

    def dump(self, request: Request) -> list[Reply]:
        """Return all objects that match a request. Raises OSError; EBUSY when they keep changing meanwhile."""
        for _ in range(DUMP_ATTEMPTS):
            replies, interrupted = self._dump_once(request)
            if not interrupted:
                return replies
        raise OSError(errno.EBUSY, f"{request.operation}: the list kept changing while it was read", request.subject)

    def _dump_once(self, request: Request) -> tuple[list[Reply], bool]:
        self._sequence += 1
        self._send(encode(request, self._sequence, NLM_F_DUMP))
        replies: list[Reply] = []
        interrupted = False
        while True:
            for reply in decode(self._receive()):
                if reply.sequence != self._sequence:
                    continue
                interrupted = interrupted or bool(reply.flags & NLM_F_DUMP_INTR)
                if reply.type in (NLMSG_DONE, NLMSG_ERROR):
                    failure = _failure(reply, request)
                    if failure:
                        raise failure
                    return replies, interrupted
                replies.append(reply)

    def ask(self, request: Request) -> Reply:
        """Return the one object that a request names. Raises OSError, ENODEV or ENOENT when there is none."""
        self._sequence += 1
        self._send(encode(request, self._sequence, 0))
        while True:
            for reply in decode(self._receive()):
                if reply.sequence != self._sequence:
                    continue
                failure = _failure(reply, request) if reply.type == NLMSG_ERROR else None
                if failure:
                    raise failure
                return reply

    def _send(self, data: bytes) -> None:
        """Send one datagram. One larger than the send buffer, as a large transaction is, is refused: then it grows."""
        try:
            try:
                self._socket.sendto(data, (0, 0))
            except OSError as error:
                if error.errno != errno.EMSGSIZE:
                    raise
                self._socket.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, len(data))
                self._socket.sendto(data, (0, 0))
        except OSError as error:
            raise OSError(error.errno, f"sendto: {error.strerror}", "netlink") from error

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(BUFFER)
        except OSError as error:
            # EAGAIN is SO_RCVTIMEO: the kernel answers inside sendto, so it means that an answer got lost.
            raise OSError(error.errno, f"recv: {error.strerror}", "netlink") from error


def _failure(reply: Reply, request: Request) -> OSError | None:
    """Return the error that an NLMSG_ERROR or NLMSG_DONE reports; None for an acknowledgement."""
    code = -struct.unpack_from("=i", reply.body)[0] if len(reply.body) >= 4 else 0
    if code <= 0 or code in request.tolerate:
        return None
    why = os.strerror(code)
    if reply.type == NLMSG_ERROR and reply.flags & NLM_F_ACK_TLVS:
        # With NETLINK_CAP_ACK only the header of our request stands between the errno and the attributes.
        sentence = as_text(attributes(reply.body, 4 + HEADER.size).get(NLMSGERR_ATTR_MSG))
        why = f"{why} ({sentence})" if sentence else why
    return OSError(code, f"{request.operation}: {why}", request.subject)
