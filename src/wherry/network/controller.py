"""Networks: which there are, and the sandboxes of containers in them. See api.py."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wherry.errors import Conflict, Forbidden, NotFound, SystemFailure
from wherry.kernel.netlink import link
from wherry.kernel.netlink.socket import NetlinkSocket
from wherry.models.network import CreateNetwork
from wherry.network import definition, requests, sandbox, sysctls, views
from wherry.network.api import Endpoint, EndpointRequest, Sandbox, SandboxRequest
from wherry.network.config import NetworkConfig
from wherry.network.directory import BRIDGE, NONE, Directory, Entry, why
from wherry.network.endpointstore import EndpointStore
from wherry.network.ipam.pool import WAITING
from wherry.network.members import Members
from wherry.network.naming import Naming, OpenNamespace, concerns
from wherry.network.ports import PortRequest, Published
from wherry.network.publishing import Group, Held, Publishing, ports_of
from wherry.network.reaper import Reaper
from wherry.network.records import Attached, Network, new_id
from wherry.network.sandbox import Built, OpenSandbox, Plan
from wherry.network.sandboxfiles import SandboxFiles
from wherry.network.stock import Stock
from wherry.network.upkeep import Upkeep
from wherry.network.workshop import Workshop
from wherry.store.database import Database

log = logging.getLogger(__name__)

DRAIN = 10.0


class Networks:
    """NetworksApi. Thread-safe; threads and links come with `start`."""

    def __init__(self, database: Database, config: NetworkConfig, run_root: Path) -> None:
        """Know the networks of the store; touch nothing yet."""
        self._database = database
        self._directory = Directory(database, config, run_root)
        self._members = Members(EndpointStore(database), self._directory)
        self._stocks = {
            BRIDGE: Stock(self._make_bridged, self._discard, config.stock if config.bridge else 0),
            NONE: Stock(self._make_bare, self._discard, config.stock),
        }
        self._files = SandboxFiles(run_root)
        self._workshop = Workshop([*(stock.next_chore for stock in self._stocks.values()), self._files.next_chore])
        self._reaper = Reaper(self._reap)
        self._publishing = Publishing(self._directory, config.binding)
        self._upkeep = Upkeep(config.bus, watch=config.firewall_watch)
        self._naming = Naming(self._directory, self._workshop, run_root, self._members.groups)

    # The life of the controller

    def start(self) -> None:
        """Bring up all networks, their links and rules; on failure nothing remains of the attempt."""
        self._files.open()
        try:
            self._directory.open()
        except BaseException:
            self._files.close()
            raise
        self._upkeep.start(self._directory.firewall)
        self._workshop.start()
        self._reaper.start()

    def restore(self, running: Iterable[str], open_namespace: OpenNamespace = lambda container: None) -> None:
        """Keep the endpoints of these containers, release all others, and begin to fill the stocks.

        Links go before addresses: what an engine that was killed had in stock may still be dying in the kernel.
        """
        self._members.load(set(running))
        kept = [each for group in self._members.groups().values() for each in group]
        with NetlinkSocket() as netlink:
            for entry in self._directory:
                members = [each for each in kept if each.endpoint.network_id == entry.network.id]
                entry.driver.sweep(netlink, entry.network, members)
        for entry in self._directory:
            entry.keep([each.endpoint for each in kept if each.endpoint.network_id == entry.network.id])
        self._publishing.restore(self._members.groups())
        self._naming.restore(open_namespace)
        self._files.restore(self._members.sandboxes(), open_namespace)
        for stock in self._stocks.values():
            stock.open()
        self._workshop.poke()

    def stop(self, *, remove: bool) -> None:
        """Empty the stocks and end the threads; with remove take bridges and rules away (no container runs)."""
        for stock in self._stocks.values():
            stock.close()
        self._workshop.stop()
        self._reaper.stop()
        self._files.close()
        self._naming.close()
        self._upkeep.stop(remove=remove)
        self._directory.close(remove=remove)

    def names(self) -> list[str]:
        """Return the names of all networks."""
        return [entry.network.name for entry in self._directory]

    def resolve(self, ref: str) -> Network:
        """Return the network with that name, id or unique beginning of an id; raises NotFound, InvalidArgument."""
        return self._directory.resolve(ref)

    def inspect(self, ref: str) -> dict[str, Any]:
        """Return the answer of GET /networks/ID, without the containers, whose names only the caller knows."""
        return views.inspect(self.resolve(ref))

    def firewall_table(self, network: Network) -> str:
        """Return the name of the table with the rules of a network, "" when it has none."""
        return self._directory.rules_table if network.driver == "bridge" else ""

    def host_gateway(self) -> str:
        """Return the host's address on the default bridge, "" when there is none."""
        return next((entry.network.gateway for entry in self._directory if entry.network.name == BRIDGE), "")

    def endpoints(self, container_id: str) -> tuple[Endpoint, ...]:
        """Return the endpoints a container has now."""
        return tuple(each.endpoint for each in self._members.of(container_id))

    def has_names(self, container_id: str) -> bool:
        """Whether a container asks our name server, because it is in a network of the user."""
        return concerns(self._members.of(container_id))

    def inside(self, network_id: str) -> dict[str, Endpoint]:
        """Return the endpoints in a network, by container."""
        return self._members.inside(network_id)

    def sandbox(self, container_id: str) -> tuple[str, str]:
        """Return id and file of a container's sandbox, "" when it has none."""
        attached = self._members.of(container_id)
        return (attached[0].sandbox_id, self._files.shown(attached[0].sandbox_id)) if attached else ("", "")

    @property
    def host_file(self) -> str:
        """The file of the host's network namespace."""
        return self._files.of_host

    def started(self, sandbox: Sandbox | None) -> None:
        """The container runs that this sandbox was opened for: its namespace may be mounted on its file."""
        if sandbox is not None:
            self._files.show_soon(sandbox.sandbox_id, sandbox.netns_fd)
            self._workshop.poke()

    def ready(self) -> dict[str, int]:
        """Return how many sandboxes wait to be taken, by network."""
        return {name: len(stock) for name, stock in self._stocks.items()}

    def at_hand(self, asked: Sequence[EndpointRequest]) -> bool:
        """Whether a sandbox with these endpoints is in stock, so that `open_sandbox` takes no time."""
        stock = self._stock(asked or _NOTHING)
        return stock is not None and len(stock) > 0

    # Networks of the user

    def create(self, asked: CreateNetwork) -> Network:
        """Make a network. Errors: those of definition.define and Directory.create."""
        network = self._directory.create(definition.define(asked))
        self._upkeep.bridges_changed()
        return network

    def remove(self, ref: str) -> Network:
        """Remove a network that no container is in, and return when its bridge is gone.

        Raises NotFound; Forbidden for a predefined one and for one with endpoints.
        """
        network = self.resolve(ref)
        if network.predefined:
            raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
        entry = self._members.forget_network(network)
        self.settle()
        self._naming.forget(network.id)
        self._directory.take_down(entry)
        self._upkeep.bridges_changed()
        return network

    # Sandboxes

    def check(self, asked: EndpointRequest) -> None:
        """Raise what `open_sandbox` would raise for a request that can never be met; for docker create."""
        requests.check(asked, self.resolve(asked.network))

    def open_sandbox(self, request: SandboxRequest) -> Sandbox:
        """Take a sandbox from the stock when a common one is asked for, else make one. All or nothing."""
        container = request.container_id
        settings = sysctls.network_only(request.sysctls)
        asked = request.endpoints or _NOTHING
        for each in asked:
            self.check(each)
        self._members.claim(container)
        built: Built | None = None
        held: Held = {}
        try:
            built = self._take_patiently(container, asked, settings)
            if request.nameservers:
                built.attached = tuple(replace(each, nameservers=request.nameservers) for each in built.attached)
            built.attached, held = self._publishing.publish(container, request.name, built.attached, request.ports)
            self._members.show(container, (), built.attached)
            self._members.write(container, built.attached)
            self._naming.admit(built.attached, built.netns_fd)
        except BaseException as error:
            self._members.drop(container)
            if built is not None:
                self._publishing.release(container, built.attached)
                self._discard(built)
            for each_socket in held.values():
                each_socket.close()
            if isinstance(error, OSError):
                raise SystemFailure(f"failed to set up container networking: {why(error)}") from error
            raise
        self._workshop.poke()
        endpoints = tuple(each.endpoint for each in built.attached)
        file = self._files.path(built.sandbox_id)
        return OpenSandbox(container, built.sandbox_id, built.netns_fd, endpoints, held, file)

    def _stock(self, asked: Sequence[EndpointRequest]) -> Stock | None:
        return self._stocks.get(asked[0].network) if len(asked) == 1 and requests.is_plain(asked[0]) else None

    def _take_patiently(self, container: str, asked: Sequence[EndpointRequest], settings: dict[str, str]) -> Built:
        """As `_take`; an address that is wanted again at once, at a restart, is free when its old link is gone."""
        try:
            return self._take(container, asked, settings)
        except Conflict:
            if not self.settle():
                raise
            return self._take(container, asked, settings)

    def _take(self, container: str, asked: Sequence[EndpointRequest], settings: dict[str, str]) -> Built:
        stock = self._stock(asked)
        built = stock.take() if stock is not None else None
        if built is None:
            return self._workshop.run(lambda netlink: self._make(netlink, container, asked, settings))
        if settings:
            fd = built.netns_fd
            try:
                self._workshop.run(lambda _netlink: sandbox.configure(fd, settings))
            except BaseException:
                self._discard(built)
                raise
        return built

    def close_sandbox(self, container_id: str) -> None:
        """Give links and addresses of a container back; they are gone a moment later. Idempotent."""
        attached = self._members.drop(container_id)
        if attached:
            self._publishing.release(container_id, attached)
            self._reaper.submit(attached)

    def settle(self, timeout: float = DRAIN) -> bool:
        """Wait until all that was closed is gone; False when the time is over first."""
        return self._reaper.drained(timeout)

    # Published ports

    def published(self, container_id: str) -> tuple[Published, ...]:
        """Return the ports that a running container publishes; none while it is in no network with a way out."""
        group = self._members.of(container_id)
        return tuple(each for owner in group if owner.endpoint.ipv4 for each in owner.published)

    def publish(self, container: str, name: str, asked: Sequence[PortRequest]) -> Held:
        """Publish more ports of a running container; returns the sockets for its supervisor. All or nothing."""
        held = self._members.of(container)
        if not held:
            raise Conflict(f"container {container} has no network sandbox")
        group, sockets = self._publishing.publish(container, name, held, asked)
        self._change(container, held, group)
        return sockets

    def retract(self, container: str, gone: Sequence[Published]) -> None:
        """Publish ports of a running container no more."""
        held = self._members.of(container)
        self._change(container, held, self._publishing.retract(container, held, gone))

    def _change(self, container: str, before: Group, after: Group) -> None:
        if after == before:
            return
        try:
            self._members.show(container, before, after)
        except BaseException:
            known = ports_of(before)
            self._publishing.retract(container, after, [each for each in ports_of(after) if each not in known])
            raise
        self._members.write(container, after)

    def refresh_firewall(self) -> None:
        """Bring the packet filter to what it should be: somebody may have flushed it."""
        try:
            self._upkeep.restore()
        except OSError as error:
            raise SystemFailure(f"cannot restore the firewall's rules: {why(error)}") from error

    def connect(self, container: str, netns_fd: int, asked: EndpointRequest) -> Endpoint:
        """Put a link of one more network into a running container's namespace. All or nothing.

        Raises Forbidden when it is in that network, Conflict when it has no sandbox (any more), and what
        `open_sandbox` raises.
        """
        self.check(asked)
        network = self.resolve(asked.network)
        held = self._members.of(container)
        if not held:
            raise Conflict(f"container {container} has no network sandbox")
        if any(each.endpoint.network_id == network.id for each in held):
            name = (asked.names or (container[:12],))[0]
            raise Forbidden(f"endpoint with name {name} already exists in network {network.name}")
        kept = tuple(each for each in held if each.endpoint.interface)
        fresh = self._workshop.run(lambda netlink: self._join(netlink, container, netns_fd, (asked, held, kept)))
        try:
            self._members.show(container, held, (*kept, fresh))
        except BaseException:
            try:
                self._workshop.run(lambda netlink: self._part(netlink, netns_fd, fresh, kept))
            finally:
                self._reaper.submit([fresh])
            raise
        # those that are kept no more are the network none, which stands for none at all
        self._members.write(container, (fresh,), gone=[each for each in held if each not in kept])
        now = self._members.of(container)
        self._change(container, now, self._publishing.follow(held, now))
        self._naming.admit((*kept, fresh), netns_fd)
        return fresh.endpoint

    def _join(
        self,
        netlink: NetlinkSocket,
        container: str,
        netns_fd: int,
        case: tuple[EndpointRequest, tuple[Attached, ...], tuple[Attached, ...]],
    ) -> Attached:
        asked, held, kept = case
        taken = {each.endpoint.interface for each in kept}
        number = next(number for number in range(len(taken) + 1) if f"eth{number}" not in taken)
        plan = self._plan(container, asked, number)
        try:
            fresh = sandbox.join(netlink, plan, netns_fd, held[0].sandbox_id, [each.endpoint for each in kept])
            return replace(fresh, nameservers=held[0].nameservers)
        except BaseException as error:
            self._reaper.submit([Attached(plan.endpoint, "")])
            if isinstance(error, OSError):
                self.resolve(plan.network.id)  # NotFound: removed meanwhile, and our link with it
                raise SystemFailure(f"failed to set up container networking: {why(error)}") from error
            raise

    def disconnect(self, container: str, netns_fd: int, network_id: str) -> None:
        """Take the link of a network out of a running container; it is gone when this returns.

        Raises NotFound when the container is not in it.
        """
        with self._members.changing(container) as held:
            found = next((each for each in held if each.endpoint.network_id == network_id), None)
            if found is None:
                raise NotFound(f"endpoint {container} not found")
            others = tuple(each for each in held if each is not found)
            nowhere = replace(found, endpoint=_nowhere(self.resolve(NONE)), host_link="", published=())
            rest = self._publishing.follow(held, others or (nowhere,))
            self._members.put(container, rest)
        self._members.write(container, rest, gone=(found,))
        try:
            self._workshop.run(lambda netlink: self._part(netlink, netns_fd, found, rest))
        except OSError as error:
            raise SystemFailure(f"cannot take container {container} out of its network: {why(error)}") from error
        finally:
            self._naming.update((network_id,), rest)
            self._reaper.submit([found])

    def _part(self, netlink: NetlinkSocket, netns_fd: int, found: Attached, rest: Sequence[Attached]) -> None:
        self._unlink(netlink, found.endpoint.network_id, [found])
        sandbox.part(netns_fd, found, [each.endpoint for each in rest])

    def _unlink(self, netlink: NetlinkSocket, network_id: str, group: Iterable[Attached]) -> Entry | None:
        """Delete the links of endpoints in one network; return None when it was removed meanwhile."""
        linked = [each for each in group if each.endpoint.interface]
        entry = self._directory.get(network_id)
        if entry is None:
            netlink.apply(*(link.delete_link(each.host_link) for each in linked if each.host_link))
        elif linked:
            entry.driver.detach(netlink, entry.network, linked)
        return entry

    def rename(self, container: str, names: Mapping[str, tuple[str, ...]]) -> None:
        """Give a running container other names, by network id."""
        with self._members.changing(container) as held:
            fresh = tuple(
                replace(each, endpoint=replace(each.endpoint, names=names.get(each.endpoint.network_id, ())))
                for each in held
            )
            if not held:
                return
            self._members.put(container, fresh)
        self._members.write(container, fresh)
        self._naming.update(names, fresh)

    # Work of the other threads

    def _make_bridged(self, netlink: NetlinkSocket) -> Built:
        return self._make(netlink, WAITING, (EndpointRequest(BRIDGE),), {})

    def _make_bare(self, netlink: NetlinkSocket) -> Built:
        return self._make(netlink, WAITING, (EndpointRequest(NONE),), {})

    def _make(
        self, netlink: NetlinkSocket, container: str, asked: Sequence[EndpointRequest], settings: dict[str, str]
    ) -> Built:
        plans: list[Plan] = []
        sandbox_id = new_id()
        try:
            self._files.make(sandbox_id)
            for each in sorted(asked, key=lambda request: (-request.gw_priority, request.network)):
                plans.append(self._plan(container, each, len(plans)))
            return sandbox.build(netlink, plans, settings, sandbox_id)
        except BaseException:
            # Links die with the namespace, which nobody holds now; the reaper frees the addresses after them.
            self._reaper.submit([Attached(plan.endpoint, "") for plan in plans])
            self._files.remove([sandbox_id])
            raise

    def _plan(self, container: str, asked: EndpointRequest, number: int) -> Plan:
        network = self.resolve(asked.network)
        entry = self._directory.get(network.id)
        if entry is None:
            raise NotFound(f"network {network.name} not found")
        endpoint = replace(_addressed(entry, asked, container), interface=f"eth{number}", gw_priority=asked.gw_priority)
        if not endpoint.ipv4 and not endpoint.ipv6:
            return Plan(entry.driver, network, _nowhere(network))
        names, links = ((), ()) if network.predefined else (asked.names, asked.links)
        mac = asked.mac.lower() or entry.driver.mac(endpoint)
        named = replace(endpoint, names=names, links=links, link_local=asked.link_local)
        return Plan(entry.driver, network, replace(named, mac=mac))

    def _discard(self, built: Built) -> None:
        os.close(built.netns_fd)
        self._reaper.submit(built.attached)

    def _reap(self, netlink: NetlinkSocket, ended: Sequence[Attached]) -> None:
        self._files.remove({each.sandbox_id for each in ended if each.sandbox_id} - self._members.sandboxes().keys())
        self._naming.leave(ended)
        self._publishing.forget(ended)
        by_network: dict[str, list[Attached]] = {}
        for each in ended:
            by_network.setdefault(each.endpoint.network_id, []).append(each)
        for network, group in by_network.items():
            entry = self._unlink(netlink, network, group)
            if entry is not None:  # a network that was removed took its addresses along
                entry.release([each.endpoint for each in group])


