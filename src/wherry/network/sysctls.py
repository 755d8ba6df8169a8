"""Network sysctls: files below /proc/sys/net, which show those of the calling thread's network namespace."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from wherry.errors import InvalidArgument

ROOT = "/proc/sys"
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@-]*")


def path_of(name: str) -> str:
    """Return the path below /proc/sys of a sysctl; raises InvalidArgument for what is not a network sysctl.

    sysctl(8): when the first separator is a slash, dots are part of names, as in net/ipv4/conf/eth0.5/forwarding;
    when it is a dot, slashes stand for them.
    """
    first = next((char for char in name if char in "./"), "")
    parts = [part.replace("/", ".") for part in name.split(first or None)]
    if parts[:1] != ["net"] or len(parts) < 3 or not all(_PART.fullmatch(part) for part in parts):
        raise InvalidArgument(f"invalid sysctl {name!r}: not a network sysctl")
    return "/".join(parts)


def network_only(wanted: Mapping[str, str]) -> dict[str, str]:
    """Return the network sysctls among those of a container, by path."""
    return {path_of(name): value for name, value in wanted.items() if re.match(r"net[./]", name)}


def read(path: str) -> str:
    """Return the value of a sysctl. Raises OSError."""
    fd = os.open(f"{ROOT}/{path}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096).decode().strip()
    finally:
        os.close(fd)


def write(path: str, value: str, *, missing_ok: bool = False) -> None:
    """Set a sysctl. Raises OSError; missing_ok is for IPv6, which a kernel may lack."""
    try:
        fd = os.open(f"{ROOT}/{path}", os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        if missing_ok:
            return
        # in lower case, as clients look for it to exit with 127
        raise FileNotFoundError(error.errno, "no such file or directory", f"{ROOT}/{path}") from error
    try:
        os.write(fd, value.encode())
    except OSError as error:
        error.filename = f"{ROOT}/{path}"
        raise
    finally:
        os.close(fd)
