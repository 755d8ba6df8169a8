"""What plugins have mounted for containers: at a start or later, and given back at the end.

    RUN_ROOT/plugin-mounts/ID   there from before a plugin mounts anything for a container until it heard of its end

So an engine that is killed between a plugin's Mount and the start of the container knows, when it comes back, who has
to be told that nobody needs the volume.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from msgspec import structs

from wherry.containers.catalog import Catalog
from wherry.containers.record import MountRecord, Record
from wherry.errors import EngineError
from wherry.failpoints import reach
from wherry.services.pace import at_their_pace
from wherry.supervision.background import spawn
from wherry.volumes.local import Volumes
from wherry.volumes.records import LOCAL
from wherry.volumes.remote import RemoteVolumes

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PluginMounts:
    """Mounts and unmounts, by container."""

    volumes: Volumes
    remote: RemoteVolumes
    marks: Path
    _parting: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def of(self, record: Record) -> list[MountRecord]:
        """Return the mounts of a container whose volumes plugins keep."""
        return [each for each in record.mounts if _is_a_plugins(each)]

    async def mounted(self, record: Record, undo: AsyncExitStack) -> Record:
        """Have the plugins mount their volumes for a container; return its record with the places of them."""
        await self.parted(record.id)
        places: dict[str, str] = {}
        undo.push_async_callback(self._give_back, record.id, places)
        self._mark(record.id)
        for each in self.of(record):
            if each.name not in places:
                self.volumes.get(each.name)
                places[each.name] = await at_their_pace(self.remote.mount, each.driver, each.name, record.id)
        reach("plugins.mounted")
        return _placed(record, places)

    async def mounted_later(self, record: Record, added: Sequence[MountRecord]) -> Record:
        """As `mounted`, for mounts that a container gets while it runs. What it has already is not mounted again."""
        has = {each.name: each.source for each in self.of(record) if each not in added}
        places: dict[str, str] = {}
        try:
            for each in added:
                if _is_a_plugins(each) and each.name not in has | places:
                    self._mark(record.id)
                    places[each.name] = await at_their_pace(self.remote.mount, each.driver, each.name, record.id)
        except EngineError:
            await self._part_from(record.id, places)
            raise
        return _placed(record, has | places)

    async def part_later(self, record: Record, gone: Sequence[MountRecord]) -> None:
        """Say to the plugins which volumes a container that runs has no longer. record: without them."""
        kept = {each.name for each in self.of(record)}
        await self._part_from(record.id, {each.name for each in gone if each.type == "volume"} - kept)

    def part_soon(self, record: Record) -> None:
        """Say to the plugins that a container has ended, in the background; `parted` waits for it."""
        if self.of(record):
            self._parting[record.id] = spawn(self._part(record), f"volumes of {record.name}")

    async def parted(self, container_id: str) -> None:
        """Wait until the plugins know that a container has ended."""
        task = self._parting.pop(container_id, None)
        if task is not None:
            await asyncio.wait([task])

    def take_up(self, catalog: Catalog) -> None:
        """Give back what an engine that was killed had mounted for containers that never ran, or are over."""
        for mark in sorted(self.marks.iterdir()) if self.marks.exists() else ():
            record = catalog.resolve(mark.name).record if mark.name in catalog else None
            if record is None or not (record.state.alive or self.of(record)):
                mark.unlink()
            elif not record.state.alive and mark.name not in self._parting:
                self.part_soon(record)

    async def _part(self, record: Record) -> None:
        await self._give_back(record.id, {each.name for each in self.of(record)})

    async def _give_back(self, container_id: str, names: Iterable[str]) -> None:
        await self._part_from(container_id, names)
        (self.marks / container_id).unlink(missing_ok=True)

    def _mark(self, container_id: str) -> None:
        self.marks.mkdir(mode=0o700, exist_ok=True)
        (self.marks / container_id).touch()

    async def _part_from(self, container_id: str, names: Iterable[str]) -> None:
        """Say to the plugins that a container does not need some volumes any more. Failures are logged."""
        for name in sorted(names):
            if name in self.volumes and not (volume := self.volumes.get(name)).local:
                await at_their_pace(self._unmount, volume.driver, name, container_id)

    def _unmount(self, driver: str, name: str, container: str) -> None:
        try:
            self.remote.unmount(driver, name, container)
        except EngineError as error:
            log.warning("a volume stays mounted", extra={"volume": name, "driver": driver, "error": error.message})


def _is_a_plugins(mount: MountRecord) -> bool:
    return mount.type == "volume" and mount.driver != LOCAL


def _placed(record: Record, places: Mapping[str, str]) -> Record:
    """Return a record in which volumes of plugins are where the plugins have mounted them."""
    mounts = tuple(structs.replace(each, source=places.get(each.name, each.source)) for each in record.mounts)
    return structs.replace(record, mounts=mounts)
