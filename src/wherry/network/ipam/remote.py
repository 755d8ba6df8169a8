"""Addresses that a plugin gives out: which subnet a network has, its gateway, and each endpoint's address.

    a network is made      RequestPool, RequestAddress for the gateway and each auxiliary address
    an endpoint is made    RequestAddress
    and both backwards     ReleaseAddress, ReleasePool

Addresses of endpoints are rows of the table `addresses`, as those of our own pools. A row goes when the plugin has been
told, which is tried until it works. Between the plugin's answer and our row there is a moment in which the death of the
engine leaves an address with the plugin that nobody has.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterable
from functools import partial
from typing import TypeVar

from msgspec import structs

from wherry.errors import Conflict, EngineError, InvalidArgument, SystemFailure
from wherry.models.base import Model
from wherry.network import remotewire as wire
from wherry.network import sublinks
from wherry.network.announced import telling
from wherry.network.errands import Errands
from wherry.network.ipam.pool import WAITING
from wherry.network.records import Network
from wherry.plugins.api import IPAM, PluginFailed
from wherry.plugins.registry import Nothing, Plugins
from wherry.store.database import Database

log = logging.getLogger(__name__)

Result = TypeVar("Result")
IN_ORDER = 2.0
"""Seconds that somebody who wants an address waits for the plugin to hear of those that are free again."""


def ask(plugins: Plugins, name: str, method: str, request: Model | None, answer: type[Result]) -> Result:
    """Call a method of an address plugin. Raises PluginFailed with dockerd's text, PluginSilent, NotFound."""
    plugin = plugins.get(name, IPAM)
    try:
        return plugin.call(f"{IPAM}.{method}", request, answer)
    except PluginFailed as error:
        if error.status == 200:
            raise PluginFailed(f"remote: {error.reason}", error.reason, 200) from error
        raise


def with_pools(plugins: Plugins, network: Network) -> Network:
    """Return a network with the subnets and gateways that its plugin gives it. All or none; raises as `ask`."""
    space = ask(plugins, network.ipam_driver, "GetDefaultAddressSpaces", None, wire.AddressSpaces)
    try:
        if network.ipv4:
            pool_id, subnet, gateway = _pool(plugins, network, space.local_default_address_space, 4)
            network = structs.replace(network, pool_id=pool_id, subnet=subnet, gateway=gateway)
        if network.ipv6:
            pool_id, subnet, gateway = _pool(plugins, network, space.local_default_address_space, 6)
            network = structs.replace(network, pool_id6=pool_id, subnet6=subnet, gateway6=gateway)
    except BaseException:
        release_pools(plugins, network)
        raise
    return network


def _pool(plugins: Plugins, network: Network, space: str, version: int) -> tuple[str, str, str]:
    """Return a pool's id, its subnet and the gateway in it."""
    wanted, part, gateway, auxiliary = (
        (network.subnet, network.ip_range, network.gateway, network.auxiliary)
        if version == 4
        else (network.subnet6, network.ip_range6, network.gateway6, network.auxiliary6)
    )
    request = wire.PoolRequest(
        address_space=space, pool=wanted, sub_pool=part, options=network.ipam_options or {}, v6=version == 6
    )
    got = ask(plugins, network.ipam_driver, "RequestPool", request, wire.PoolAnswer)
    pool = RemoteAddresses(plugins, network.ipam_driver, got.pool_id)
    try:
        subnet = _subnet(network, got.pool, version)
        if gateway or network.driver not in sublinks.PREFIXES or sublinks.has_gateway(network):
            gateway = pool.request(gateway, {wire.ADDRESS_TYPE: wire.GATEWAY})
        for address in auxiliary.values():
            pool.request(address)
    except BaseException:
        _quietly(partial(pool.release_all, [*([gateway] if gateway else []), *auxiliary.values()]), network)
        raise
    return got.pool_id, subnet, gateway


def _subnet(network: Network, text: str, version: int) -> str:
    try:
        found = ipaddress.ip_network(text if "/" in text else "")
    except ValueError:
        raise SystemFailure(f"plugin {network.ipam_driver} gave a pool that is no subnet: {text!r}") from None
    if found.version != version:
        raise SystemFailure(f"plugin {network.ipam_driver} gave a pool of IPv{found.version}: {text}")
    return str(found)


def release_pools(plugins: Plugins, network: Network) -> None:
    """Give back a network's subnets with the addresses of its own. What the plugin refuses is logged."""
    families = (
        (network.pool_id, network.gateway, network.auxiliary),
        (network.pool_id6, network.gateway6, network.auxiliary6),
    )
    for pool_id, gateway, auxiliary in families:
        if pool_id:
            pool = RemoteAddresses(plugins, network.ipam_driver, pool_id)
            _quietly(partial(pool.release_all, [*([gateway] if gateway else []), *auxiliary.values()]), network)


