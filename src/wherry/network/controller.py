"""Networks: which there are, and the sandboxes of containers in them. See api.py."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wherry.errors import Conflict, InvalidArgument, NotFound, SystemFailure
from wherry.kernel.netlink.socket import NetlinkSocket
from wherry.network import choice, requests, sandbox, sysctls
from wherry.network.api import Endpoint, EndpointRequest, Sandbox, SandboxRequest
from wherry.network.config import NetworkConfig
from wherry.network.driver import Driver
from wherry.network.ipam.pool import WAITING, AddressPool
from wherry.network.reaper import Reaper
from wherry.network.records import Attached, Network, decode_attached, decode_network, new_id
from wherry.network.sandbox import Built, OpenSandbox, Plan
from wherry.network.stock import Stock
from wherry.network.workshop import Job, Workshop
from wherry.store.database import Database

log = logging.getLogger(__name__)

BRIDGE, HOST, NONE = "bridge", "host", "none"
DEFAULTS = {BRIDGE: "bridge", HOST: "host", NONE: "null"}
"""The networks that are always there, with their drivers."""

DRAIN = 10.0


class Networks:
    """NetworksApi. Thread-safe; threads and links come with `start`."""

    def __init__(self, database: Database, config: NetworkConfig, run_root: Path) -> None:
        """Know the networks of the store; touch nothing yet."""
        self._database = database
        self._config = config
        self._run_root = run_root
        self._lock = threading.Lock()
        self._networks: dict[str, Network] = {}
        self._drivers: dict[str, Driver] = {}
        self._pools: dict[str, AddressPool] = {}
        self._attached: dict[str, tuple[Attached, ...]] = {}
        self._stocks = {
            BRIDGE: Stock(self._make_bridged, self._discard, config.stock if config.bridge else 0),
            NONE: Stock(self._make_bare, self._discard, config.stock),
        }
        self._workshop = Workshop(self._next_chore)
        self._reaper = Reaper(self._reap)

    # The life of the controller

    def start(self) -> None:
        """Bring up the default networks, their links and rules; on failure nothing remains of the attempt."""
        rows = self._database.query("SELECT name, record FROM networks")
        known = {name: decode_network(record) for name, record in rows}
        with ExitStack() as undo:
            for name, kind in DEFAULTS.items():
                if name == BRIDGE and not self._config.bridge:
                    continue
                driver = choice.driver(kind, self._config)
                before = known.get(name) or Network(id=new_id(), name=name, driver=kind, created=time.time_ns())
                try:
                    network = driver.open(before)
                except OSError as error:
                    raise SystemFailure(f"cannot bring up network {name}: {_why(error)}") from error
                undo.callback(driver.close, network, remove=before.subnet == "")
                self._admit(network, driver)
            undo.pop_all()
        self._workshop.start()
        self._reaper.start()

    def _admit(self, network: Network, driver: Driver) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO networks VALUES (?, ?, ?)", (network.id, network.name, network.encode())
        )
        self._networks[network.id] = network
        self._drivers[network.id] = driver
        if network.subnet:
            self._pools[network.id] = AddressPool(self._database, network.id, network.subnet, network.gateway)

    def restore(self, running: Iterable[str]) -> None:
        """Keep the endpoints of these containers, release all others, and begin to fill the stocks.

        Links go before addresses: what an engine that was killed had in stock may still be dying in the kernel.
        """
        alive = set(running)
        with self._lock:
            self._load(alive)
            kept = [each for group in self._attached.values() for each in group]
        links = {each.host_link for each in kept if each.host_link}
        held: dict[str, set[str]] = {}
        for each in kept:
            held.setdefault(each.endpoint.network_id, set()).add(each.endpoint.ipv4)
        with NetlinkSocket() as netlink:
            for network in self._networks.values():
                self._drivers[network.id].sweep(netlink, network, links)
        for key, pool in self._pools.items():
            pool.release(pool.given() - held.get(key, set()))
        for stock in self._stocks.values():
            stock.open()
        self._workshop.poke()

    def _load(self, alive: set[str]) -> None:
        groups: dict[str, list[Attached]] = {}
        with self._database.transaction():
            for container, network, record in self._database.query("SELECT container, network, record FROM endpoints"):
                if container in self._attached:
                    continue
                if container in alive and network in self._networks:
                    groups.setdefault(container, []).append(decode_attached(record))
                else:
                    self._database.execute(
                        "DELETE FROM endpoints WHERE container = ? AND network = ?", (container, network)
                    )
        for container, group in groups.items():
            self._attached[container] = tuple(sorted(group, key=lambda each: each.endpoint.interface))

    def stop(self, *, remove: bool) -> None:
        """Empty the stocks and end the threads; with remove take bridge and rules away (no container runs)."""
        for stock in self._stocks.values():
            stock.close()
        self._workshop.stop()
        self._reaper.stop()
        for network in self._networks.values():
            try:
                self._drivers[network.id].close(network, remove=remove)
            except OSError as error:
                raise SystemFailure(f"cannot take down network {network.name}: {_why(error)}") from error

    # Looking

    def names(self) -> list[str]:
        """Return the names of all networks."""
        return [network.name for network in self._networks.values()]

    def resolve(self, ref: str) -> Network:
        """Return the network with that name, id or unique beginning of an id; raises NotFound, InvalidArgument."""
        wanted = BRIDGE if ref == "default" else ref
        for network in self._networks.values():
            if wanted in (network.name, network.id):
                return network
        found = [network for key, network in self._networks.items() if ref and key.startswith(ref)]
        if len(found) > 1:
            raise InvalidArgument(f"network {ref} is ambiguous ({len(found)} matches found based on ID prefix)")
        if not found:
            raise NotFound(f"network {ref} not found")
        return found[0]

    def inspect(self, ref: str) -> dict[str, Any]:
        """Return the answer of GET /networks/ID, without the containers, whose names only the caller knows."""
        network = self.resolve(ref)
        created = datetime.fromtimestamp(network.created // 10**9, UTC)
        subnets = [{"Subnet": network.subnet, "Gateway": network.gateway}] if network.subnet else None
        return {
            "Name": network.name,
            "Id": network.id,
            "Created": f"{created:%Y-%m-%dT%H:%M:%S}.{network.created % 10**9:09d}Z",
            "Scope": "local",
            "Driver": network.driver,
            "EnableIPv4": True,
            "EnableIPv6": False,
            "IPAM": {"Driver": "default", "Options": None, "Config": subnets},
            "Internal": network.internal,
            "Attachable": False,
            "Ingress": False,
            "ConfigFrom": {"Network": ""},
            "ConfigOnly": False,
            "Containers": {},
            "Options": dict(network.options),
            "Labels": dict(network.labels),
        }

    def host_gateway(self) -> str:
        """Return the host's address on the default bridge, "" when there is none."""
        return next((each.gateway for each in self._networks.values() if each.name == BRIDGE), "")

    def endpoints(self, container_id: str) -> tuple[Endpoint, ...]:
        """Return the endpoints a container has now."""
        return tuple(each.endpoint for each in self._attached.get(container_id, ()))

    def sandbox(self, container_id: str) -> tuple[str, str]:
        """Return id and path of a container's sandbox; no path: a namespace is held by processes, not by a file."""
        attached = self._attached.get(container_id, ())
        return (attached[0].sandbox_id if attached else "", "")

    def ready(self) -> dict[str, int]:
        """Return how many sandboxes wait to be taken, by network."""
        return {name: len(stock) for name, stock in self._stocks.items()}

    # Sandboxes

    def check(self, asked: EndpointRequest) -> None:
        """Raise what `open_sandbox` would raise for a request that can never be met; for docker create."""
        requests.check(asked, self.resolve(asked.network))

    def open_sandbox(self, request: SandboxRequest) -> Sandbox:
        """Take a sandbox from the stock when a common one is asked for, else make one. All or nothing."""
        container = request.container_id
        settings = sysctls.network_only(request.sysctls)
        asked = request.endpoints or (EndpointRequest(NONE),)
        for each in asked:
            self.check(each)
        with self._lock:
            if container in self._attached:
                raise Conflict(f"container {container} has a network sandbox already")
            self._attached[container] = ()
        built: Built | None = None
        try:
            built = self._take(container, asked, settings)
            self._record(container, built)
        except BaseException as error:
            with self._lock:
                self._attached.pop(container, None)
            if built is not None:
                self._discard(built)
            if isinstance(error, OSError):
                raise SystemFailure(f"failed to set up container networking: {_why(error)}") from error
            raise
        self._workshop.poke()
        endpoints = tuple(each.endpoint for each in built.attached)
        return OpenSandbox(container, built.sandbox_id, built.netns_fd, endpoints)

    def _take(self, container: str, asked: Sequence[EndpointRequest], settings: dict[str, str]) -> Built:
        stock = self._stocks.get(asked[0].network) if len(asked) == 1 and requests.is_plain(asked[0]) else None
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

    def _record(self, container: str, built: Built) -> None:
        """Write down whose the endpoints are, before a process can use them. One statement is its own transaction."""
        rows = [(container, each.endpoint.network_id, each.encode()) for each in built.attached]
        with self._database.transaction() if len(rows) > 1 else nullcontext():
            for row in rows:
                self._database.execute("INSERT OR REPLACE INTO endpoints VALUES (?, ?, ?)", row)
        with self._lock:
            self._attached[container] = built.attached

    def close_sandbox(self, container_id: str) -> None:
        """Give links and addresses of a container back; they are gone a moment later. Idempotent."""
        with self._lock:
            attached = self._attached.pop(container_id, ())
        if attached:
            self._database.execute("DELETE FROM endpoints WHERE container = ?", (container_id,))
            self._reaper.submit(attached)

    def settle(self, timeout: float = DRAIN) -> bool:
        """Wait until all that was closed is gone; False when the time is over first."""
        return self._reaper.drained(timeout)

    # Work of the other threads

    def _next_chore(self) -> tuple[Job | None, float | None]:
        pauses: list[float] = []
        for stock in self._stocks.values():
            job, pause = stock.next_chore()
            if job is not None:
                return job, None
            if pause is not None:
                pauses.append(pause)
        return None, min(pauses, default=None)

    def _make_bridged(self, netlink: NetlinkSocket) -> Built:
        return self._make(netlink, WAITING, (EndpointRequest(BRIDGE),), {})

    def _make_bare(self, netlink: NetlinkSocket) -> Built:
        return self._make(netlink, WAITING, (EndpointRequest(NONE),), {})

    def _make(
        self, netlink: NetlinkSocket, container: str, asked: Sequence[EndpointRequest], settings: dict[str, str]
    ) -> Built:
        plans: list[Plan] = []
        try:
            for each in sorted(asked, key=lambda request: -request.gw_priority):
                plans.append(self._plan(container, each, len(plans)))
            return sandbox.build(netlink, plans, settings)
        except BaseException:
            # Links die with the namespace, which nobody holds now; the reaper frees the addresses after them.
            self._reaper.submit([Attached(plan.endpoint, "") for plan in plans])
            raise

    def _plan(self, container: str, asked: EndpointRequest, number: int) -> Plan:
        network = self.resolve(asked.network)
        driver = self._drivers[network.id]
        endpoint = Endpoint(network.id, network.name, new_id(), interface="", mac="")
        pool = self._pools.get(network.id)
        if pool is not None:
            ipv4 = pool.reserve(asked.ipv4, container) if asked.ipv4 else pool.allocate(container)
            endpoint = replace(
                endpoint,
                interface=f"eth{number}",
                mac=asked.mac.lower() or driver.mac(network, ipv4),
                ipv4=ipv4,
                ipv4_prefix=network.network.prefixlen,
                gateway4="" if network.internal else network.gateway,
            )
        return Plan(driver, network, endpoint)

    def _discard(self, built: Built) -> None:
        os.close(built.netns_fd)
        self._reaper.submit(built.attached)

    def _reap(self, netlink: NetlinkSocket, ended: Sequence[Attached]) -> None:
        by_network: dict[str, list[Attached]] = {}
        for each in ended:
            by_network.setdefault(each.endpoint.network_id, []).append(each)
        for network, group in by_network.items():
            links = [each.host_link for each in group if each.host_link]
            if links:
                self._drivers[network].detach(netlink, links)
            if network in self._pools:
                self._pools[network].release(each.endpoint.ipv4 for each in group if each.endpoint.ipv4)


def _why(error: OSError) -> str:
    return f"{error.strerror} [{error.filename}]" if error.filename else str(error.strerror)
