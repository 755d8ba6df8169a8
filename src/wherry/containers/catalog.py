"""All containers of one engine, by id, name and unique prefix; each change is on disk before it is visible."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from wherry.containers import record as records
from wherry.containers.health import Health
from wherry.containers.record import Record
from wherry.errors import Conflict, InvalidArgument, NotFound
from wherry.runtime.wire import AttachOptions
from wherry.store.database import Database
from wherry.supervision.task import Task

HEX = re.compile(r"[0-9a-f]{1,64}", re.ASCII)


@dataclass(slots=True)
class PendingAttach:
    """A client that attached before the start: its stream goes to the supervisor with the launch."""

    fd: int
    options: AttachOptions


@dataclass(slots=True, eq=False)
class Container:
    """A container of the running engine: its record, and what exists only while the engine runs."""

    record: Record
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    task: Task | None = None
    watcher: asyncio.Task[None] | None = None
    pending: list[PendingAttach] = field(default_factory=list)
    stopped: list[asyncio.Future[int]] = field(default_factory=list)
    removed: asyncio.Future[int] | None = None
    health: Health | None = None
    checking: asyncio.Task[None] | None = None
    restarting: asyncio.Task[None] | None = None
    unwell: bool = False
    """Whether the engine is ending this run because of its health."""
    backoff: float = 0.0
    """Seconds of the pause before the last start that a restart policy made; 0: none."""

    @property
    def id(self) -> str:
        """The full id."""
        return self.record.id

    @property
    def name(self) -> str:
        """The name, without a slash."""
        return self.record.name

    def end(self) -> asyncio.Future[int]:
        """Return a future of the exit code, set once the next end of the container is in its record."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.stopped.append(future)
        return future


class Catalog:
    """The one place that holds and persists container records. Used from the event loop only."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._by_id: dict[str, Container] = {}
        self._by_name: dict[str, str] = {}
        self.coming: set[str] = set()
        """Ids that have files already and no record yet."""

    def load(self) -> list[str]:
        """Read all records; return a sentence for each that cannot be read (it stays in the store, untouched)."""
        damaged = []
        for container_id, data in self._database.query("SELECT id, record FROM containers ORDER BY created"):
            try:
                self._index(Container(records.decode(data)))
            except msgspec.MsgspecError as error:
                damaged.append(f"the record of container {container_id} cannot be read: {error}")
        return damaged

    def _index(self, container: Container) -> None:
        self._by_id[container.id] = container
        self._by_name[container.name] = container.id

    def __iter__(self) -> Iterator[Container]:
        return iter(tuple(self._by_id.values()))

    def __contains__(self, container_id: object) -> bool:
        return container_id in self._by_id

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def names(self) -> dict[str, str]:
        """Names in use and the ids that hold them."""
        return self._by_name

    def resolve(self, ref: str) -> Container:
        """Find by full id, then name, then unique prefix, then as what another one links to ("other/alias").

        Raises NotFound or InvalidArgument (ambiguous).
        """
        wanted = ref.removeprefix("/")
        if wanted in self._by_id:
            return self._by_id[wanted]
        if wanted in self._by_name:
            return self._by_id[self._by_name[wanted]]
        if HEX.fullmatch(wanted):
            found = [key for key in self._by_id if key.startswith(wanted)]
            if len(found) > 1:
                raise InvalidArgument(f"multiple IDs found with provided prefix: {wanted}")
            if found:
                return self._by_id[found[0]]
        parent, _, alias = wanted.partition("/")
        if parent in self._by_name:
            for link in self._by_id[self._by_name[parent]].record.links:
                if link.alias == alias and link.container in self._by_id:
                    return self._by_id[link.container]
        raise NotFound(f"No such container: {ref}")

    def check_is_there(self, container: Container) -> None:
        """Raise NotFound for a container that was removed while somebody waited for its lock."""
        if container.id not in self._by_id:
            raise NotFound(f"No such container: {container.id}")

    def check_name_is_free(self, name: str) -> None:
        """Raise Conflict, with the text that clients match on, when the name is taken."""
        holder = self._by_name.get(name)
        if holder:
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{holder}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )

    def add(self, record: Record) -> Container:
        """Write a new record and make it visible."""
        self.check_name_is_free(record.name)
        self._database.execute(
            "INSERT INTO containers (id, name, created, record) VALUES (?, ?, ?, ?)",
            (record.id, record.name, record.created, record.encode()),
        )
        container = Container(record)
        self._index(container)
        return container

    def save(self, container: Container, record: Record) -> None:
        """Replace the record, on disk first."""
        self._database.execute(
            "UPDATE containers SET name = ?, record = ? WHERE id = ?", (record.name, record.encode(), record.id)
        )
        if record.name != container.record.name:
            del self._by_name[container.record.name]
            self._by_name[record.name] = record.id
        container.record = record

    def remove(self, container: Container) -> None:
        """Forget a container; its name is free from now on."""
        self._database.execute("DELETE FROM containers WHERE id = ?", (container.id,))
        self._by_id.pop(container.id, None)
        self._by_name.pop(container.name, None)
