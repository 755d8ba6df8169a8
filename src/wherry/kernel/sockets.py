"""What a socket tells only through ioctl(2)."""

from __future__ import annotations

import fcntl
import struct
import termios


def unsent(fd: int) -> int:
    """Return how many bytes written to the socket `fd` its peer has not read yet (unix) or not acknowledged (TCP).

    SIOCOUTQ, which has the number of TIOCOUTQ: tcp(7), unix(7). For a unix socket the kernel counts buffer overhead
    too, so only 0 is exact. Raises OSError: ENOTTY for what is no socket, EINVAL for a listening one.
    """
    try:
        answer = fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0\0\0\0")
    except OSError as error:
        error.filename = "ioctl SIOCOUTQ"
        raise
    return int(struct.unpack("i", answer)[0])