_NOTHING = (EndpointRequest(NONE),)


def _nowhere(network: Network) -> Endpoint:
    """Return an endpoint without a link or an address."""
    return Endpoint(network.id, network.name, new_id(), interface="", mac="")


def _addressed(entry: Entry, asked: EndpointRequest, container: str) -> Endpoint:
    """Return an endpoint with the addresses that it gets, which are taken now: all or none.

    An IPv6 address that nobody asks for is the one with the place of the IPv4 address, as long as it is free.
    """
    network, endpoint = entry.network, _nowhere(entry.network)
    if entry.pool is not None:
        ipv4 = entry.pool.reserve(asked.ipv4, container) if asked.ipv4 else entry.pool.allocate(container)
        gateway4 = "" if network.internal else network.gateway
        endpoint = replace(endpoint, ipv4=ipv4, ipv4_prefix=entry.pool.prefix, gateway4=gateway4)
    if entry.pool6 is None:
        return endpoint
    try:
        if asked.ipv6:
            ipv6 = entry.pool6.reserve(asked.ipv6, container)
        else:
            offset = entry.pool.offset(endpoint.ipv4) if entry.pool is not None else 0
            ipv6 = entry.pool6.allocate(container, offset=offset)
    except BaseException:
        entry.release([endpoint])
        raise
    gateway6 = "" if network.internal else network.gateway6
    return replace(endpoint, ipv6=ipv6, ipv6_prefix=entry.pool6.prefix, gateway6=gateway6)
