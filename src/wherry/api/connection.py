"""One client connection: bytes in, requests one after the other, answers out.

    HEAD -- complete --> BODY and ENDPOINT side by side -- answered --> (rest of the body thrown away) --> HEAD
                                    |
                                    +-- hijack: the socket leaves the event loop, this object is done

A pipelined request waits, unparsed, until the one before is answered. Backpressure: unread body and pipelined bytes
pause reading, an unsent answer pauses the endpoint. A client that goes away ends an endpoint that only waits for
something on its behalf (`Route.follows`) or streams to it; all others run to their end, because half a start or
half a remove is worse than an answer that nobody reads.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Protocol, cast

from wherry.api.answers import Answer, Reply, Stream, json_reply
from wherry.api.body import Body, ClientGone, MalformedBody
from wherry.api.head import Head, Incoming, Refused, find_end, parse_head, write_head
from wherry.api.sending import send_part
from wherry.models.parts import FilePart
from wherry.models.queries import ClientStream

log = logging.getLogger(__name__)

PIPELINE_LIMIT = 64 << 10
WRITE_HIGH = 256 << 10
DISCARD_LIMIT = 1 << 20
"""So much of an unwanted body is read to keep the connection; with more of it the connection ends."""
LINGER = 5.0
"""Seconds that a client may go on sending a body that nobody wants before its connection is closed under it."""
HEAD_TIMEOUT = 10.0
IDLE_TIMEOUT = 600.0

Hijack = Callable[[bytes], Awaitable[ClientStream]]


class Service(Protocol):
    """What a connection needs of the server: a request resolved at once, to be awaited for its answer."""

    def resolve(self, head: Head, body: Body, hijack: Hijack) -> tuple[Awaitable[Answer] | Reply, bool]:
        """Return the answer, or what will give it and whether that ends when the client goes away. Never raises."""
        ...


class Connection(asyncio.Protocol):
    """A server-side HTTP/1.1 connection."""

    def __init__(self, service: Service, live: set[Connection]) -> None:
        self._service = service
        self._live = live
        self._transport: asyncio.Transport
        self._buffer = bytearray()
        self._incoming: Incoming | None = None
        self._body: Body
        self._head: Head
        self._task: asyncio.Task[None] | None = None
        self._follows = False
        self._streaming = False
        self._closing = False
        self._eof = False
        self._gone = False
        self._hijacked = False
        self._writable: asyncio.Future[None] | None = None
        self._since = time.monotonic()
        self._paused = False

    # -- what the event loop calls ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called once, when the client has connected."""
        self._transport = cast(asyncio.Transport, transport)
        self._live.add(self)

    def data_received(self, data: bytes) -> None:
        """Take bytes: of a body that is coming in, of the next head, or of a request that has to wait."""
        if self._closing:
            return
        if self._incoming is not None:
            try:
                self._receive_body(data)
            except Refused as refusal:
                self._body_refused(refusal)
                return
        else:
            if not self._buffer:
                self._since = time.monotonic()
            self._buffer += data
        if self._task is None:
            self._advance()
        elif len(self._buffer) > PIPELINE_LIMIT:
            self._hold_back()

    def eof_received(self) -> bool:
        """The client sends nothing more; it may still read an answer."""
        if self._incoming is not None:
            self._closing = True
            self._body.fail(ClientGone("the client ended the connection within the request body"))
        self._eof = True
        if self._follows:
            self._cancel()
        return self._task is not None

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed both ways, or was handed over."""
        self._live.discard(self)
        self._closing = self._gone = True
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        if self._hijacked:
            return
        if self._incoming is not None:
            self._body.fail(ClientGone("the client closed the connection"))
        if self._follows or self._streaming:
            self._cancel()

    def pause_writing(self) -> None:
        """The client reads slower than we write."""
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """The client has caught up."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    def _cancel(self) -> None:
        """Cancel the endpoint.

        Not before its first step: bytes and the end of the stream may come in one turn of the loop, and a task that
        is cancelled before it starts never runs its clean-up.
        """
        if self._task is not None:
            asyncio.get_running_loop().call_soon(self._task.cancel, "client gone")

    # -- requests -----------------------------------------------------------------------------------------------

    def _pause(self, paused: bool) -> None:
        if paused == self._paused or self._gone or self._hijacked or self._transport.is_closing():
            return
        self._paused = paused
        if paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _hold_back(self) -> None:
        """Read no more while a request is served; what follows the client must go on reading, or not see its end."""
        if self._follows:
            self._transport.abort()
        else:
            self._pause(True)

    def _advance(self) -> None:
        """Begin with the requests in the buffer, until one takes its time or is not complete yet."""
        try:
            while self._buffer and self._task is None and self._incoming is None and not self._closing:
                end = find_end(self._buffer)
                if not end:
                    break
                self._begin(bytes(self._buffer[:end]), bytes(self._buffer[end:]))
        except Refused as refusal:
            self._closing = True
            self._write_reply(json_reply({"message": refusal.message}, refusal.status), keep_alive=False)
            self._transport.close()
        if self._eof and self._task is None:
            self._transport.close()

    def _begin(self, raw: bytes, rest: bytes) -> None:
        """Answer one request at once, or start the task that will. raw: its head, rest: what came behind it."""
        self._buffer.clear()
        self._head = parse_head(raw)
        incoming = Incoming(self._head)
        if incoming.empty:
            self._body = Body()
            self._buffer += rest
        else:
            self._body = Body(self._pause)
            self._incoming = incoming
            self._receive_body(rest)
            if self._incoming is not None and incoming.wants_continue:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        work, self._follows = self._service.resolve(self._head, self._body, self._hijack)
        if isinstance(work, Reply):
            self._write_answer(work)
            self._answered()
        else:
            self._task = asyncio.get_running_loop().create_task(self._serve(work))

    def _receive_body(self, data: bytes) -> None:
        """Take bytes of the body, and what follows it."""
        assert self._incoming is not None
        pieces, following = self._incoming.take(data)
        for piece in pieces:
            self._body.feed(piece)
        if following is not None:
            self._incoming = None
            self._body.finish()
            self._buffer += following
        elif self._body.discarded > DISCARD_LIMIT:
            self._linger()

    def _linger(self) -> None:
        """Drop what the client still sends, until it has seen the answer and closes.

        Closed at once, its write(2) would fail with EPIPE, which the docker CLI tells instead of the answer.
        """
        self._closing = True
        self._pause(False)
        asyncio.get_running_loop().call_later(LINGER, self._transport.close)

    def _body_refused(self, refusal: Refused) -> None:
        """What comes is no body: the endpoint that reads it fails, and nothing behind it is looked at."""
        self._incoming = None
        self._closing = True
        self._body.fail(MalformedBody(refusal.message))
        if self._task is None:
            self._transport.close()

    async def _serve(self, work: Awaitable[Answer]) -> None:
        """Answer one request; cancelled when there is nobody to answer."""
        try:
            answer = await work
            if isinstance(answer, Reply):
                self._write_answer(answer)
            elif isinstance(answer, Stream):
                self._streaming = True
                await self._stream(answer)
        except asyncio.CancelledError:
            if not self._hijacked:
                self._transport.abort()
            raise
        except ClientGone as error:
            log.debug("client lost", extra={"error": str(error)})
            self._transport.abort()
        except Exception:
            # the head is out, so the client learns of it by a missing last chunk
            log.exception("answer broken off", extra={"request": f"{self._head.method} {self._head.target!r}"})
            self._transport.abort()
        finally:
            self._task = None
            if not self._hijacked:
                self._answered()
                self._advance()

    def _answered(self) -> None:
        """Throw the rest of the body away, then close or be ready for the next request."""
        self._body.discard()
        self._follows = self._streaming = False
        self._since = time.monotonic()
        if self._incoming is not None and not self._head.keep_alive:
            self._linger()
        elif self._closing or not self._head.keep_alive:
            self._closing = True
            self._transport.close()
        else:
            self._pause(False)

    # -- answers ------------------------------------------------------------------------------------------------

    def _stays_open(self) -> bool:
        return self._head.keep_alive and not self._closing

    def _write_answer(self, reply: Reply) -> None:
        self._write_reply(reply, keep_alive=self._stays_open(), body=self._head.method != "HEAD")

    def _write_reply(self, reply: Reply, *, keep_alive: bool, body: bool = True) -> None:
        length = None if reply.status in (204, 304) else len(reply.body)
        head = write_head(reply.status, reply.headers, length=length, keep_alive=keep_alive, chunked=False)
        self._transport.write(head + reply.body if body else head)

    def _write(self, data: bytes) -> None:
        """Write a part of a stream; raises ClientGone.

        A write that fails closes the transport at once, while we are told of the end of the connection a turn later.
        """
        if self._transport.is_closing():
            raise ClientGone("the client closed the connection")
        self._transport.write(data)

    async def _stream(self, stream: Stream) -> None:
        """Send the head at once and each chunk as it comes, at the pace of the client."""
        chunked = self._head.chunked_answers
        keep = chunked and self._stays_open()
        self._write(write_head(stream.status, stream.headers, length=None, keep_alive=keep, chunked=chunked))
        self._transport.set_write_buffer_limits(high=WRITE_HIGH)
        try:
            async for chunk in stream.chunks:
                if isinstance(chunk, FilePart):
                    await self._send_part(chunk, chunked=chunked)
                elif chunk:
                    self._write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk)
                    await self._drain()
        finally:
            close = getattr(stream.chunks, "aclose", None)
            if close is not None:
                await close()
        if chunked:
            self._write(b"0\r\n\r\n")
        self._closing = self._closing or not keep

    async def _send_part(self, part: FilePart, *, chunked: bool) -> None:
        """Send a part of a file as one chunk, past the transport, which has nothing left to write meanwhile."""
        if chunked:
            self._write(b"%x\r\n" % part.size)
        self._transport.set_write_buffer_limits(high=0)
        await self._drain()
        descriptor = os.dup(self._transport.get_extra_info("socket").fileno())
        try:
            await send_part(descriptor, part)
        finally:
            os.close(descriptor)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH)
        if chunked:
            self._write(b"\r\n")

    async def _drain(self) -> None:
        if self._writable is not None:
            await self._writable
        if self._gone:
            raise ClientGone("the client closed the connection")

    async def _hijack(self, head: bytes) -> ClientStream:
        """Take the socket out of the event loop, then send the head on it in one write.

        The transport is dropped by abort(), which closes its descriptor without shutdown(2); ours is a duplicate,
        so the connection lives on. The descriptor is left in blocking mode.
        """
        if self._gone:
            raise ClientGone("the client closed the connection")
        if self._incoming is not None:
            raise ClientGone("the connection is asked to switch within the request body")
        self._transport.set_write_buffer_limits(high=0)
        await self._drain()
        self._pause(True)
        descriptor = os.dup(self._transport.get_extra_info("socket").fileno())
        self._hijacked = True
        early = bytes(self._buffer)
        self._live.discard(self)
        self._transport.abort()
        await _send_all(descriptor, head)
        return ClientStream(descriptor, early)

    # -- what the server calls ----------------------------------------------------------------------------------

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The request that is being served."""
        return self._task

    def check_time(self, now: float) -> None:
        """Close a connection on which the next head has not come in time."""
        if self._task is None and not self._closing:
            limit = HEAD_TIMEOUT if self._buffer or self._incoming is not None else IDLE_TIMEOUT
            if now - self._since > limit:
                self._closing = True
                self._transport.close()

    def shut_down(self) -> None:
        """End: at once when idle or only following something, else after the answer."""
        self._closing = True
        if self._task is None:
            self._transport.close()
        elif self._follows:
            self._cancel()


async def _send_all(descriptor: int, data: bytes) -> None:
    """Send on a descriptor that this function may own on failure: it is closed then."""
    stream = socket.socket(fileno=descriptor)
    try:
        stream.setblocking(False)
        await asyncio.get_running_loop().sock_sendall(stream, data)
        stream.setblocking(True)
        stream.detach()
    finally:
        stream.close()
