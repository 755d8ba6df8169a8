"""Keeps the name server at what the endpoints say: who is in which network, under which names, and who may ask."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from wherry.errors import EngineError, SystemFailure, Unavailable
from wherry.network.api import Endpoint
from wherry.network.directory import Directory, why
from wherry.network.dns import place
from wherry.network.dns.client import Client, Entries, NameServer
from wherry.network.dns.message import can_be_asked
from wherry.network.hostfiles import nameservers
from wherry.network.records import PREDEFINED, Attached
from wherry.network.sandbox import gateway_of
from wherry.network.workshop import Workshop

log = logging.getLogger(__name__)

Group = Sequence[Attached]
"""The endpoints of one container."""

_FULL_ID = re.compile(r"([0-9a-f]{12})[0-9a-f]{52}")

OpenNamespace = Callable[[str], "int | None"]
"""Returns a descriptor of a running container's network namespace, None when it has ended."""


class Naming:
    """Thread-safe. Containers that are in no network of the user have nothing to do with it."""

    def __init__(
        self, directory: Directory, workshop: Workshop, run_root: Path, groups: Callable[[], Mapping[str, Group]]
    ) -> None:
        """`groups` returns the endpoints of all containers, as they are now."""
        self._directory = directory
        self._workshop = workshop
        self._groups = groups
        self._server = NameServer(run_root, self._lost)
        self._telling = threading.Lock()
        self._served: set[str] = set()
        self._open_namespace: OpenNamespace = lambda container: None

    def admit(self, group: Group, netns_fd: int) -> None:
        """Let a container ask and be found, before its first process runs or when it came into one more network.

        Raises SystemFailure, Unavailable.
        """
        if not concerns(group):
            return
        sandbox_id = group[0].sandbox_id
        with self._telling:
            try:
                self._admit(sandbox_id, group, netns_fd)
            except Unavailable:  # it has died or hangs, and has forgotten whom it served: a fresh one will answer
                self._served = set()
                self._admit(sandbox_id, group, netns_fd)

    def _admit(self, sandbox_id: str, group: Group, netns_fd: int) -> None:
        if sandbox_id in self._served:
            self._server.place(client(group, nameservers()))
        else:
            self._place(group, netns_fd)
        self._show(each.endpoint.network_id for each in group)

    def _place(self, group: Group, netns_fd: int) -> None:
        try:
            udp, tcp = self._workshop.run(lambda _netlink: place.sockets(netns_fd))
        except OSError as error:
            raise SystemFailure(f"cannot set up name resolution in a container: {why(error)}") from error
        with udp, tcp:
            self._server.place(client(group, nameservers()), (udp.fileno(), tcp.fileno()))
        self._served.add(group[0].sandbox_id)

    def update(self, network_ids: Iterable[str], group: Group = ()) -> None:
        """Tell who is in these networks now, and what a container that is served may ask. Failures are logged."""
        with self._telling:
            try:
                if group and group[0].sandbox_id in self._served:
                    self._server.place(client(group, nameservers()))
                self._show(network_ids)
            except Unavailable as error:
                log.warning("names are not up to date", extra={"error": error.message})

    def leave(self, ended: Iterable[Attached]) -> None:
        """Serve containers no more that have ended, and take their names away. Failures are logged."""
        ended = tuple(ended)
        networks = {each.endpoint.network_id for each in ended if each.endpoint.network_name not in PREDEFINED}
        with self._telling:
            # Also one that has left its networks of the user before: it may still ask.
            sandboxes = self._served.intersection(each.sandbox_id for each in ended)
            if not sandboxes and not networks:
                return
            sandboxes -= {each.sandbox_id for group in self._groups().values() for each in group}
            self._served -= sandboxes
            try:
                self._server.drop(sandboxes)
                self._show(networks)
            except Unavailable as error:
                log.warning("names are not up to date", extra={"error": error.message})

    def forget(self, network_id: str) -> None:
        """A network has been removed."""
        with self._telling:
            try:
                self._server.drop((), [network_id])
            except Unavailable as error:
                log.warning("names are not up to date", extra={"error": error.message})

    def _show(self, network_ids: Iterable[str]) -> None:
        groups = self._groups().values()
        for network_id in dict.fromkeys(network_ids):
            entry = self._directory.get(network_id)
            if entry is None or entry.network.predefined:
                continue
            found = (each.endpoint for group in groups for each in group if each.endpoint.network_id == network_id)
            entries: Entries = [(addresses_of(each), tuple(filter(can_be_asked, each.names))) for each in found]
            self._server.show(network_id, entry.network.name, entries)

    # ---- the process comes and goes

    def restore(self, open_namespace: OpenNamespace) -> None:
        """Take up the name server of the engine before, and whom it does not serve; it may have died too."""
        self._open_namespace = open_namespace
        with self._telling:
            served = self._server.resume()
            self._served = served
            strangers = served - {each.sandbox_id for group in self._concerned().values() for each in group}
            try:
                self._server.drop(strangers)
            except Unavailable as error:
                log.warning("names are not up to date", extra={"error": error.message})
        self._serve_all()

    def _lost(self) -> None:
        with self._telling:
            self._served = set()
        self._serve_all()

    def _concerned(self) -> dict[str, Group]:
        return {container: group for container, group in self._groups().items() if concerns(group)}

    def _serve_all(self) -> None:
        for container, group in self._concerned().items():
            netns_fd = self._open_namespace(container)
            if netns_fd is None:
                continue
            try:
                self.admit(group, netns_fd)
            except EngineError as error:
                log.error("container without names", extra={"container": container, "error": error.message})
            finally:
                os.close(netns_fd)

    def close(self) -> None:
        """Leave the name server; it ends when no container is left that it serves."""
        self._server.close()


def concerns(group: Collection[Attached]) -> bool:
    """Whether any of the endpoints is in a network of the user."""
    return any(each.endpoint.network_name not in PREDEFINED for each in group)


def addresses_of(endpoint: Endpoint) -> tuple[str, ...]:
    """Return the addresses that an endpoint has."""
    return tuple(each for each in (endpoint.ipv4, endpoint.ipv6) if each)


def client(group: Group, hosts: Sequence[str]) -> Client:
    """Return what the name server has to know of a container that asks; its networks in the order of search.

    hosts: the servers of the host, for names that are not of the networks; without a way out nobody is asked.
    """
    endpoints = [each.endpoint for each in group]
    ordered = sorted(endpoints, key=lambda each: (-each.gw_priority, each.network_name))
    given = group[0].nameservers
    way_out = any(gateway_of(endpoints, version) for version in (4, 6))
    return Client(
        sandbox_id=group[0].sandbox_id,
        networks=tuple(each.network_id for each in ordered),
        upstreams=tuple(given or hosts) if way_out else (),
        follows_host=way_out and not given,
        links={each.network_id: _meanings(each.links) for each in ordered if each.links},
    )


def _meanings(links: Iterable[str]) -> dict[str, str]:
    """Return what aliases mean ("name:alias"), as the table of names has it; a full id is there by its beginning."""
    pairs = [link.partition(":")[::2] for link in links]
    return {(alias or name).lower(): _FULL_ID.sub(r"\1", name.lower()) for name, alias in pairs}
