"""Names that only one holder in a network namespace can have: the port ids of netlink sockets.

bind(2) of a netlink socket to a port id that another socket of the same protocol and namespace has fails with
EADDRINUSE. That makes a lock of exactly the scope that links and rules have, which dies with its holder and leaves no
file. The kernel gives out process ids and numbers above 2^31 by itself (netlink_autobind), so the ids used here lie
between.
"""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import time

NETLINK_USERSOCK = 2


class Claim:
    """A name that is held until `close`."""

    def __init__(self, name: str, *, wait: float = 0) -> None:
        """Take the name, waiting up to `wait` seconds for its holder. Raises OSError, EADDRINUSE when it is held."""
        digest = hashlib.sha256(name.encode()).digest()
        port = 1 << 30 | int.from_bytes(digest[:4], "big") >> 2
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_USERSOCK)
        try:
            self._bind(port, name, time.monotonic() + wait)
        except OSError:
            self._socket.close()
            raise

    def _bind(self, port: int, name: str, deadline: float) -> None:
        while True:
            try:
                self._socket.bind((port, 0))
            except OSError as error:
                if error.errno == errno.EADDRINUSE and time.monotonic() < deadline:
                    time.sleep(0.01)
                    continue
                code = error.errno or errno.EIO
                raise OSError(code, f"bind: {os.strerror(code)}", f"netlink claim {name}") from error
            return

    def close(self) -> None:
        """Give the name back."""
        self._socket.close()

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
