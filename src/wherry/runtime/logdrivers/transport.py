"""Connections to receivers of logs, in a log process, where waiting harms nobody.

Errors read as Go's net package writes them ("dial tcp 127.0.0.1:514: connect: connection refused"): scripts look for
these words. A receiver that is there but does not read is waited for: what that means is decided in `outlet`.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

DIAL_PATIENCE = 10.0
"""Seconds until a receiver that does not answer counts as gone; dockerd waits as long as TCP does."""

_WORDS = {
    errno.ECONNREFUSED: "connection refused",
    errno.ENOENT: "no such file or directory",
    errno.ENETUNREACH: "network is unreachable",
    errno.EHOSTUNREACH: "no route to host",
    errno.EACCES: "permission denied",
    errno.EPROTOTYPE: "protocol wrong type for socket",
    errno.ECONNRESET: "connection reset by peer",
    errno.EPIPE: "broken pipe",
}


class Connection:
    """One receiver, dialled again when a write fails.

    network: "udp", "tcp", "tcp+tls", "unix" or "unixgram". address: [host, port] or [path]. tls: see `_tls`.
    patience: seconds a write may take, 0 = any.
    """

    def __init__(self, network: str, address: list[Any], tls: dict[str, Any], patience: float = 0.0) -> None:
        self.network = network
        self._address = address
        self._patience = patience
        self._context = _tls(tls) if network in ("tcp+tls", "tls") else None
        self._socket: socket.socket | None = None

    @property
    def where(self) -> str:
        """The address as people write it."""
        host, *port = self._address
        text = f"[{host}]" if ":" in str(host) and port else str(host)
        return f"{text}:{port[0]}" if port else text

    def dial(self) -> None:
        """Connect; raises OSError."""
        self.close()
        kind = {"tcp+tls": "tcp", "tls": "tcp"}.get(self.network, self.network)
        try:
            self._socket = self._connect(kind)
        except socket.gaierror as error:
            text = f"dial {kind}: lookup {self._address[0]}: no such host"
            raise OSError(errno.EHOSTUNREACH, text) from error
        except TimeoutError as error:
            raise OSError(errno.ETIMEDOUT, f"dial {kind} {self.where}: i/o timeout") from error
        except OSError as error:
            raise OSError(error.errno or errno.EIO, f"dial {kind} {self.where}: connect: {words(error)}") from error

    def _connect(self, kind: str) -> socket.socket:
        if kind in ("unix", "unixgram"):
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM if kind == "unix" else socket.SOCK_DGRAM)
            return self._connected(made, self._address[0])
        type_ = socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM
        failure: OSError = OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
        for family, _, protocol, _, address in socket.getaddrinfo(self._address[0], self._address[1], type=type_):
            try:
                made = self._connected(socket.socket(family, type_, protocol), address)
            except OSError as error:
                failure = error
                continue
            return self._secured(made)
        raise failure

    def _connected(self, made: socket.socket, address: Any) -> socket.socket:
        try:
            made.settimeout(DIAL_PATIENCE)
            made.connect(address)
            made.settimeout(self._patience or None)
        except BaseException:
            made.close()
            raise
        return made

    def _secured(self, made: socket.socket) -> socket.socket:
        if self._context is None:
            return made
        made.settimeout(DIAL_PATIENCE)
        wrapped: socket.socket = self._context.wrap_socket(made, server_hostname=str(self._address[0]))
        wrapped.settimeout(self._patience or None)
        return wrapped

    @property
    def open(self) -> bool:
        """Whether there is a connection, as far as we know."""
        return self._socket is not None

    def send(self, data: bytes) -> None:
        """Write all of `data`, as one datagram where the network has them; closes the connection and raises OSError."""
        if self._socket is None:
            raise OSError(errno.ENOTCONN, f"write {self.network} {self.where}: not connected")
        try:
            if self.network in ("udp", "unixgram"):
                self._socket.send(data)
            else:
                self._check_peer()
                self._socket.sendall(data)
        except OSError as error:
            if self.network != "udp":  # the ICMP answer to an earlier datagram; the socket is as good as before
                self.close()
            raise OSError(error.errno or errno.EIO, f"write {self.network} {self.where}: {words(error)}") from error

    def _check_peer(self) -> None:
        """Notice that the peer has closed: the first write after that would succeed and be lost."""
        if self._context is not None or self._socket is None:
            return
        self._socket.settimeout(0)  # MSG_DONTWAIT is not enough: with a timeout Python itself waits before the call
        try:
            if self._socket.recv(1, socket.MSG_PEEK) == b"":
                raise OSError(errno.EPIPE, os.strerror(errno.EPIPE))
        except BlockingIOError:
            return
        finally:
            self._socket.settimeout(self._patience or None)

    def receive(self) -> bytes:
        """Read what the receiver says; raises OSError at its end."""
        data = self._socket.recv(4096) if self._socket else b""
        if not data:
            self.close()
            raise OSError(errno.EPIPE, f"read {self.network} {self.where}: EOF")
        return data

    def close(self) -> None:
        """Let go of the receiver."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def words(error: OSError) -> str:
    """Return what happened as Go says it."""
    return _WORDS.get(error.errno or 0) or error.strerror or str(error)


def _tls(options: dict[str, Any]) -> Any:
    """Return the context of {"ca", "cert", "key": paths or "", "verify": bool}; raises OSError."""
    import ssl

    context = ssl.create_default_context()
    if not options.get("verify", True):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    ca, cert, key = (options.get(name, "") for name in ("ca", "cert", "key"))
    try:
        if ca:
            context.load_verify_locations(cafile=ca)
    except OSError as error:
        reason = f"open {ca}: {words(error)}" if error.errno else str(error)
        raise OSError(error.errno or errno.EINVAL, f'could not read CA certificate "{ca}": {reason}') from error
    try:
        if cert or key:
            context.load_cert_chain(cert, key or None)
    except OSError as error:
        missing = next((path for path in (cert, key) if not os.path.exists(path)), "")
        reason = f"open {missing}: no such file or directory" if not missing or error.errno else str(error)
        raise OSError(error.errno or errno.EINVAL, f"Could not load X509 key pair: {reason}") from error
    return context
