"""The endpoints of containers in the store, written before a process can use them."""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping, Sequence
from contextlib import nullcontext

from wherry.network.records import Attached, decode_attached
from wherry.store.database import Database


class EndpointStore:
    """The table endpoints."""

    def __init__(self, database: Database) -> None:
        """Use this database."""
        self._database = database

    def load(
        self, alive: Collection[str], networks: Container[str], known: Mapping[str, tuple[Attached, ...]]
    ) -> dict[str, tuple[Attached, ...]]:
        """Return the endpoints of the living, those that are known as they are; forget those of all others."""
        groups: dict[str, list[Attached]] = {}
        with self._database.transaction():
            for container, network, record in self._database.query("SELECT container, network, record FROM endpoints"):
                if container in known:
                    continue
                if container in alive and network in networks:
                    groups.setdefault(container, []).append(decode_attached(record))
                else:
                    self.delete(container, network)
        found = {
            container: tuple(sorted(group, key=lambda each: each.endpoint.interface))
            for container, group in groups.items()
        }
        return {**known, **found}

    def write(self, container: str, attached: Sequence[Attached], gone: Sequence[Attached] = ()) -> None:
        """Write endpoints down and forget those that are gone, all at once. One statement is its own transaction."""
        with self._database.transaction() if len(attached) + len(gone) > 1 else nullcontext():
            for each in gone:
                self.delete(container, each.endpoint.network_id)
            for each in attached:
                self.put(container, each)

    def put(self, container: str, attached: Attached) -> None:
        """Write one endpoint down."""
        row = (container, attached.endpoint.network_id, attached.encode())
        self._database.execute("INSERT OR REPLACE INTO endpoints VALUES (?, ?, ?)", row)

    def delete(self, container: str, network_id: str = "") -> None:
        """Forget one endpoint of a container, or all."""
        if network_id:
            self._database.execute(
                "DELETE FROM endpoints WHERE container = ? AND network = ?", (container, network_id)
            )
        else:
            self._database.execute("DELETE FROM endpoints WHERE container = ?", (container,))
