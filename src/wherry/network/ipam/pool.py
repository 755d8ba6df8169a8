"""The addresses of one network: the lowest free one is given out first, as dockerd does.

A row of the table `addresses` is written before its address is used and deleted after the link that had it is gone. Its
container is WAITING when the address went to a sandbox of the stock: `endpoints` says who took that, and after a crash
an address that no endpoint has is free.
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
        self._network = ipaddress.IPv4Network(subnet)
        self._range = ipaddress.IPv4Network(ip_range or subnet)
        self._lock = threading.Lock()
        self._used = {int(ipaddress.IPv4Address(each)) for each in (gateway, *reserved) if each}
        self._freed: list[int] = []
        self._next = max(int(self._network.network_address) + 1, int(self._range.network_address))
        self._last = min(int(self._network.broadcast_address) - 1, int(self._range.broadcast_address))
        self._load()

    def _load(self) -> None:
        outside = []
        for (address,) in self._database.query("SELECT address FROM addresses WHERE pool = ?", (self._pool,)):
            if ipaddress.IPv4Address(address) in self._network:
                self._used.add(int(ipaddress.IPv4Address(address)))
            else:
                outside.append(address)
        self._delete(outside)

    def allocate(self, container: str = WAITING) -> str:
        """Return a free address, now in use. Raises SystemFailure when there is none."""
        with self._lock:
            number = self._lowest_free()
            self._used.add(number)
        return self._written(number, container)

    def _lowest_free(self) -> int:
        while self._freed:
            number = heapq.heappop(self._freed)
            if number not in self._used and ipaddress.IPv4Address(number) in self._range:
                return number
        while self._next <= self._last:
            number = self._next
            self._next += 1
            if number not in self._used:
                return number
        raise SystemFailure(f"no available IPv4 addresses on this network's address pools: {self._range}")

    def reserve(self, address: str, container: str) -> str:
        """Take a certain address. Raises InvalidArgument when it is not of this subnet, Conflict when it is in use."""
        try:
            wanted = ipaddress.IPv4Address(address)
        except ValueError as error:
            raise InvalidArgument(f"invalid IPv4 address: {address}") from error
        ends = (self._network.network_address, self._network.broadcast_address)
        if wanted not in self._network or wanted in ends:
            raise InvalidArgument(f"no configured subnet or ip-range contain the IP address {address}")
        with self._lock:
            if int(wanted) in self._used:
                raise Conflict("Address already in use")
            self._used.add(int(wanted))
        return self._written(int(wanted), container)

    def _written(self, number: int, container: str) -> str:
        address = str(ipaddress.IPv4Address(number))
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
        self._forget(int(ipaddress.IPv4Address(each)) for each in released)

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
        return {row[0] for row in self._database.query("SELECT address FROM addresses WHERE pool = ?", (self._pool,))}
