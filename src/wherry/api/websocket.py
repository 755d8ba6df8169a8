"""WebSocket (RFC 6455) in front of a raw stream: GET /containers/ID/attach/ws.

The opening handshake is ours, since it is a head like others; the frames are wsproto's. A bridge between the client and
a socket pair, whose other end the supervisor gets, goes on after the request. This is the one way by which a
container's output passes through the engine; a client that does not read fills the pair, and what is more than that the
supervisor drops, as for any client.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import socket
from typing import TYPE_CHECKING

from wherry.api.head import COMMON
from wherry.api.request import Request
from wherry.errors import InvalidArgument
from wherry.models.queries import ClientStream, Upgrade
from wherry.supervision.background import spawn
from wherry.supervision.frames import Frames

if TYPE_CHECKING:
    from wsproto.connection import Connection

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
PIECE = 64 << 10
CLOSE_PATIENCE = 5.0
"""Seconds for the client to answer our close frame."""


def accept(request: Request) -> str:
    """Return Sec-WebSocket-Accept for a request (RFC 6455, 4.2); raises InvalidArgument when it is no handshake."""
    headers = request.headers
    if headers.get("upgrade", "").lower() != "websocket" or "upgrade" not in headers.get("connection", "").lower():
        raise InvalidArgument("this is an endpoint for WebSocket: send Connection: Upgrade and Upgrade: websocket")
    if headers.get("sec-websocket-version") != "13":
        raise InvalidArgument("unsupported WebSocket version: send Sec-WebSocket-Version: 13")
    key = headers.get("sec-websocket-key", "")
    try:
        if len(base64.b64decode(key, validate=True)) != 16:
            raise InvalidArgument("bad Sec-WebSocket-Key: it is not 16 bytes long")
    except binascii.Error:
        raise InvalidArgument("bad Sec-WebSocket-Key: it is not base 64") from None
    return base64.b64encode(hashlib.sha1(key.encode() + GUID, usedforsecurity=False).digest()).decode()


def upgrade(request: Request) -> Upgrade:
    """Return the function that answers the handshake and puts a bridge behind it; raises InvalidArgument at once."""
    answer = accept(request)

    async def connect(tty: bool) -> ClientStream:
        head = (
            f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {answer}\r\n{COMMON}\r\n"
        )
        taken = await request.hijack(head.encode())
        request.hijacked = True
        client = socket.socket(fileno=taken.fd)
        ours, theirs = socket.socketpair()
        for each in (client, ours):
            each.setblocking(False)
        spawn(_Bridge(client, ours, framed=not tty).run(taken.early), "a WebSocket")
        return ClientStream(theirs.detach())

    return connect


class _Bridge:
    """Carries messages to a raw stream and the stream's bytes, without the frames of `multiplexed`, to messages."""

    def __init__(self, client: socket.socket, stream: socket.socket, *, framed: bool) -> None:
        self._client = client
        self._stream = stream
        self._frames = Frames() if framed else None
        self._sending = asyncio.Lock()

    async def run(self, early: bytes) -> None:
        """Carry until both sides have ended."""
        from wsproto.connection import Connection, ConnectionType  # 3 MB that only this endpoint needs

        talk = Connection(ConnectionType.SERVER)
        inward = asyncio.ensure_future(self._inward(talk, early))
        try:
            await self._outward(talk)
            await asyncio.wait([inward], timeout=CLOSE_PATIENCE)
        except OSError:
            pass  # the client has gone; the container goes on
        finally:
            inward.cancel()
            await asyncio.gather(inward, return_exceptions=True)
            self._client.close()
            self._stream.close()

    async def _send(self, data: bytes) -> None:
        async with self._sending:
            await asyncio.get_running_loop().sock_sendall(self._client, data)

    async def _outward(self, talk: Connection) -> None:
        from wsproto.events import CloseConnection, Message
        from wsproto.utilities import LocalProtocolError

        loop = asyncio.get_running_loop()
        try:
            while data := await loop.sock_recv(self._stream, PIECE):
                for piece in self._frames.feed(data) if self._frames else (data,):
                    await self._send(talk.send(Message(data=bytearray(piece))))
            await self._send(talk.send(CloseConnection(code=1000)))
        except LocalProtocolError:
            return  # the client has closed; there is nobody to tell

    async def _inward(self, talk: Connection, early: bytes) -> None:
        from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
        from wsproto.utilities import RemoteProtocolError

        loop = asyncio.get_running_loop()
        data = early
        while True:
            if data:
                talk.receive_data(data)
            try:
                for event in talk.events():
                    if isinstance(event, BytesMessage | TextMessage):
                        text = event.data
                        await loop.sock_sendall(self._stream, text.encode() if isinstance(text, str) else bytes(text))
                    elif isinstance(event, Ping):
                        await self._send(talk.send(event.response()))
                    elif isinstance(event, CloseConnection):
                        self._stream.shutdown(socket.SHUT_RDWR)
                        await self._send(talk.send(event.response()))
                        return
            except RemoteProtocolError as error:
                self._stream.shutdown(socket.SHUT_RDWR)
                if error.event_hint is not None:
                    await self._send(talk.send(error.event_hint))
                return
            data = await loop.sock_recv(self._client, PIECE)
            if not data:
                self._stream.shutdown(socket.SHUT_RDWR)
                return
