"""SCTP: this kernel may have no sockets of it, but its packets are led all the same. So they are made by hand.

INIT and INIT ACK of RFC 9260, the first two packets of an association, each through the address translation.
"""

from __future__ import annotations

import socket
import struct
import threading

import pytest

from tests.kernel.isolation import inside, isolated
from tests.kernel.network.firewall.world import HOST, NEIGHBOUR
from wherry.network.ports import PortRequest

pytestmark = pytest.mark.root
SCTP = 132
INIT, INIT_ACK = 1, 2
CLIENT, TAG = 33333, 0x01020304
_POLYNOMIAL = 0x82F63B78
"""CRC-32C with its bits turned round, RFC 9260, appendix A."""


def crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
    return value ^ 0xFFFFFFFF


def packet(source: int, target: int, tag: int, kind: int) -> bytes:
    """A packet of one chunk, INIT or INIT ACK, as it goes behind the header of IP."""
    chunk = struct.pack("!BBHIIHHI", kind, 0, 20, TAG, 65535, 1, 1, 7)
    head = struct.pack("!HHI", source, target, tag)
    return head + struct.pack("<I", crc32c(head + bytes(4) + chunk)) + chunk


class Ears:
    """A raw socket in a namespace: the packets of SCTP that come in, with who sent them."""

    def __init__(self, netns_fd: int) -> None:
        self.socket = inside(netns_fd, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, SCTP))
        self.socket.settimeout(5)

    def hear(self) -> tuple[str, int, int, int]:
        """Return the sender, both ports and the kind of the next packet."""
        data, (sender, _) = self.socket.recvfrom(2000)
        body = data[(data[0] & 15) * 4 :]
        source, target = struct.unpack_from("!HH", body)
        assert struct.unpack_from("<I", body, 8)[0] == crc32c(body[:8] + bytes(4) + body[12:])
        return sender, source, target, body[12]


@isolated
def test_an_association_gets_through_a_published_port_and_back(world):
    here = world()
    box = here.container("bridge", PortRequest("sctp", 5000, "", 15000, 15000))
    address = box.endpoints[0].ipv4
    server, client = Ears(box.netns_fd), Ears(here.neighbour)
    stop = threading.Event()

    def knock() -> None:
        while not stop.wait(0.1):  # a port of a bridge takes a moment to begin to forward
            client.socket.sendto(packet(CLIENT, 15000, 0, INIT), (HOST, 0))

    thread = threading.Thread(target=knock)
    thread.start()
    try:
        assert server.hear() == (NEIGHBOUR, CLIENT, 5000, INIT), "led to the container, the client's address kept"
        server.socket.sendto(packet(5000, CLIENT, TAG, INIT_ACK), (NEIGHBOUR, 0))
        assert client.hear() == (HOST, 15000, CLIENT, INIT_ACK), f"{address} is not seen outside"
    finally:
        stop.set()
        thread.join()
        server.socket.close()
        client.socket.close()


@isolated
def test_other_ports_stay_closed(world):
    here = world()
    box = here.container("bridge", PortRequest("sctp", 5000, "", 15000, 15000))
    server, client = Ears(box.netns_fd), Ears(here.neighbour)
    server.socket.settimeout(0.5)
    here.route("172.17.0.0/16")
    try:
        for target, port in ((HOST, 15001), (HOST, 5000), (box.endpoints[0].ipv4, 5000)):
            client.socket.sendto(packet(CLIENT, port, 0, INIT), (target, 0))
            with pytest.raises(TimeoutError):
                server.hear()
    finally:
        server.socket.close()
        client.socket.close()
