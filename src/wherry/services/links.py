"""Links of the default bridge (docker run --link), where no name server is: names in /etc/hosts, and variables.

A container that links to another one finds it under the alias, the other's hostname and its name, in its hosts file,
which follows when the other one is started again at another address; variables are those of the time of the start. In
networks of the user a link is an alias that only the container itself resolves, see network/dns/zone.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from msgspec import structs

from wherry.containers.catalog import Catalog, Container
from wherry.containers.record import Link, Record
from wherry.errors import Conflict, InvalidArgument, NotFound, SystemFailure
from wherry.models.container import HostConfig
from wherry.network import etcfiles, livefiles, ports
from wherry.network.api import Endpoint
from wherry.network.controller import Networks
from wherry.network.firewall.api import Passage
from wherry.network.requests import LINKS
from wherry.services.settings import Settings

NETWORK = "bridge"
_ALIAS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}", re.ASCII)
_NOT_FOR_OTHERS = ("HOME", "PATH")
_HOST_MODE = f"conflicting options: host type networking {LINKS}"

Port = tuple[int, str]


def parse(text: str) -> tuple[str, str]:
    """Return name and alias of "name", "name:alias", and of "/name:/parent/alias", as docker inspect has it."""
    if not text:
        raise InvalidArgument("empty string specified for links")
    name, *rest = text.split(":")
    if len(rest) > 1:
        raise InvalidArgument(f"bad format for links: {text}")
    if name.startswith("/") and rest:
        return name[1:], rest[0].rpartition("/")[2]
    return name, rest[0] if rest else name


def check(text: str) -> None:
    """Raise InvalidArgument for a link whose alias could be more than one word of a hosts file or of a variable."""
    _, alias = parse(text)
    if not _ALIAS.fullmatch(alias):
        raise InvalidArgument(f"bad format for links: {text!r}: the alias must match {_ALIAS.pattern}")


def resolve(host: HostConfig, catalog: Catalog) -> tuple[Link, ...]:
    """Return the links of a container on the default bridge; of two with one alias the first."""
    if not host.links or host.network_mode not in (NETWORK, "none"):
        return ()
    found: dict[str, Link] = {}
    for text in host.links:
        name, alias = parse(text)
        check(text)
        other = _owner(name, catalog).record
        if other.host_config.network_mode == "host":
            raise InvalidArgument(_HOST_MODE)
        found.setdefault(alias, Link(container=other.id, name=other.name, alias=alias))
    return tuple(found.values())


def _owner(name: str, catalog: Catalog) -> Container:
    """Return the container of a name, or the one whose network it shares; never a 404, which means an image."""
    if not name:
        raise InvalidArgument('could not get container for : invalid name or ID supplied: ""')
    try:
        found = catalog.resolve(name)
        while found.record.host_config.network_mode.startswith("container:"):
            found = catalog.resolve(found.record.host_config.network_mode.removeprefix("container:"))
    except NotFound as error:
        raise InvalidArgument(f"could not get container for {name}: {error.message}") from error
    return found


@dataclass(frozen=True, slots=True)
class Links:
    """Keeps links at what the linked containers are."""

    settings: Settings
    catalog: Catalog
    networks: Networks

    def check(self, record: Record) -> None:
        """Raise SystemFailure, as dockerd, when a container cannot be started because of those that it links to."""
        for link, other in self._linked(record):
            if other is None or not other.record.state.alive:
                raise SystemFailure(
                    f"Cannot link to a non running container: /{self._name(link)} AS /{record.name}/{link.alias}"
                )
            if self.networks.endpoint_in(other.id, NETWORK) is None:
                raise SystemFailure(f"container {other.id} not attached to default bridge network")

    def hosts(self, record: Record) -> tuple[tuple[str, str], ...]:
        """Return lines of the hosts file: (names, address)."""
        return tuple(
            (_names(link, other.record), address)
            for link, other, endpoint in self._there(record)
            for address in etcfiles.addresses([endpoint])
        )

    def environment(self, record: Record) -> tuple[str, ...]:
        """Return the variables that tell of the linked containers that run."""
        return tuple(
            variable
            for link, other, endpoint in self._there(record)
            for variable in variables(f"/{record.name}/{link.alias}", link.alias, other.record, endpoint.ipv4)
        )

    def follow(self, container: Container) -> None:
        """Tell those that link to a container that has been started where it is now. Raises SystemFailure."""
        endpoint = self.networks.endpoint_in(container.id, NETWORK)
        if endpoint is None:
            return
        self.let_pass()
        for parent, link in self._parents(container):
            if parent.record.state.alive:
                names = _names(link, container.record)
                lines = "".join(f"{address}\t{names}\n" for address in etcfiles.addresses([endpoint]))
                self._rewrite(parent, link, container.record, lines)

    def let_pass(self) -> None:
        """Let linked containers reach what those that they link to expose, where containers may not talk (icc=false).

        Raises SystemFailure.
        """
        self.networks.let_pass(passage for container in self.catalog for passage in self._passages(container.record))

    def _passages(self, record: Record) -> Iterator[Passage]:
        source = self.networks.endpoint_in(record.id, NETWORK) if record.links else None
        if source is None or not source.ipv4:
            return
        for _, other, endpoint in self._there(record):
            for port, protocol in _known_ports(other.record) if endpoint.ipv4 else ():
                yield Passage(source.ipv4, endpoint.ipv4, ports.PROTOCOLS[protocol], port)

    def remove(self, ref: str) -> None:
        """Take a link "parent/alias" away (docker rm --link); the variables stay until the next start."""
        parent_name, slash, alias = ref.removeprefix("/").partition("/")
        parent = self.catalog.resolve(parent_name if slash else ref)
        if not slash:
            raise Conflict("Conflict, cannot remove the default link name of the container")
        found = next((each for each in parent.record.links if each.alias == alias), None)
        if found is None:
            raise NotFound(f"No such container: {ref}")
        rest = tuple(each for each in parent.record.links if each is not found)
        if parent.record.state.alive and found.container in self.catalog:
            self._rewrite(parent, found, self.catalog.resolve(found.container).record, "")
        self.catalog.save(parent, structs.replace(parent.record, links=rest))
        self.let_pass()

    def shown(self, record: Record) -> list[str] | None:
        """Return HostConfig.Links of docker inspect."""
        return [f"/{self._name(each)}:/{record.name}/{each.alias}" for each in record.links] or None

    def names(self) -> dict[str, list[str]]:
        """Return what linked containers are called by others, by id: further names in docker ps."""
        found: dict[str, list[str]] = {}
        for parent in self.catalog:
            for link in parent.record.links:
                found.setdefault(link.container, []).append(f"/{parent.name}/{link.alias}")
        return found

    def _linked(self, record: Record) -> Iterator[tuple[Link, Container | None]]:
        if NETWORK in (record.networking.endpoints_config or {}):
            for link in record.links:
                there = link.container in self.catalog
                yield link, self.catalog.resolve(link.container) if there else None

    def _there(self, record: Record) -> Iterator[tuple[Link, Container, Endpoint]]:
        for link, other in self._linked(record):
            endpoint = self.networks.endpoint_in(other.id, NETWORK) if other is not None else None
            if other is not None and endpoint is not None:
                yield link, other, endpoint

    def _parents(self, container: Container) -> Iterator[tuple[Container, Link]]:
        for parent in self.catalog:
            for link in parent.record.links:
                if link.container == container.id:
                    yield parent, link

    def _name(self, link: Link) -> str:
        return self.catalog.resolve(link.container).name if link.container in self.catalog else link.name

    def _rewrite(self, parent: Container, link: Link, other: Record, lines: str) -> None:
        path = self.settings.container_root(parent.id) / "hosts"
        livefiles.exchange(path, [each for each in (link.alias, other.config.hostname) if each], lines)


def _names(link: Link, other: Record) -> str:
    names = [link.alias, other.config.hostname, *([other.name] if other.name != link.alias else [])]
    return " ".join(each for each in names if each)


def variables(name: str, alias: str, other: Record, address: str) -> Iterator[str]:
    """Yield the variables of one link, in dockerd's order. name: "/parent/alias"; address: IPv4, as there."""
    prefix = alias.upper().replace("-", "_")
    if address:
        yield from _port_variables(prefix, _known_ports(other), address)
    yield f"{prefix}_NAME={name}"
    for entry in other.config.env or ():
        variable, equals, value = entry.partition("=")
        if equals and variable not in _NOT_FOR_OTHERS:
            yield f"{prefix}_ENV_{variable}={value}"


