"""Networks: which there are, and the sandboxes of containers in them. See api.py."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from msgspec import structs

from wherry.errors import Conflict, Forbidden, NotFound, SystemFailure
from wherry.failpoints import reach
from wherry.kernel.netlink.socket import NetlinkSocket
from wherry.models.network import CreateNetwork
from wherry.network import choice, configurations, definition, planning, requests, sandbox, sysctls, views
from wherry.network.announcing import Announcer
from wherry.network.api import Endpoint, EndpointRequest, Sandbox, SandboxRequest
from wherry.network.config import NetworkConfig
from wherry.network.directory import BRIDGE, NONE, Directory, why
from wherry.network.driver import Joining
from wherry.network.endpointstore import EndpointStore
from wherry.network.firewall.api import Passage
from wherry.network.ipam.pool import WAITING
from wherry.network.members import Members
from wherry.network.naming import Naming, OpenNamespace, concerns
from wherry.network.passages import Passages
from wherry.network.ports import PortRequest, Published
from wherry.network.publishing import Group, Held, Publishing, leads_out, ports_of
from wherry.network.reaper import Reaper
from wherry.network.records import Attached, Network, new_id
from wherry.network.sandbox import Built, OpenSandbox, Plan
from wherry.network.sandboxfiles import SandboxFiles
from wherry.network.stock import Stock
from wherry.network.upkeep import Upkeep
from wherry.network.workshop import Workshop
from wherry.plugins.api import NETWORK
from wherry.plugins.registry import Plugins
from wherry.runtime.idmaps import Ids
from wherry.store.database import Database

log = logging.getLogger(__name__)

Result = TypeVar("Result")

DRAIN = 10.0


class Networks:
    """NetworksApi. Thread-safe; threads and links come with `start`."""

    def __init__(
        self, database: Database, config: NetworkConfig, run_root: Path, plugins: Plugins | None = None
    ) -> None:
        """Know the networks of the store; touch nothing yet. plugins: whose networks and addresses there may be."""
        self._database = database
        self._directory = Directory(database, config, run_root, plugins or Plugins())
        self._members = Members(EndpointStore(database), self._directory)
        self._stocks = {
            BRIDGE: Stock(self._make_bridged, self._discard, config.stock if config.bridge else 0),
            NONE: Stock(self._make_bare, self._discard, config.stock),
        }
        self._files = SandboxFiles(run_root)
        self._workshop = Workshop([*(stock.next_chore for stock in self._stocks.values()), self._files.next_chore])
        self._announcer = Announcer()
        self._reaper = Reaper(self._reap)
        self._defaults = config.network_opts
        self._ids = config.ids
        self._publishing = Publishing(self._directory, config.binding, config.binding6)
        self._passages = Passages(self._directory)
        self._host_gateways = config.host_gateways
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
        self._announcer.stop()
        self._directory.told.errands.stop()
        self._files.close()
        self._naming.close()
        self._upkeep.stop(remove=remove)
        self._directory.close(remove=remove)

    def names(self) -> list[str]:
        """Return the names of all networks."""
        return [entry.network.name for entry in self._directory]

    def drivers(self) -> list[str]:
        """Return the names of the drivers: those of our own, and of the plugins that have been used."""
        used = {entry.network.driver for entry in self._directory}
        return sorted({*choice.BUILT_IN, *used, *self._directory.told.plugins.known(NETWORK)})

    def resolve(self, ref: str) -> Network:
        """Return the network with that name, id or unique beginning of an id; raises NotFound, InvalidArgument."""
        return self._directory.resolve(ref)

    def inspect(self, ref: str) -> dict[str, Any]:
        """Return the answer of GET /networks/ID, without the containers, whose names only the caller knows."""
        return views.inspect(self.resolve(ref))

    def firewall_table(self, network: Network) -> str:
        """Return the name of the table with the rules of a network, "" when it has none."""
        return self._directory.rules_table if network.driver == "bridge" else ""

    def let_pass(self, passages: Iterable[Passage]) -> None:
        """Let containers of the default bridge reach each other by these ways alone, where they otherwise may not."""
        try:
            self._passages.put(passages)
        except OSError as error:
            raise SystemFailure(f"cannot let linked containers reach each other: {why(error)}") from error

    def host_gateways(self) -> tuple[str, ...]:
        """Return what host-gateway means: what is configured, or the host's addresses on the default bridge."""
        if self._host_gateways:
            return self._host_gateways
        bridge = next((entry.network for entry in self._directory if entry.network.name == BRIDGE), None)
        return tuple(filter(None, (bridge.gateway, bridge.gateway6))) if bridge is not None else ()

    def endpoints(self, container_id: str) -> tuple[Endpoint, ...]:
        """Return the endpoints a container has now."""
        return tuple(each.endpoint for each in self._members.of(container_id))

    def endpoint_in(self, container_id: str, name: str) -> Endpoint | None:
        """Return the endpoint that a container has in the network of a name."""
        return next((each for each in self.endpoints(container_id) if each.network_name == name), None)

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

    def at_hand(self, request: SandboxRequest) -> bool:
        """Whether such a sandbox is in stock, so that `open_sandbox` takes no time."""
        stock = self._stock(request, request.endpoints or _NOTHING)
        return stock is not None and len(stock) > 0

    # Networks of the user

    def create(self, asked: CreateNetwork) -> Network:
        """Make a network. Errors: those of definition.define and Directory.create."""
        configurations.check(asked)
        source = configurations.source_of(asked)
        if source:
            asked = configurations.applied(asked, self._directory.with_name(source))
        defaults = {} if source else self._defaults
        wanted = definition.define(asked, self._directory.told.plugins.exists, defaults)
        network = self._directory.create(structs.replace(wanted, config_from=source))
        self._upkeep.bridges_changed()
        return network

    def remove(self, ref: str) -> Network:
        """Remove a network that no container is in, and return when its bridge is gone.

        Raises NotFound; Forbidden for a predefined one and for one with endpoints.
        """
        network = self.resolve(ref)
        if network.predefined:
            raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
        if network.config_only and any(entry.network.config_from == network.name for entry in self._directory):
            raise Forbidden(f'error while removing network: configuration network "{network.name}" is in use')
        entry = self._members.forget_network(network)
        self.settle()
        self._naming.forget(network.id)
        self._directory.take_down(entry)
        self._upkeep.bridges_changed()
        return network

    # Sandboxes

    def check(self, asked: EndpointRequest) -> None:
        """Raise what `open_sandbox` would raise for a request that can never be met; for docker create."""
        requests.check(asked, self._directory.named(asked.network))

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
            built = self._patiently(lambda: self._take(request, asked, settings))
            reach("sandbox.taken")
            if request.nameservers:
                built.attached = tuple(replace(each, nameservers=request.nameservers) for each in built.attached)
            built.attached, held = self._publishing.publish(container, request.name, built.attached, request.ports)
            reach("sandbox.published")
            self._members.show(container, (), built.attached)
            self._members.write(container, built.attached)
            reach("sandbox.recorded")
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
        endpoints, file = tuple(each.endpoint for each in built.attached), self._files.path(built.sandbox_id)
        return OpenSandbox(container, built.sandbox_id, built.netns_fd, endpoints, held, file)

    def _stock(self, request: SandboxRequest, asked: Sequence[EndpointRequest]) -> Stock | None:
        usual = request.ids == self._ids and len(asked) == 1 and requests.is_plain(asked[0])
        return self._stocks.get(asked[0].network) if usual else None

    def _patiently(self, work: Callable[[], Result]) -> Result:
        """Take addresses; one that is wanted again at once, at a restart, is free when its old link is gone."""
        try:
            return work()
        except Conflict:
            if not self.settle():
                raise
            return work()

    def _take(self, request: SandboxRequest, asked: Asked, settings: dict[str, str]) -> Built:
        stock = self._stock(request, asked)
        built = stock.take() if stock is not None else None
        if built is None:
            sandbox_id, ids = new_id(), request.ids
            plans = self._plans(request.container_id, asked, sandbox_id, request.ports)
            return self._workshop.run(lambda netlink: self._build(netlink, sandbox_id, plans, settings, ids))
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
        reach("sandbox.closed")
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
        return tuple(each for owner in group for each in owner.published if leads_out(owner.endpoint, each.version))

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
        network = self._directory.named(asked.network)
        held = self._members.of(container)
        if not held:
            raise Conflict(f"container {container} has no network sandbox")
        if any(each.endpoint.network_id == network.id for each in held):
            name = (asked.names or (container[:12],))[0]
            raise Forbidden(f"endpoint with name {name} already exists in network {network.name}")
        kept = tuple(each for each in held if each.endpoint.interface)
        joining = Joining(self._files.path(held[0].sandbox_id), tuple(each.endpoint.interface for each in kept))
        plan = self._patiently(lambda: planning.plan(self._directory, container, asked, joining, self._reaper.submit))
        fresh = self._workshop.run(lambda netlink: self._join(netlink, plan, netns_fd, (held[0], kept)))
        try:
            reach("connect.linked")
            self._members.show(container, held, (*kept, fresh))
        except BaseException:
            try:
                self._workshop.run(lambda netlink: self._part(netlink, netns_fd, fresh, kept))
            finally:
                self._reaper.submit([fresh])
            raise
        # those that are kept no more are the network none, which stands for none at all
        self._members.write(container, (fresh,), gone=[each for each in held if each not in kept])
        reach("connect.recorded")
        now = self._members.of(container)
        self._change(container, now, self._publishing.follow(held, now))
        self._naming.admit((*kept, fresh), netns_fd)
        return fresh.endpoint

    def _join(
        self, netlink: NetlinkSocket, plan: Plan, netns_fd: int, company: tuple[Attached, tuple[Attached, ...]]
    ) -> Attached:
        one, kept = company
        try:
            fresh = sandbox.join(netlink, plan, netns_fd, one.sandbox_id, [each.endpoint for each in kept])
            self._announcer.announce([fresh])
            return replace(fresh, nameservers=one.nameservers)
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
            nowhere = replace(found, endpoint=planning.nowhere(self.resolve(NONE)), host_link="", published=())
            rest = self._publishing.follow(held, others or (nowhere,))
            self._members.put(container, rest)
        self._members.write(container, rest, gone=(found,))
        try:
            reach("disconnect.recorded")
            self._workshop.run(lambda netlink: self._part(netlink, netns_fd, found, rest))
            reach("disconnect.unlinked")
        except OSError as error:
            raise SystemFailure(f"cannot take container {container} out of its network: {why(error)}") from error
        finally:
            self._naming.update((network_id,), rest)
            self._reaper.submit([found])

    def _part(self, netlink: NetlinkSocket, netns_fd: int, found: Attached, rest: Sequence[Attached]) -> None:
        if found.host_link:
            self._directory.unlink(netlink, found.endpoint.network_id, [found])
        sandbox.part(netns_fd, found, [each.endpoint for each in rest])

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
        return self._make(netlink, (EndpointRequest(BRIDGE),))

    def _make_bare(self, netlink: NetlinkSocket) -> Built:
        return self._make(netlink, _NOTHING)

    def _make(self, netlink: NetlinkSocket, asked: Asked) -> Built:
        sandbox_id = new_id()
        return self._build(netlink, sandbox_id, self._plans(WAITING, asked, sandbox_id), {}, self._ids)

    def _plans(
        self, container: str, asked: Asked, sandbox_id: str, ports: tuple[PortRequest, ...] = ()
    ) -> list[Plan]:
        joining = Joining(self._files.path(sandbox_id), ports=ports)
        return planning.plans(self._directory, container, asked, joining, self._reaper.submit)

    def _build(
        self,
        netlink: NetlinkSocket,
        sandbox_id: str,
        plans: Sequence[Plan],
        settings: dict[str, str],
        ids: Ids | None,
    ) -> Built:
        try:
            self._files.make(sandbox_id)
            built = sandbox.build(netlink, plans, settings, sandbox_id, ids)
        except BaseException:
            # Links die with the namespace, which nobody holds now; the reaper frees the addresses after them.
            self._reaper.submit([Attached(plan.endpoint, "") for plan in plans])
            self._files.remove([sandbox_id])
            raise
        self._announcer.announce(built.attached)
        return built

    def _discard(self, built: Built) -> None:
        os.close(built.netns_fd)
        self._reaper.submit(built.attached)

    def _reap(self, netlink: NetlinkSocket, ended: Sequence[Attached]) -> None:
        self._files.remove({each.sandbox_id for each in ended if each.sandbox_id} - self._members.sandboxes().keys())
        self._naming.leave(ended)
        self._publishing.forget(ended)
        self._passages.forget({each.endpoint.ipv4 for each in ended})
        by_network: dict[str, list[Attached]] = {}
        for each in ended:
            by_network.setdefault(each.endpoint.network_id, []).append(each)
        for network, group in by_network.items():
            entry = self._directory.unlink(netlink, network, group)
            if entry is not None:  # a network that was removed took its addresses along
                entry.release([each.endpoint for each in group])


Asked = Sequence[EndpointRequest]
_NOTHING = (EndpointRequest(NONE),)
