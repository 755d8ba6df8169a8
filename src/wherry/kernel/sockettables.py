"""Sockets as a network namespace's tables list them: /proc/PID/net/tcp and its kin (proc_pid_net(5)).

Addresses stand there as 32-bit words in the machine's byte order, ports in hexadecimal. State 0A is LISTEN; a udp
socket that is bound and not connected has 07 (include/net/tcp_states.h). In unix, flags 10000 is __SO_ACCEPTCON.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from wherry.kernel.procfs import Process

LISTEN, UNCONNECTED, ACCEPTS = "0A", "07", 0x10000
TABLES = (("tcp", LISTEN), ("tcp6", LISTEN), ("udp", UNCONNECTED), ("udp6", UNCONNECTED))


@dataclass(frozen=True, slots=True)
class Listening:
    """A socket that waits for others. address: an IP address, or a unix socket's path ("@..." an abstract one)."""

    protocol: str
    address: str
    port: int
    uid: int
    inode: int


def listening(process: Process) -> list[Listening]:
    """Return what listens in the network namespace of a process; raises OSError."""
    found: list[Listening] = []
    for protocol, state in TABLES:
        found += _internet(protocol, _lines(process, protocol), state)
    return [*found, *_unix(_lines(process, "unix"))]


def _lines(process: Process, table: str) -> list[str]:
    try:
        return process.lines(f"net/{table}")[1:]
    except FileNotFoundError:  # a kernel without IPv6
        return []


def _internet(protocol: str, lines: list[str], wanted: str) -> Iterator[Listening]:
    for line in lines:
        fields = line.split()
        if len(fields) < 10 or fields[3] != wanted:
            continue
        address, _, port = fields[1].partition(":")
        yield Listening(protocol, address_of(address), int(port, 16), int(fields[7]), int(fields[9]))


def address_of(words: str) -> str:
    """Return "0100007F" (on a little-endian machine) as "127.0.0.1", and 32 digits as an IPv6 address."""
    raw = bytes.fromhex(words)
    if sys.byteorder == "little":
        raw = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)


def _unix(lines: list[str]) -> Iterator[Listening]:
    for line in lines:
        fields = line.split(None, 7)
        if len(fields) == 8 and int(fields[3], 16) & ACCEPTS:
            yield Listening("unix", fields[7], 0, 0, int(fields[6]))
