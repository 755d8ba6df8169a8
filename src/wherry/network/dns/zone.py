"""Who is called what in which network, and what a container may know of it. PURE."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from wherry.network.dns import message
from wherry.network.dns.message import Question


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A container as one who asks: its networks in the order of search, the servers for all other names ("" port 53).

    upstreams: none for a container without a way out, so that nothing leaves an internal network by questions
    (CVE-2024-29018).
    """

    networks: tuple[str, ...]
    upstreams: tuple[str, ...] = ()


@dataclass(slots=True)
class Table:
    """The names of one network."""

    name: str
    addresses: dict[str, list[str]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, entries: Iterable[tuple[str, Sequence[str]]]) -> Table:
        """Make a table of (address, names of its container, the chief one first)."""
        table = cls(name)
        for address, names in entries:
            for each in names:
                found = table.addresses.setdefault(each.lower(), [])
                if address not in found:
                    found.append(address)
            if names:
                table.names[address] = f"{names[0]}.{name}"
        return table


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
        tables = [self.tables[each] for each in sandbox.networks if each in self.tables]
        if question.type == message.PTR and (wanted := message.reversed_address(question.name)):
            names = [table.names[wanted] for table in tables if wanted in table.names]
            return [message.encode_name(names[0])] if names else None
        addresses = _addresses(tables, question.name)
        if addresses is None:
            return None
        if question.type != message.A:
            return []
        return [message.address(each) for each in random.sample(addresses, len(addresses))]


def _addresses(tables: Sequence[Table], name: str) -> list[str] | None:
    """Return the addresses of a name, alone or with its network's name behind it, in the first network that has it."""
    for table in tables:
        found = table.addresses.get(name)
        if found is None and name.endswith(f".{table.name.lower()}"):
            found = table.addresses.get(name[: -len(table.name) - 1])
        if found is not None:
            return found
    return None
