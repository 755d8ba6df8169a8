"""The published ports of all sandboxes: taken on the host, led to the endpoint that has the way out, and given back.

The way out is one of each family: IPv4 and IPv6 may leave by different networks. A container's ports stand in the
record of the endpoint that carries their family (`Attached.published`), so that the engine that comes next knows them
before it touches the firewall. They follow when the way out moves to another network; in internal networks and without
any, they lead nowhere but stay taken.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

from wherry.errors import EngineError, InvalidArgument, SystemFailure
from wherry.kernel.netlink import conntrack
from wherry.network import options
from wherry.network.api import Endpoint
from wherry.network.directory import Directory, why
from wherry.network.driver import Asking
from wherry.network.firewall.api import Forward
from wherry.network.hostports import HostPorts
from wherry.network.ports import ANY, ANY6, PROTOCOLS, PortRequest, Published
from wherry.network.records import Attached
from wherry.network.sandbox import gateway_of

log = logging.getLogger(__name__)

_TCP = PROTOCOLS["tcp"]

Group = tuple[Attached, ...]
Carriers = dict[int, Attached]
"""The endpoints that have the way out, by family."""
Held = dict[Published, socket.socket]
"""Sockets by the port that they hold; their holder hands them to the supervisor and closes its own."""


class Publishing:
    """Thread-safe as far as one container is asked about by one thread at a time."""

    def __init__(self, directory: Directory, default_address: str, default_address6: str = "") -> None:
        """default_address: where a port is published that names no address, "" for every one of the host; at most one
        of the two is given.
        """
        self._directory = directory
        self._default = default_address
        self._default6 = default_address6
        self._ports = HostPorts()

    def publish(self, container: str, name: str, group: Group, asked: Sequence[PortRequest]) -> tuple[Group, Held]:
        """Publish ports of a container; returns its endpoints with them, and the sockets. All or nothing.

        name: for the error, which is dockerd's. Nothing is published where there is no way out. Raises SystemFailure.
        """
        self._program(group, asked)
        carriers = self._carriers(group)
        if not carriers or not asked:
            return group, {}
        held: Held = {}
        fresh: list[Published] = []
        with ExitStack() as undo:
            try:
                for each in asked:
                    targets = self._targets(each, carriers)
                    for published, sock in self._ports.take(container, each, targets) if targets else ():
                        undo.callback(self._ports.give_back, container, published)
                        fresh.append(published)
                        if sock is not None:
                            undo.callback(sock.close)
                            held[published] = sock
                self._forward((), _led(fresh, carriers), carriers)
            except (OSError, EngineError) as error:
                raise SystemFailure(_failure(name, next(iter(carriers.values())), error)) from error
            undo.pop_all()
        return _with(group, carriers, (*ports_of(group), *fresh)), held

    def _program(self, group: Group, asked: Sequence[PortRequest]) -> None:
        """Tell drivers that publish by themselves, once for both families."""
        chosen = [gateway_of((each.endpoint for each in group), version) for version in (4, 6)]
        for endpoint in dict.fromkeys(each for each in chosen if each is not None):
            entry = self._directory.get(endpoint.network_id)
            if entry is not None and isinstance(entry.driver, Asking):
                entry.driver.program(entry.network, endpoint, asked)

    def _carriers(self, group: Group) -> Carriers:
        """Return the endpoint that has the way out, by family, as far as the host leads ports to it.

        To others than bridges it does not: elsewhere containers have addresses of their own.
        """
        found: Carriers = {}
        for version in (4, 6):
            chosen = gateway_of((each.endpoint for each in group), version)
            carrier = next((each for each in group if each.endpoint is chosen), None)
            entry = self._directory.get(carrier.endpoint.network_id) if carrier is not None else None
            if carrier is not None and entry is not None and entry.network.driver == "bridge":
                found[version] = carrier
        return found

    def _targets(self, asked: PortRequest, carriers: Carriers) -> dict[str, str]:
        """Return the addresses of the host where a port is to be, each with the container's that it leads to.

        "::" for a container without IPv6 is none: nothing but a proxy could lead it there. Raises InvalidArgument.
        """
        addresses = [asked.address] if asked.address else self._defaults(carriers)
        found: dict[str, str] = {}
        for address in addresses:
            carrier = carriers.get(6 if ":" in address else 4)
            if carrier is not None:
                found[address] = _address(carrier.endpoint, 6 if ":" in address else 4)
            elif address not in (ANY, ANY6):
                version = 6 if ":" in address else 4
                raise InvalidArgument(f"a port of {address} needs a network with IPv{version} and a way out")
        return found

    def _defaults(self, carriers: Carriers) -> list[str]:
        """Return where a port is published that names no address. A default that is not 0.0.0.0 is the only one."""
        bound = self._option(carriers.get(4), options.HOST_BINDING)
        if self._default6 and not bound:
            return [self._default6]
        place = bound or self._default or ANY
        bound6 = self._option(carriers.get(6), options.HOST_BINDING6)
        place6 = bound6 or (ANY6 if place == ANY else "")
        wanted = {4: place, 6: place6}
        return [address for version, address in wanted.items() if version in carriers and address]

    def _option(self, carrier: Attached | None, name: str) -> str:
        entry = self._directory.get(carrier.endpoint.network_id) if carrier is not None else None
        return entry.network.options.get(name, "") if entry is not None and not entry.network.predefined else ""

    def _forward(
        self, gone: Iterable[Forward], fresh: Sequence[Forward], carriers: Mapping[int, Attached] | None = None
    ) -> None:
        for version, carrier in (carriers or {}).items():
            entry = self._directory.get(carrier.endpoint.network_id)
            if entry is not None and any(each.family == version for each in fresh):
                entry.driver.expose(carrier.host_link)
        gone = list(gone)
        self._directory.firewall.forward(gone, fresh)
        _forget_flows(gone, fresh)

    def retract(self, container: str, group: Group, gone: Sequence[Published]) -> Group:
        """Publish some ports of a container no more; returns its endpoints without them. Raises SystemFailure."""
        chosen = set(gone)
        owners = (replace(each, published=tuple(p for p in each.published if p in chosen)) for each in group)
        doomed = [each for owner in owners for each in owner.forwards]
        try:
            self._forward(doomed, ())
        except OSError as error:
            raise SystemFailure(f"cannot change published ports: {why(error)}") from error
        for each in gone:
            self._ports.give_back(container, each)
        return tuple(replace(each, published=tuple(p for p in each.published if p not in chosen)) for each in group)

    def follow(self, before: Group, after: Group) -> Group:
        """Lead the ports of a container to where its way out is now. Raises SystemFailure."""
        published = ports_of(before)
        if not published:
            return after
        carriers = self._carriers(after)
        try:
            self._forward(forwards(before), _led(published, carriers), carriers)
        except OSError as error:
            raise SystemFailure(f"cannot move published ports: {why(error)}") from error
        return _with(after, carriers, published)

    def release(self, container: str, group: Group) -> None:
        """Let others have the ports of a container that has ended; `forget` takes their rules away."""
        for each in ports_of(group):
            self._ports.give_back(container, each)

    def forget(self, ended: Iterable[Attached]) -> None:
        """Take the rules of ended endpoints away, before their addresses can be another's. Raises OSError."""
        self._forward(forwards(ended), ())

    def restore(self, groups: Mapping[str, Group]) -> None:
        """Know the ports of the containers that run, and drop the rules of those that do not."""
        for container, group in groups.items():
            for each in ports_of(group):
                self._ports.know(container, each)
        current = [each for group in groups.values() for each in forwards(group)]
        self._directory.firewall.forward(set(self._directory.inherited) - set(current), ())


