"""One HTTP exchange with a plugin, bounded in time and size, on a connection of its own.

A connection per call costs some 0.1 ms on a socket, and there is never one that a restarted plugin has forgotten.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from dataclasses import dataclass

from urllib3 import exceptions
from urllib3.connection import HTTPConnection, HTTPSConnection

from wherry.plugins.api import MEDIA_TYPE, Limits, PluginSilent
from wherry.plugins.discovery import Address
from wherry.version import WHERRY

ANSWER_LIMIT = 4 << 20
CONNECT_SECONDS = 5.0
"""For one attempt: a listener whose queue is full lets a connection wait."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body of an answer."""

    status: int
    body: bytes


class _SocketConnection(HTTPConnection):
    """HTTP over a socket of a path."""

    def __init__(self, path: str) -> None:
        super().__init__("plugin", timeout=CONNECT_SECONDS)
        self._path = path

    def _new_conn(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            made.settimeout(CONNECT_SECONDS)
            made.connect(self._path)
        except BaseException:
            made.close()
            raise
        return made


def _connection(address: Address) -> HTTPConnection:
    if address.path:
        return _SocketConnection(address.path)
    if address.tls is None:
        return HTTPConnection(address.host, address.port, timeout=CONNECT_SECONDS)
    context = ssl.create_default_context(cafile=address.tls.ca_file or None)
    if address.tls.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if address.tls.cert_file:
        context.load_cert_chain(address.tls.cert_file, address.tls.key_file or None)
    mode = ssl.CERT_NONE if address.tls.insecure_skip_verify else ssl.CERT_REQUIRED
    return HTTPSConnection(address.host, address.port, timeout=CONNECT_SECONDS, ssl_context=context, cert_reqs=mode)


def post(address: Address, method: str, body: bytes, limits: Limits) -> Answer:
    """Call a method. Raises PluginSilent; the text begins with the method."""
    try:
        connection = _connected(address, limits)
    except (OSError, ValueError, exceptions.HTTPError) as error:
        raise PluginSilent(f"{method}: cannot connect to the plugin: {_why(error)}") from error
    with _Deadline(connection, limits.answer) as deadline:
        try:
            connection.request("POST", f"/{method}", body=body, headers=_headers(), preload_content=False)
            with connection.getresponse() as answer:  # what is not read to its end keeps the socket
                data = answer.read(ANSWER_LIMIT + 1)
        except (OSError, http.client.HTTPException, exceptions.HTTPError) as error:
            why = f"no answer within {limits.answer:g} seconds" if deadline.over else _why(error)
            raise PluginSilent(f"{method}: the plugin does not answer: {why}") from error
    if deadline.over:  # what came until then may look like a whole answer without a length
        raise PluginSilent(f"{method}: the plugin does not answer: no answer within {limits.answer:g} seconds")
    if len(data) > ANSWER_LIMIT:
        raise PluginSilent(f"{method}: the plugin's answer is larger than {ANSWER_LIMIT} bytes")
    return Answer(answer.status, data)


def _headers() -> dict[str, str]:
    return {
        "Accept": MEDIA_TYPE,
        "Content-Type": MEDIA_TYPE,
        "Accept-Encoding": "identity",
        "User-Agent": f"wherry/{WHERRY}",
        "Connection": "close",
    }


def _connected(address: Address, limits: Limits) -> HTTPConnection:
    """Connect, trying again as dockerd does: after 1, 2, 4 ... seconds, as long as that fits into the time."""
    start, pause = time.monotonic(), limits.first_pause
    while True:
        connection = _connection(address)
        try:
            connection.connect()
            return connection
        except (OSError, exceptions.HTTPError):
            connection.close()
            if time.monotonic() - start + pause >= limits.connect:
                raise
        time.sleep(pause)
        pause *= 2


class _Deadline:
    """Cuts a connection off when its time is over: a socket's own timeout begins anew with each byte."""

    def __init__(self, connection: HTTPConnection, seconds: float) -> None:
        self._connection = connection
        self.over = False
        assert connection.sock is not None
        self._sock: socket.socket = connection.sock
        connection.timeout = None  # which each request sets anew on the socket
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def _cut(self) -> None:
        self.over = True
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:  # closed by the other end
            pass

    def __enter__(self) -> _Deadline:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._timer.join()
        self._connection.close()


def _why(error: Exception) -> str:
    inner = error.__cause__ or error.__context__ or error
    text = getattr(inner, "strerror", None) or getattr(error, "strerror", None)
    return str(text or error).lower()
