"""The networks of one engine: their records, drivers and address pools, found by name, id or beginning of an id.

A network is made bridge and rules first, the record after: what was acknowledged is in the store, and a bridge without
a record, of an engine killed in between, is known by its alias and taken away at the next start. It is removed the
record first, the bridge after, for the same reason.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from msgspec import structs

from wherry.errors import Conflict, EngineError, Forbidden, InvalidArgument, NotFound, SystemFailure
from wherry.failpoints import reach
from wherry.kernel.netlink import link
from wherry.kernel.netlink.socket import NetlinkSocket
from wherry.network import bridgeplan, choice, parents, sublinks
from wherry.network.announced import Announced, Told, forget_network
from wherry.network.api import Endpoint
from wherry.network.bridgeplan import BridgePlan
from wherry.network.config import NetworkConfig
from wherry.network.driver import Driver
from wherry.network.drivers.bridge import strays
from wherry.network.errands import Errands
from wherry.network.firewall.api import Firewall, Forward
from wherry.network.ipam import overlaps, subnets
from wherry.network.ipam.pool import AddressPool
from wherry.network.ipam.remote import RemotePool, release_pools, with_pools
from wherry.network.ipam.subnets import AddressSpace, Subnet, overlapping
from wherry.network.records import Attached, Network, decode_attached, decode_network, new_id
from wherry.plugins.registry import Plugins
from wherry.store.database import Database

log = logging.getLogger(__name__)

DRAIN = 10.0
"""Seconds in which a plugin may still hear of the endpoints of a network that is removed."""

BRIDGE, HOST, NONE = "bridge", "host", "none"
DEFAULTS = {BRIDGE: "bridge", HOST: "host", NONE: "null"}
"""The networks that are always there, with their drivers."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One network that is up, or could not be brought up at the start (then its driver makes no links)."""

    network: Network
    driver: Driver
    pool: AddressPool | RemotePool | None = None
    pool6: AddressPool | RemotePool | None = None

    def release(self, endpoints: Collection[Endpoint]) -> None:
        """Make the addresses of endpoints free again, once their links are gone."""
        for pool, addresses in self._pools(endpoints):
            pool.release(addresses)

    def keep(self, endpoints: Collection[Endpoint]) -> None:
        """Make all addresses free again but those of these endpoints."""
        for pool, addresses in self._pools(endpoints):
            pool.release(pool.given().difference(addresses))

    def _pools(self, endpoints: Collection[Endpoint]) -> Iterator[tuple[AddressPool | RemotePool, list[str]]]:
        if self.pool is not None:
            yield self.pool, [each.ipv4 for each in endpoints if each.ipv4]
        if self.pool6 is not None:
            yield self.pool6, [each.ipv6 for each in endpoints if each.ipv6]


