"""The name server's place in a container: two sockets in its network namespace, at 127.0.0.11.

    table ip wherry_dns                in the container's namespace
      chain output  nat dstnat         ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:PORT, and the same for tcp

They do not listen on port 53 itself: a name server in the container that binds to 0.0.0.0:53 would find it taken. All
of 127.0.0.0/8 is local wherever the loopback link is up, so the address needs no configuration.
"""

from __future__ import annotations

import errno
import socket

from wherry.kernel import netns
from wherry.kernel.netlink import nft, nftexpr

ADDRESS = "127.0.0.11"
PORT = 53
TABLE = "wherry_dns"
BACKLOG = 64
MISSING = {errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.ENOENT}


def sockets(netns_fd: int) -> tuple[socket.socket, socket.socket]:
    """Return a UDP socket and a listening TCP socket in a namespace, to which port 53 leads.

    The thread stays in that namespace. The caller closes them. Raises OSError, which names what the kernel lacks.
    """
    netns.enter(netns_fd)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        for each in (udp, tcp):
            each.bind((ADDRESS, 0))
        tcp.listen(BACKLOG)
        _lead(udp.getsockname()[1], tcp.getsockname()[1])
    except BaseException:
        udp.close()
        tcp.close()
        raise
    return udp, tcp


def _lead(udp: int, tcp: int) -> None:
    change = nft.Ruleset()
    if nft.table_exists(TABLE):  # of a name server that has died
        change.delete_table(TABLE)
    change.table(TABLE)
    change.base_chain(TABLE, "output", "nat", nft.HOOK_OUTPUT, nft.PRIORITY_DSTNAT)
    for protocol, port in ((socket.IPPROTO_UDP, udp), (socket.IPPROTO_TCP, tcp)):
        match = nftexpr.to_port_of(ADDRESS, protocol, PORT)
        change.rule(TABLE, "output", *match, *nftexpr.destination4(ADDRESS, port))
    try:
        change.commit()
    except OSError as error:
        if error.errno not in MISSING:
            raise
        text = (
            f"{error.strerror}: names need nf_tables in the kernel, whatever the firewall's backend is; load the "
            "modules nf_tables, nft_chain_nat and nft_nat, or use the default bridge"
        )
        raise OSError(error.errno, text) from error
