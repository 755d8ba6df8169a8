"""Listening sockets: unix://PATH and fd:// (sockets that systemd made).

A unix socket can be connected to from the moment it listens, with the mode that it has then. So: bind under a
umask that gives nobody anything, chmod, chown, and only then listen.
"""

from __future__ import annotations

import errno
import grp
import os
import socket
import stat
from dataclasses import dataclass

from wherry.errors import InvalidArgument, SystemFailure

BACKLOG = 4096
LONGEST = 107
"""sun_path has 108 bytes, one for the final NUL, unix(7)."""
FIRST_FD = 3
"""SD_LISTEN_FDS_START, sd_listen_fds(3)."""
MODE = 0o660


@dataclass(frozen=True, slots=True)
class Listening:
    """A listening socket. path and inode: what to remove at the end, "" when it is not ours."""

    socket: socket.socket
    path: str = ""
    inode: tuple[int, int] = (0, 0)

    def unlink(self) -> None:
        """Remove the socket's name, unless somebody else has put another one there."""
        if not self.path:
            return
        try:
            found = os.lstat(self.path)
            if (found.st_dev, found.st_ino) == self.inode:
                os.unlink(self.path)
        except FileNotFoundError:
            return


def listen(host: str, *, group: str = "docker") -> list[Listening]:
    """Return the listening sockets of one -H; raises InvalidArgument or SystemFailure with what to do."""
    scheme, separator, rest = host.partition("://")
    if not separator:
        raise InvalidArgument(f"invalid host {host!r}: give unix://PATH or fd://")
    if scheme == "unix":
        return [_listen_unix(rest, group)]
    if scheme == "fd":
        return _inherited(rest)
    if scheme == "tcp":
        raise InvalidArgument(
            f"{host}: listening on TCP is not possible yet: without TLS everybody who reaches the port is root on "
            "this machine, and TLS is not there yet; use unix://PATH, and ssh to reach it from elsewhere"
        )
    raise InvalidArgument(f"invalid host {host!r}: unknown scheme {scheme!r}, give unix://PATH or fd://")


def _listen_unix(path: str, group: str) -> Listening:
    _check_path(path)
    try:
        _make_way(path)
        return _bind(path, group)
    except OSError as error:
        raise SystemFailure(f"cannot listen on unix://{path}: {error.strerror or error}") from error


def _check_path(path: str) -> None:
    if not path.startswith("/"):
        raise InvalidArgument(f"unix://{path}: the path must be absolute, as in unix:///run/wherry.sock")
    size = len(os.fsencode(path))
    if size > LONGEST:
        raise InvalidArgument(
            f"unix://{path}: the path has {size} bytes, the kernel takes {LONGEST}; choose a shorter one"
        )


def _make_way(path: str) -> None:
    """Remove a dead socket of ours; refuse everything else that has the name."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "no socket"
        raise SystemFailure(f"cannot listen on unix://{path}: what is there is {kind}; remove it first")
    if found.st_uid != os.geteuid():
        raise SystemFailure(f"cannot listen on unix://{path}: the socket there belongs to user id {found.st_uid}")
    if _is_alive(path):
        raise SystemFailure(f"cannot listen on unix://{path}: another process is listening there")
    os.unlink(path)


def _is_alive(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        failure = probe.connect_ex(path)
    return failure not in (errno.ECONNREFUSED, errno.ENOENT)


def _bind(path: str, group: str) -> Listening:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        before = os.umask(0o177)
        try:
            listening.bind(path)
        finally:
            os.umask(before)
        found = _open_to_group(path, group)
        listening.listen(BACKLOG)
    except BaseException:
        listening.close()
        raise
    return Listening(listening, path, (found.st_dev, found.st_ino))


def _open_to_group(path: str, group: str) -> os.stat_result:
    """Set mode and owner of the socket just bound, through a descriptor: the name could be swapped meanwhile."""
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISSOCK(found.st_mode):
            raise OSError(errno.ENOTSOCK, "somebody put something else in the place of the socket")
        os.chmod(f"/proc/self/fd/{descriptor}", MODE)
        if os.geteuid() == 0:
            os.chown(f"/proc/self/fd/{descriptor}", 0, _group_id(group))
        return found
    finally:
        os.close(descriptor)


def _group_id(group: str) -> int:
    """Return the group that may use the socket, root's when there is none of the name."""
    if group.isdecimal():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid if group else 0
    except KeyError:
        return 0


def _inherited(name: str) -> list[Listening]:
    """Return the sockets that the service manager passed; with a name, those of that name, sd_listen_fds(3)."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        raise InvalidArgument(
            "fd://: no sockets were passed to this process (LISTEN_PID); is it started by a socket unit?"
        )
    count = int(os.environ.get("LISTEN_FDS", "0"))
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    found = []
    for index in range(count):
        own = names[index] if index < len(names) else ""
        if name not in ("", "*", own, str(index + FIRST_FD)):
            continue
        found.append(Listening(_adopt(index + FIRST_FD)))
    if not found:
        raise InvalidArgument(f"fd://{name}: no such socket was passed to this process")
    return found


def _adopt(descriptor: int) -> socket.socket:
    os.set_inheritable(descriptor, False)
    adopted = socket.socket(fileno=descriptor)
    if adopted.family != socket.AF_UNIX or not adopted.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        adopted.detach()
        raise InvalidArgument(f"fd://: descriptor {descriptor} is no listening unix socket")
    adopted.setblocking(False)
    return adopted