def _known_ports(record: Record) -> list[Port]:
    """Return the ports that a container exposes or publishes, those of TCP first."""
    exposed = ports.exposed(record.config.exposed_ports or {})
    bound = [(each.port, each.protocol) for each in ports.requests(record.host_config.port_bindings or {})]
    return sorted({*exposed, *bound}, key=lambda port: (port[1] != "tcp", *port))


def _port_variables(prefix: str, known: Sequence[Port], address: str) -> Iterator[str]:
    run: list[Port] = []
    for port, protocol in known:
        url, name = f"{protocol}://{address}:{port}", f"{prefix}_PORT_{port}_{protocol.upper()}"
        if (port, protocol) == known[0]:
            yield f"{prefix}_PORT={url}"
        yield f"{name}={url}"
        yield f"{name}_ADDR={address}"
        yield f"{name}_PORT={port}"
        yield f"{name}_PROTO={protocol}"
        if run and run[-1] != (port - 1, protocol):
            yield from _run_variables(prefix, run, address)
            run = []
        run.append((port, protocol))
    yield from _run_variables(prefix, run, address)


def _run_variables(prefix: str, run: Sequence[Port], address: str) -> Iterator[str]:
    """Yield what tells of ports that follow each other; nothing for one alone."""
    if len(run) < 2:
        return
    (first, protocol), (last, _) = run[0], run[-1]
    name = f"{prefix}_PORT_{first}_{protocol.upper()}"
    for word, port in (("START", first), ("END", last)):
        yield f"{name}_{word}={protocol}://{address}:{port}"
        yield f"{name}_PORT_{word}={port}"
