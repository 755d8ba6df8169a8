"""The driver "macvlan": each container has a link with a MAC address of its own on a link of the host.

    bridge     containers reach each other and what is behind the parent
    private    no other container of the parent
    vepa       each other by way of a switch that sends back what it got (802.1Qbg), such as one in hairpin mode
    passthru   one container alone, with the parent's own MAC address

The host itself is reached in no mode (drivers/net/macvlan.c). Addresses and MAC addresses belong together as with
bridges, so nobody's ARP cache outside is ever wrong.
"""

from __future__ import annotations

import errno
import socket
import time
from dataclasses import replace

from wherry.kernel.netlink import link
from wherry.kernel.netlink.codec import Request
from wherry.kernel.netlink.socket import NetlinkSocket
from wherry.network import parents
from wherry.network.api import Endpoint
from wherry.network.driver import Joined
from wherry.network.drivers.sublink import Others, SublinkDriver
from wherry.network.ipam.subnets import AddressSpace
from wherry.network.records import Network
from wherry.network.sublinks import PASSTHRU

PATIENCE = 1.0


class MacvlanDriver(SublinkDriver):
    """Driver of one network."""

    def __init__(self, owner: str, space: AddressSpace, others: Others, mode: str) -> None:
        """mode: of the network's links."""
        super().__init__(owner, space, others)
        self._mode = mode

    def mac(self, endpoint: Endpoint) -> str:
        """Return the MAC address that belongs to an address; "" where the parent's will do."""
        if self._mode == PASSTHRU:
            return ""
        if endpoint.ipv4:
            return (bytes((0x02, 0x42)) + socket.inet_aton(endpoint.ipv4)).hex(":")
        return (bytes((0x02, 0x42)) + socket.inet_pton(socket.AF_INET6, endpoint.ipv6)[-4:]).hex(":")

    def attach(self, netlink: NetlinkSocket, network: Network, endpoint: Endpoint, netns_fd: int) -> Joined:
        """Make a link in a namespace, which the thread is in."""
        parent = parents.find(netlink, network)
        wanted = link.new_macvlan(endpoint.interface, parent.index, self._mode, netns_fd, mac=endpoint.mac)
        try:
            self._make(netlink, wanted)
            if self._mode == PASSTHRU and endpoint.mac:  # such a link begins with its parent's
                with NetlinkSocket() as inner:
                    inner.apply(link.set_attributes(endpoint.interface, link.address(endpoint.mac)))
        except OSError as error:
            why = parents.reason(error, "macvlan")
            raise OSError(error.errno, f"failed to create the macvlan port: {why}") from error
        return Joined(replace(endpoint, mac=endpoint.mac or parent.mac))

    def _make(self, netlink: NetlinkSocket, wanted: Request) -> None:
        """With passthru the parent is not free before the namespace is gone that had it last."""
        deadline = time.monotonic() + (PATIENCE if self._mode == PASSTHRU else 0)
        while True:
            try:
                return netlink.apply(wanted)
            except OSError as error:
                if error.errno != errno.EINVAL or time.monotonic() >= deadline:
                    raise
            time.sleep(0.01)