class Directory:
    """All networks. Thread-safe: making and removing take turns, looking needs no lock."""

    def __init__(self, database: Database, config: NetworkConfig, run_root: Path, plugins: Plugins) -> None:
        """Know nothing yet. table: the name of the engine's rules in the packet filter; rules_table: where they are.

        inherited: the published ports of the engine before, from `open` on.
        """
        self._database = database
        self._config = config
        self._owner = hashlib.sha256(str(run_root).encode()).hexdigest()[:12]
        self.table = f"wherry-{config.bridge or self._owner}"
        self.rules_table = choice.rules_table(config, self.table)
        self._changing = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._firewall: Firewall | None = None
        self.inherited: tuple[Forward, ...] = ()
        self._space = AddressSpace()
        self._coming: dict[str, Network] = {}
        self._leaving: dict[str, Entry] = {}
        """Networks that a plugin is being asked about: to be made, and to be taken down."""
        self.told = Told(plugins, Announced(database), Errands())

    # Looking

    @property
    def firewall(self) -> Firewall:
        """The engine's rules; only after `open`."""
        assert self._firewall is not None, "open() comes first"
        return self._firewall

    def __iter__(self) -> Iterator[Entry]:
        return iter(tuple(self._entries.values()))

    def __contains__(self, network_id: object) -> bool:
        return network_id in self._entries

    def get(self, network_id: str) -> Entry | None:
        """Return the entry of an id; also of one that nobody finds any more, but that a plugin has to do with."""
        return self._entries.get(network_id) or self._leaving.get(network_id)

    def with_name(self, name: str) -> Network | None:
        """Return the network of a name."""
        return next((entry.network for entry in self if entry.network.name == name), None)

    def resolve(self, ref: str) -> Network:
        """Return the network with that id, name or unique beginning of an id; raises NotFound, InvalidArgument."""
        network = self._exactly(BRIDGE if ref == "default" else ref)
        if network is not None:
            return network
        found = [entry.network for entry in self if ref and entry.network.id.startswith(ref)]
        if len(found) > 1:
            raise InvalidArgument(f"network {ref} is ambiguous ({len(found)} matches found based on ID prefix)")
        if not found:
            raise NotFound(f"network {ref} not found")
        return found[0]

    def named(self, name: str) -> Network:
        """Return the network with that name or whole id; raises NotFound.

        For what is remembered: the name of one that was removed may begin the id of another.
        """
        network = self._exactly(name)
        if network is None:
            raise NotFound(f"network {name} not found")
        return network

    def _exactly(self, name: str) -> Network | None:
        if name in self._entries:
            return self._entries[name].network
        return next((entry.network for entry in self if entry.network.name == name), None)

    def unlink(self, netlink: NetlinkSocket, network_id: str, group: Iterable[Attached]) -> Entry | None:
        """Delete the links of endpoints in one network; return None when it was removed meanwhile."""
        linked = [each for each in group if each.endpoint.interface]
        entry = self.get(network_id)
        if entry is None:
            netlink.apply(*(link.delete_link(each.host_link) for each in linked if each.host_link))
        elif linked:
            entry.driver.detach(netlink, entry.network, linked)
        return entry

    # The life of an engine

    def open(self) -> None:
        """Bring all networks up. Without the default ones nothing works: then nothing remains of the attempt."""
        rows = self._database.query("SELECT name, record FROM networks ORDER BY id")
        known = {name: decode_network(record) for name, record in rows}
        ours = [network for name, network in known.items() if name not in DEFAULTS]
        self._space = AddressSpace(subnets.pools(self._config.pools, self._global_id()))
        rules = [self._plan(network).rules(network) for network in ours if network.driver == "bridge"]
        self.inherited = self._forwards()
        self._firewall = choice.firewall(self._config, self.table, rules, self.inherited)
        self._sweep_links(ours)
        with ExitStack() as undo:
            for name, kind in DEFAULTS.items():
                if name == BRIDGE and not self._config.bridge:
                    continue
                before = known.get(name) or Network(id=new_id(), name=name, driver=kind, created=time.time_ns())
                before = bridgeplan.with_settings(before, self._config) if name == BRIDGE else before
                driver = choice.driver(before, self._default_plan, self._around())
                network = self._opened(driver, before, [subnet for each in ours for subnet in each.subnets])
                undo.callback(driver.close, network, remove=before.subnet == "")
                if name == BRIDGE:
                    bridgeplan.check_settings(network, self._config)
                self._write(network)
                self._admit(network, driver)
            undo.pop_all()
        for network in ours:
            self._reopen(network)
        for network_id, plugin in self.told.announced.networks().items():
            if network_id not in self:
                log.warning("a plugin forgets a network that was never complete", extra={"network": network_id})
                forget_network(self.told, plugin, network_id)

    def _global_id(self) -> bytes:
        """Return the 40 random bits of the engine's IPv6 subnets, drawn once: RFC 4193."""
        rows = self._database.query("SELECT value FROM meta WHERE key = 'ipv6-global-id'")
        if not rows:
            fresh = os.urandom(5).hex()
            self._database.execute("INSERT INTO meta (key, value) VALUES ('ipv6-global-id', ?)", (fresh,))
            return bytes.fromhex(fresh)
        return bytes.fromhex(rows[0][0])

    def _forwards(self) -> tuple[Forward, ...]:
        """Return the published ports of the engine before: what of it still runs is not known yet."""
        rows = self._database.query("SELECT record FROM endpoints")
        return tuple(each for (record,) in rows for each in decode_attached(record).forwards)

    def _around(self) -> choice.Surroundings:
        networks = lambda: [entry.network for entry in self]  # noqa: E731
        return choice.Surroundings(self._owner, self.firewall, self._space, networks, self.told)

    def _reopen(self, network: Network) -> None:
        """Bring a user's network up again; one that cannot be is no reason to leave all others down."""
        driver = choice.driver(network, lambda: self._plan(network), self._around())
        try:
            driver.open(network)
        except (OSError, EngineError) as error:
            log.error("network is down", extra={"network": network.name, "error": str(error)})
        self._admit(network, driver)

    def _sweep_links(self, known: Collection[Network]) -> None:
        with NetlinkSocket() as netlink:
            bridges = strays(netlink, self._owner, {each.id for each in known})
            for name in (*bridges, *parents.strays(netlink, self._owner, known)):
                log.warning("removing the link of a network that was never complete", extra={"link": name})
                netlink.apply(link.delete_link(name))

    def _default_plan(self) -> BridgePlan:
        return bridgeplan.of_default(self._config, self._space)

    def _plan(self, network: Network) -> BridgePlan:
        return bridgeplan.of_network(network, self._config, self._owner, self._space)

    def _opened(self, driver: Driver, network: Network, avoid: Collection[Subnet]) -> Network:
        try:
            return driver.open(network, avoid)
        except OSError as error:
            raise SystemFailure(f"cannot bring up network {network.name}: {why(error)}") from error

    def _write(self, network: Network) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO networks VALUES (?, ?, ?)", (network.id, network.name, network.encode())
        )

    def _admit(self, network: Network, driver: Driver) -> None:
        pools = (self._pool(network, version) for version in (4, 6))
        self._entries[network.id] = Entry(network, driver, *pools)

    def _pool(self, network: Network, version: int) -> AddressPool | RemotePool | None:
        subnet, gateway, ip_range, auxiliary = (
            (network.subnet, network.gateway, network.ip_range, network.auxiliary)
            if version == 4
            else (network.subnet6, network.gateway6, network.ip_range6, network.auxiliary6)
        )
        if not subnet:
            return None
        if network.ipam_driver != "default":
            return RemotePool(self._database, network, version, self.told.plugins, self.told.errands)
        return AddressPool(self._database, network.id, subnet, gateway, ip_range, auxiliary.values())

    def close(self, *, remove: bool) -> None:
        """Give all networks up; with remove take bridges and rules away. The records stay."""
        for entry in reversed(tuple(self)):
            self._close(entry, remove=remove)

    def _close(self, entry: Entry, *, remove: bool) -> None:
        try:
            entry.driver.close(entry.network, remove=remove)
        except OSError as error:
            raise SystemFailure(f"cannot take down network {entry.network.name}: {why(error)}") from error

    def create(self, wanted: Network) -> Network:
        """Bring a new network up; raises Conflict (its name), Forbidden (its subnet or bridge), SystemFailure.

        Unavailable, NotFound: a plugin. Nobody waits for that one but who makes a network that it has to do with.
        """
        if choice.asks(wanted):
            return self._create_asking(wanted)
        with self._changing:
            self._check_free(wanted)
            driver = choice.driver(wanted, lambda: self._plan(wanted), self._around())
            with ExitStack() as undo:
                network = self._opened(driver, wanted, self._subnets())
                undo.callback(driver.close, network, remove=True)
                reach("network.bridge")
                self._write(network)
                undo.pop_all()
            self._admit(network, driver)
            return network

    def _create_asking(self, wanted: Network) -> Network:
        """As `create`. Name and subnet are taken while plugins are asked; they come up last, when nothing can fail."""
        with self._changing:
            self._check_free(wanted)
            if wanted.ipam_driver == "default":
                wanted = self._with_subnets(wanted)
            self._coming[wanted.id] = wanted
        try:
            with ExitStack() as undo:
                if wanted.ipam_driver != "default":
                    wanted = with_pools(self.told.plugins, wanted)
                    undo.callback(release_pools, self.told.plugins, wanted)
                driver = choice.driver(wanted, lambda: self._plan(wanted), self._around())
                network = self._opened(driver, wanted, self._subnets())
                undo.callback(driver.close, network, remove=True)
                reach("network.bridge")
                self._write(network)
                undo.pop_all()
            self._admit(network, driver)
            return network
        finally:
            with self._changing:
                del self._coming[wanted.id]

    def _with_subnets(self, network: Network) -> Network:
        """Return a network with the subnets that nobody named."""
        with NetlinkSocket() as netlink:
            avoid = [*subnets.taken(netlink), *self._subnets()]
        if network.ipv4 and not network.subnet:
            subnet = self._space.choose(4, avoid)
            network = structs.replace(network, subnet=str(subnet), gateway=str(subnet.network_address + 1))
        if network.ipv6 and not network.subnet6:
            subnet = self._space.choose(6, avoid)
            network = structs.replace(network, subnet6=str(subnet), gateway6=str(subnet.network_address + 1))
        return network

    def _networks(self) -> list[Network]:
        return [*(entry.network for entry in self), *tuple(self._coming.values())]

    def _subnets(self) -> list[Subnet]:
        return [subnet for network in self._networks() for subnet in network.subnets]

    def _check_free(self, wanted: Network) -> None:
        if any(network.name == wanted.name for network in self._networks()):
            raise Conflict(f"network with name {wanted.name} already exists")
        ours = wanted.ipam_driver == "default"  # a plugin knows what it gives out twice
        if ours and any(overlapping(mine, other) for mine in wanted.subnets for other in self._subnets()):
            raise Forbidden("invalid pool request: Pool overlaps with other one on this address space")
        if wanted.driver in sublinks.PREFIXES:
            sublinks.check_shared(wanted, self._networks())
        if wanted.driver == "bridge":
            self._check_bridge(wanted)
            self._check_host(wanted)

    def _check_host(self, wanted: Network) -> None:
        """Raise Forbidden for a subnet that would cut the host off, and log one that overlaps.

        Nothing is asked of a bridge that is there already: its subnet is the host's.
        """
        with NetlinkSocket() as netlink:
            if link.find_link(netlink, self._plan(wanted).name) is not None:
                return
            ours = [self._plan(entry.network).name for entry in self if entry.network.driver == "bridge"]
            there = {each.name for each in link.list_links(netlink)}
            for warning in overlaps.check(netlink, wanted.subnets, there.intersection(ours)):
                log.warning(warning, extra={"network": wanted.name})

    def _check_bridge(self, wanted: Network) -> None:
        name = self._plan(wanted).name
        for other in (network for network in self._networks() if network.driver == "bridge"):
            plan = self._default_plan() if other.name == BRIDGE else self._plan(other)
            if plan.name == name:
                raise Forbidden(
                    f"cannot create network {wanted.id} ({name}): conflicts with network {other.id} ({name}): "
                    "networks have same bridge name"
                )

    def forget(self, network: Network) -> Entry:
        """Take a network out of the records; from now on nobody finds it. Raises NotFound."""
        entry = self._entries.pop(network.id, None)
        if entry is None:
            raise NotFound(f"network {network.name} not found")
        self._database.execute("DELETE FROM networks WHERE id = ?", (network.id,))
        if choice.asks(network):
            self._leaving[network.id] = entry
        reach("network.forgotten")
        return entry

    def take_down(self, entry: Entry) -> None:
        """Take the bridge, rules and addresses of a forgotten network away. Raises SystemFailure."""
        if choice.asks(entry.network):
            self._take_down_asking(entry)
        else:
            with self._changing:
                self._close(entry, remove=True)
        self._database.execute("DELETE FROM addresses WHERE pool = ?", (entry.network.id,))


    def _take_down_asking(self, entry: Entry) -> None:
        """As `take_down`; what has ended in the network is told first, as long as the plugin hears it."""
        network = entry.network
        try:
            self.told.errands.drained(network.id, DRAIN)
            self.told.errands.drop(network.id)
            self._close(entry, remove=True)
            release_pools(self.told.plugins, network)
        finally:
            del self._leaving[network.id]


def why(error: OSError) -> str:
    """Return the reason of a failure, with what it was about."""
    return f"{error.strerror} [{error.filename}]" if error.filename else str(error.strerror)
