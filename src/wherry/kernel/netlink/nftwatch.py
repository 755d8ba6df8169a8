"""Changes of the nf_tables ruleset, as the kernel tells them to the group NFNLGRP_NFTABLES of a network namespace.

    DELTABLE, DELCHAIN, DELRULE, DELSET, DELSETELEM ...   one message for each thing, the table is attribute 1 of all
    NEWGEN                                                ends a transaction; attribute 2: the process that made it

include/uapi/linux/netfilter/nfnetlink.h and nf_tables.h; nf_tables_commit sends them once the transaction holds. The
process is its number in the first pid namespace. iptables of the nf_tables kind is seen, the legacy kind is not.
"""

from __future__ import annotations

import errno
import select
import socket
from dataclasses import dataclass, field

from wherry.kernel.netlink.codec import as_be32, as_text, attributes, decode
from wherry.kernel.netlink.nft import DELCHAIN, DELTABLE, SUBSYSTEM
from wherry.kernel.netlink.socket import NETLINK_NETFILTER

NFNLGRP_NFTABLES = 7
SO_RCVBUFFORCE = 33
BUFFER = 8 << 20
DELRULE, DELSET, NEWGEN = 8, 11, 15
TAKEN = {DELTABLE: "table", DELCHAIN: "chain", DELRULE: "rule", DELSET: "set"}
NFTA_GEN_PROC_PID = 2


@dataclass(frozen=True, slots=True)
class Removal:
    """Something that a transaction took away: "table", "chain", "rule" or "set", of a table. family: NFPROTO_*."""

    kind: str
    family: int
    table: str


@dataclass(slots=True)
class Transaction:
    """What one transaction took away. pid: of the process that made it, as the host counts; 0 when it is not known."""

    pid: int = 0
    removals: set[Removal] = field(default_factory=set)


class RulesetWatch:
    """A socket of the calling thread's network namespace. Not for several threads at once."""

    def __init__(self) -> None:
        """Listen from now on. Raises OSError."""
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, NETLINK_NETFILTER)
        self._open = Transaction()
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
            self._socket.bind((0, 1 << (NFNLGRP_NFTABLES - 1)))
        except OSError:
            self._socket.close()
            raise

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def fileno(self) -> int:
        """The socket, for waiting."""
        return self._socket.fileno()

    def read(self) -> tuple[list[Transaction], bool]:
        """Return the transactions that have come and took something away, and whether some were lost. Never waits."""
        found: list[Transaction] = []
        lost = False
        while select.select([self._socket], [], [], 0)[0]:
            try:
                data = self._socket.recv(1 << 17)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                lost = True
                continue
            found += self._parsed(data)
        return found, lost

    def _parsed(self, data: bytes) -> list[Transaction]:
        found = []
        for message in decode(data):
            kind = message.type & 0xFF
            if message.type >> 8 != SUBSYSTEM or (kind not in TAKEN and kind != NEWGEN):
                continue
            given = attributes(message.body[4:])
            if kind == NEWGEN:
                done, self._open = self._open, Transaction()
                done.pid = as_be32(given.get(NFTA_GEN_PROC_PID))
                found += [done] if done.removals else []
            else:
                self._open.removals.add(Removal(TAKEN[kind], message.body[0], as_text(given[1])))
        return found
