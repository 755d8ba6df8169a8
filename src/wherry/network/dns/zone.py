"""Who is called what in which network, and what a container may know of it. PURE."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from wherry.network.dns import message
from wherry.network.dns.message import Question

_SIZES = {message.A: 4, message.AAAA: 16}


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A container as one who asks: its networks in the order of search, the servers for all other names ("" port 53).

    upstreams: none for a container without a way out, so that nothing leaves an internal network by questions
    (CVE-2024-29018). follows_host: they are those of the host, also when that gets others.
    links: what this container alone calls others, by network: (network id, {alias: name there}).
    """

    networks: tuple[str, ...]
    upstreams: tuple[str, ...] = ()
    follows_host: bool = False
    links: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(slots=True)
class Table:
    """The names of one network: addresses of 4 and of 16 bytes by name, the chief name by address."""

    name: str
    addresses: dict[str, list[bytes]] = field(default_factory=dict)
    names: dict[bytes, str] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, entries: Iterable[tuple[Sequence[str], Sequence[str]]]) -> Table:
        """Make a table of (addresses of a container, its names, the chief one first)."""
        table = cls(name)
        for addresses, names in entries:
            packed = [message.address(each) for each in addresses]
            for each in names:
                found = table.addresses.setdefault(each.lower(), [])
                found += [address for address in packed if address not in found]
            if names:
                table.names |= dict.fromkeys(packed, f"{names[0]}.{name}")
        return table

    def find(self, name: str, links: Mapping[str, str] | None = None) -> list[bytes] | None:
        """Return the addresses of a name, alone or with the network's name behind it; None: there is no such name.

        links: only what these mean is looked up.
        """
        for each in (name, name.removesuffix(f".{self.name.lower()}")):
            wanted = each if links is None else links.get(each, "")
            if wanted in self.addresses:
                return self.addresses[wanted]
        return None


class Zone:
    """The tables of all networks and the sandboxes that are served."""

    def __init__(self) -> None:
        self.tables: dict[str, Table] = {}
        self.sandboxes: dict[str, Sandbox] = {}

    def find(self, sandbox_id: str, question: Question) -> list[bytes] | None:
        """Return the data of the answer's records, none where the name has no such record; None: not a name of ours."""
        sandbox = self.sandboxes.get(sandbox_id)
        if sandbox is None or question.class_ not in (message.IN, message.ANY_CLASS):
            return None
        tables = [(self.tables[each], sandbox.links.get(each)) for each in sandbox.networks if each in self.tables]
        if question.type == message.PTR and (wanted := message.reversed_address(question.name)):
            names = [table.names[wanted] for table, _ in tables if wanted in table.names]
            return [message.encode_name(names[0])] if names else None
        addresses = _addresses(tables, question.name)
        if addresses is None:
            return None
        size = _SIZES.get(question.type, 0)
        return [each for each in addresses if len(each) == size]


def _addresses(tables: Sequence[tuple[Table, Mapping[str, str] | None]], name: str) -> list[bytes] | None:
    """Return the addresses of a name in the first network that has it: what the container calls others comes first."""
    for table, links in tables:
        if links and (found := table.find(name, links)) is not None:
            return found
    for table, _ in tables:
        if (found := table.find(name)) is not None:
            return found
    return None