def _quietly(work: partial[None], network: Network) -> None:
    try:
        work()
    except EngineError as error:
        log.warning("a plugin keeps a pool", extra={"network": network.name, "error": error.message})


class RemoteAddresses:
    """The addresses of a pool at a plugin."""

    def __init__(self, plugins: Plugins, name: str, pool_id: str) -> None:
        """name: of the plugin."""
        self._plugins = plugins
        self._name = name
        self._pool_id = pool_id

    def request(self, address: str, options: dict[str, str] | None = None) -> str:
        """Return an address, "" for any that is free; raises as `ask`."""
        request = wire.AddressRequest(pool_id=self._pool_id, address=address, options=options)
        text = ask(self._plugins, self._name, "RequestAddress", request, wire.AddressAnswer).address
        try:
            given = str(ipaddress.ip_interface(text if "/" in text else "").ip)
        except ValueError:
            raise SystemFailure(f"plugin {self._name} gave an address that is none: {text!r}") from None
        if address and given != address:
            raise SystemFailure(f"plugin {self._name} gave another address than the one asked for: {text}")
        return given

    def release(self, address: str) -> None:
        """Give an address back; raises as `ask`."""
        request = wire.AddressRef(pool_id=self._pool_id, address=address)
        ask(self._plugins, self._name, "ReleaseAddress", request, Nothing)

    def release_all(self, addresses: Iterable[str]) -> None:
        """Give addresses and then the pool back; raises as `ask`."""
        for each in addresses:
            self.release(each)
        ask(self._plugins, self._name, "ReleasePool", wire.PoolRef(pool_id=self._pool_id), Nothing)


class RemotePool:
    """As ipam/pool.py: AddressPool, asking a plugin. Thread-safe."""

    def __init__(self, database: Database, network: Network, version: int, plugins: Plugins, errands: Errands) -> None:
        """version: 4 or 6, of the subnet."""
        subnet, pool_id = (network.subnet, network.pool_id) if version == 4 else (network.subnet6, network.pool_id6)
        self._database = database
        self._network_id = network.id
        self._subnet = ipaddress.ip_network(subnet)
        self._addresses = RemoteAddresses(plugins, network.ipam_driver, pool_id)
        self._errands = errands

    @property
    def prefix(self) -> int:
        """The length of the subnet's prefix."""
        return self._subnet.prefixlen

    def offset(self, address: str) -> int:
        """The plugin chooses each address by itself."""
        return 0

    def allocate(self, container: str = WAITING, *, offset: int = 0) -> str:
        """Return an address that the plugin chooses. Raises SystemFailure, Unavailable."""
        return self._requested("", container)

    def reserve(self, address: str, container: str) -> str:
        """Take a certain address; raises Conflict when a container has it, else as `allocate`."""
        try:
            wanted = ipaddress.ip_address(address)
        except ValueError as error:
            raise InvalidArgument(f"invalid IPv{self._subnet.version} address: {address}") from error
        if wanted not in self._subnet:
            raise InvalidArgument(f"no configured subnet or ip-range contain the IP address {address}")
        self._errands.drained(self._network_id, IN_ORDER)
        if str(wanted) in self.given():
            raise Conflict("Address already in use")
        return self._requested(str(wanted), container)

    def _requested(self, wanted: str, container: str) -> str:
        self._errands.drained(self._network_id, IN_ORDER)
        with telling():
            address = self._addresses.request(wanted)
        row = (self._network_id, address, container)
        self._database.execute("INSERT OR REPLACE INTO addresses VALUES (?, ?, ?)", row)
        return address

    def release(self, addresses: Iterable[str]) -> None:
        """Have the plugin told that addresses are free."""
        for each in addresses:
            what = f"address {each} of network {self._network_id[:12]} is free"
            done = partial(self._forget, each)
            self._errands.submit(self._network_id, what, partial(self._addresses.release, each), done)

    def _forget(self, address: str) -> None:
        self._database.execute(
            "DELETE FROM addresses WHERE pool = ? AND address = ?", (self._network_id, address)
        )

    def given(self) -> set[str]:
        """Return all addresses in use."""
        rows = self._database.query("SELECT address FROM addresses WHERE pool = ?", (self._network_id,))
        return {address for (address,) in rows if (":" in address) == (self._subnet.version == 6)}
