"""The addresses of one subnet: the lowest free one is given out first, as dockerd does.

A row of the table `addresses` is written before its address is used and deleted after the link that had it is gone. Its
container is WAITING when the address went to a sandbox of the stock: `endpoints` says who took that, and after a crash
an address that no endpoint has is free. A network with IPv4 and IPv6 has a pool of each, with the same id.

Nothing is enumerated: what a pool costs are the addresses in use, not those that a /64 could have.
"""

from __future__ import annotations

import heapq
import ipaddress
import threading
from collections.abc import Iterable

from wherry.errors import Conflict, InvalidArgument, SystemFailure
from wherry.store.database import Database

WAITING = ""


class AddressPool:
    """Gives out the addresses of a subnet. Thread-safe."""

    def __init__(
        self, database: Database, pool: str, subnet: str, gateway: str, ip_range: str = "", reserved: Iterable[str] = ()
    ) -> None:
        """Take up what the store says is in use; rows outside of the subnet, from before it changed, are dropped.

        ip_range: the part of the subnet that `allocate` gives out. reserved: what nobody gets.
        """
        self._database = database
        self._pool = pool
        self._network = ipaddress.ip_network(subnet)
        self._range = ipaddress.ip_network(ip_range or subnet)
        self._address = type(self._network.network_address)
        self._lock = threading.Lock()
        self._used = {int(self._address(each)) for each in (gateway, *reserved) if each}
        self._freed: list[int] = []
        # The first address of an IPv6 subnet is that of its routers (RFC 4291, 2.6.1); the last one is like any other.
        ends = {int(self._network.network_address)}
        if self._network.version == 4:
            ends.add(int(self._network.broadcast_address))
        self._ends = frozenset(ends)
        self._next = max(int(self._network.network_address) + 1, int(self._range.network_address))
        self._last = min(int(self._network.broadcast_address), int(self._range.broadcast_address))
        self._load()

    @property
    def prefix(self) -> int:
        """The length of the subnet's prefix."""
        return self._network.prefixlen

    def _load(self) -> None:
        outside = []
        for address in self.given():
            if ipaddress.ip_address(address) in self._network:
                self._used.add(int(self._address(address)))
            else:
                outside.append(address)
        self._delete(outside)

    def offset(self, address: str) -> int:
        """Return the place of an address in the subnet, counted from its beginning."""
        return int(self._address(address)) - int(self._network.network_address)

    def allocate(self, container: str = WAITING, *, offset: int = 0) -> str:
        """Return a free address, now in use. Raises SystemFailure when there is none.

        offset: the place to prefer: that of an address of the network's other subnet. So both addresses go from one
        container to the next together, and with them the MAC address, which follows from the first: no neighbour's
        cache is ever wrong.
        """
        with self._lock:
            number = int(self._network.network_address) + offset
            if not offset or not self._can_give(number):
                number = self._lowest_free()
            self._used.add(number)
        return self._written(number, container)

    def _can_give(self, number: int) -> bool:
        inside = int(self._range.network_address) <= number <= self._last
        return inside and number not in self._ends and number not in self._used

    def _lowest_free(self) -> int:
        while self._freed:
            number = heapq.heappop(self._freed)
            if number not in self._used and self._address(number) in self._range:
                return number
        while self._next <= self._last:
            number = self._next
            self._next += 1
            if number not in self._used and number not in self._ends:
                return number
        version = self._network.version
        raise SystemFailure(f"no available IPv{version} addresses on this network's address pools: {self._range}")

    def reserve(self, address: str, container: str) -> str:
        """Take a certain address. Raises InvalidArgument when it is not of this subnet, Conflict when it is in use."""
        try:
            wanted = self._address("" if "%" in address else address)
        except ValueError as error:
            raise InvalidArgument(f"invalid IPv{self._network.version} address: {address}") from error
        if wanted not in self._network or int(wanted) in self._ends:
            raise InvalidArgument(f"no configured subnet or ip-range contain the IP address {address}")
        with self._lock:
            if int(wanted) in self._used:
                raise Conflict("Address already in use")
            self._used.add(int(wanted))
        return self._written(int(wanted), container)

    def _written(self, number: int, container: str) -> str:
        address = str(self._address(number))
        try:
            self._database.execute("INSERT INTO addresses VALUES (?, ?, ?)", (self._pool, address, container))
        except BaseException:
            self._forget([number])
            raise
        return address

    def release(self, addresses: Iterable[str]) -> None:
        """Make addresses free again, once nothing has them any more."""
        released = list(addresses)
        self._delete(released)
        self._forget(int(self._address(each)) for each in released)

    def _forget(self, numbers: Iterable[int]) -> None:
        with self._lock:
            for number in numbers:
                if number in self._used:
                    self._used.remove(number)
                    if number < self._next:  # a higher one comes up by itself
                        heapq.heappush(self._freed, number)

    def _delete(self, addresses: list[str]) -> None:
        if not addresses:
            return
        with self._database.transaction():
            for each in addresses:
                self._database.execute("DELETE FROM addresses WHERE pool = ? AND address = ?", (self._pool, each))

    def given(self) -> set[str]:
        """Return all addresses in use."""
        rows = self._database.query("SELECT address FROM addresses WHERE pool = ?", (self._pool,))
        return {address for (address,) in rows if (":" in address) == (self._network.version == 6)}
