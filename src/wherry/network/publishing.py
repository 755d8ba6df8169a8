"""The published ports of all sandboxes: taken on the host, led to the endpoint that has the way out, and given back.

A container's ports stand in the record of that endpoint (`Attached.published`), so that the engine that comes next
knows them before it touches the firewall. They follow when the way out moves to another network; in internal networks
and without any, they lead nowhere but stay taken.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

from wherry.errors import EngineError, SystemFailure
from wherry.kernel.netlink import conntrack
from wherry.network import options
from wherry.network.directory import Directory, why
from wherry.network.driver import Asking
from wherry.network.firewall.api import Forward
from wherry.network.hostports import HostPorts
from wherry.network.ports import PROTOCOLS, PortRequest, Published
from wherry.network.records import Attached
from wherry.network.sandbox import gateway_of

log = logging.getLogger(__name__)

_TCP = PROTOCOLS["tcp"]

Group = tuple[Attached, ...]
Held = dict[Published, socket.socket]
"""Sockets by the port that they hold; their holder hands them to the supervisor and closes its own."""


class Publishing:
    """Thread-safe as far as one container is asked about by one thread at a time."""

    def __init__(self, directory: Directory, default_address: str) -> None:
        """default_address: where a port is published that names no address, "" for every one of the host."""
        self._directory = directory
        self._default = default_address
        self._ports = HostPorts()

    def publish(self, container: str, name: str, group: Group, asked: Sequence[PortRequest]) -> tuple[Group, Held]:
        """Publish ports of a container; returns its endpoints with them, and the sockets. All or nothing.

        name: for the error, which is dockerd's. Nothing is published where there is no way out. Raises SystemFailure.
        """
        carrier = _carrier(group)
        entry = self._directory.get(carrier.endpoint.network_id) if carrier is not None else None
        if carrier is not None and entry is not None and isinstance(entry.driver, Asking):
            entry.driver.program(entry.network, carrier.endpoint, asked)
        if carrier is None or not asked or not self._is_bridge(carrier):
            return group, {}
        held: Held = {}
        fresh: list[Published] = []
        with ExitStack() as undo:
            try:
                for each in asked:
                    published, sock = self._ports.take(container, self._placed(each, carrier), carrier.endpoint.ipv4)
                    undo.callback(self._ports.give_back, container, published)
                    fresh.append(published)
                    if sock is not None:
                        undo.callback(sock.close)
                        held[published] = sock
                self._forward((), [each.forward(carrier.endpoint.ipv4) for each in fresh], carrier)
            except (OSError, EngineError) as error:
                raise SystemFailure(_failure(name, carrier, error)) from error
            undo.pop_all()
        return _with(group, carrier, (*ports_of(group), *fresh)), held

    def _is_bridge(self, carrier: Attached) -> bool:
        """Whether the host leads ports to where an endpoint is: elsewhere containers have addresses of their own."""
        entry = self._directory.get(carrier.endpoint.network_id)
        return entry is not None and entry.network.driver == "bridge"

    def _placed(self, asked: PortRequest, carrier: Attached) -> PortRequest:
        if asked.address:
            return asked
        entry = self._directory.get(carrier.endpoint.network_id)
        given = entry.network.options if entry is not None and not entry.network.predefined else {}
        return replace(asked, address=given.get(options.HOST_BINDING, "") or self._default)

    def _forward(self, gone: Iterable[Forward], fresh: Sequence[Forward], carrier: Attached | None = None) -> None:
        entry = self._directory.get(carrier.endpoint.network_id) if carrier is not None else None
        if entry is not None and carrier is not None and fresh:
            entry.driver.expose(carrier.host_link)
        gone = list(gone)
        self._directory.firewall.forward(gone, fresh)
        _forget_flows(gone, fresh)

    def retract(self, container: str, group: Group, gone: Sequence[Published]) -> Group:
        """Publish some ports of a container no more; returns its endpoints without them. Raises SystemFailure."""
        doomed = [each.forward(owner.endpoint.ipv4) for owner in group for each in owner.published if each in gone]
        try:
            self._forward(doomed, ())
        except OSError as error:
            raise SystemFailure(f"cannot change published ports: {why(error)}") from error
        for each in gone:
            self._ports.give_back(container, each)
        return tuple(replace(each, published=tuple(p for p in each.published if p not in gone)) for each in group)

    def follow(self, before: Group, after: Group) -> Group:
        """Lead the ports of a container to where its way out is now. Raises SystemFailure."""
        published = ports_of(before)
        if not published:
            return after
        carrier = _carrier(after)
        gone = [each.forward(owner.endpoint.ipv4) for owner in before for each in owner.published]
        led = carrier is not None and self._is_bridge(carrier)
        fresh = [each.forward(carrier.endpoint.ipv4) for each in published] if carrier is not None and led else []
        try:
            self._forward(gone, fresh, carrier)
        except OSError as error:
            raise SystemFailure(f"cannot move published ports: {why(error)}") from error
        return _with(after, carrier or after[0], published)

    def release(self, container: str, group: Group) -> None:
        """Let others have the ports of a container that has ended; `forget` takes their rules away."""
        for each in ports_of(group):
            self._ports.give_back(container, each)

    def forget(self, ended: Iterable[Attached]) -> None:
        """Take the rules of ended endpoints away, before their addresses can be another's. Raises OSError."""
        self._forward([each.forward(owner.endpoint.ipv4) for owner in ended for each in owner.published], ())

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
    doomed += [conntrack.to_port(each.protocol, each.port) for each in fresh if each.protocol != _TCP]
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
    return [each.forward(owner.endpoint.ipv4) for owner in group if owner.endpoint.ipv4 for each in owner.published]


def _carrier(group: Group) -> Attached | None:
    chosen = gateway_of(each.endpoint for each in group)
    return next((each for each in group if each.endpoint is chosen), None)


def _with(group: Group, carrier: Attached, published: tuple[Published, ...]) -> Group:
    return tuple(replace(each, published=published if each is carrier else ()) for each in group)


def _failure(name: str, carrier: Attached, error: OSError | EngineError) -> str:
    reason = error.message if isinstance(error, EngineError) else why(error)
    endpoint = carrier.endpoint.endpoint_id
    return f"driver failed programming external connectivity on endpoint {name} ({endpoint}): {reason}"