def _forget_flows(gone: Sequence[Forward], fresh: Sequence[Forward]) -> None:
    """Have clients that go on sending without connecting anew, over UDP, find who has the port now.

    Connection tracking would lead them to where the port led when they began, an address that may be another's.
    """
    doomed = [conntrack.answered_by(each.protocol, each.to_address) for each in gone if each.protocol != _TCP]
    doomed += [conntrack.to_port(each.protocol, each.port, each.family) for each in fresh if each.protocol != _TCP]
    if not doomed:
        return
    try:
        conntrack.delete(doomed)
    except OSError as error:
        log.warning("flows of a published port go on", extra={"error": why(error)})


def ports_of(group: Group) -> tuple[Published, ...]:
    """Return the published ports of a container."""
    return tuple(each for owner in group for each in owner.published)


def forwards(group: Iterable[Attached]) -> list[Forward]:
    """Return the rules of endpoints that have a way out."""
    return [each for owner in group for each in owner.forwards]


def leads_out(endpoint: Endpoint, version: int) -> bool:
    """Whether an endpoint has a gateway of a family, so that published ports can lead to it."""
    return bool(endpoint.gateway4 if version == 4 else endpoint.gateway6)


def _led(published: Iterable[Published], carriers: Carriers) -> list[Forward]:
    addresses = {version: _address(each.endpoint, version) for version, each in carriers.items()}
    return [each.forward(addresses[each.version]) for each in published if each.version in addresses]


def _address(endpoint: Endpoint, version: int) -> str:
    return endpoint.ipv4 if version == 4 else endpoint.ipv6


def _with(group: Group, carriers: Carriers, published: tuple[Published, ...]) -> Group:
    """Return the endpoints with the ports that each carries; those of a family without a way out are the first's."""
    owners = {version: carriers.get(version, group[0]) for version in (4, 6)}
    return tuple(
        replace(each, published=tuple(port for port in published if owners[port.version] is each)) for each in group
    )


def _failure(name: str, carrier: Attached, error: OSError | EngineError) -> str:
    reason = error.message if isinstance(error, EngineError) else why(error)
    endpoint = carrier.endpoint.endpoint_id
    return f"driver failed programming external connectivity on endpoint {name} ({endpoint}): {reason}"
