"""docker volume create, ls, inspect, rm, prune, and the volumes of docker system df."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from wherry.errors import Conflict, EngineError, InvalidArgument, NotFound
from wherry.models import booleans
from wherry.models.labels import selected
from wherry.models.patterns import compile_pattern
from wherry.models.queries import Filters
from wherry.models.times import SECOND, rfc3339
from wherry.models.volume import CreateVolume
from wherry.services import renaming
from wherry.services.joint import Joint
from wherry.services.pace import at_their_pace
from wherry.services.provision import Provision, other_driver
from wherry.volumes import backing, names
from wherry.volumes.records import ANONYMOUS, LOCAL, Volume, invent_name
from wherry.volumes.remote import Remote

Json = Any
Sizes = dict[tuple[str, int], int]
"""Bytes of volumes, by name and time of creation."""

LIST_FILTERS = frozenset({"dangling", "driver", "label", "name"})
PRUNE_FILTERS = frozenset({"all", "label", "label!"})


@dataclass(frozen=True, slots=True)
class VolumeService:
    """VolumesBackend."""

    provision: Provision
    _walk: Joint[Sizes] = field(default_factory=Joint)

    async def create(self, request: CreateVolume) -> Json:
        """POST /volumes/create; an existing volume of that name is what is asked for."""
        name = names.check(request.name) if request.name else invent_name()
        driver = names.driver(request.driver)
        if driver == LOCAL:
            backing.check(name, request.driver_opts or {})
        else:
            await at_their_pace(self.provision.remote.check, driver, name)
        if not request.driver and (known := await self._known_elsewhere(name)):
            return await self._shown(known)
        labels = dict(request.labels or {}) | ({} if request.name else {ANONYMOUS: ""})
        kept = labels if labels or request.labels is not None else None
        async with self.provision.holding([name]):
            volumes = self.provision.volumes
            if name not in volumes:
                options = request.driver_opts
                fresh = Volume(name=name, created=time.time_ns(), driver=driver, labels=kept, options=options)
                await at_their_pace(self.provision.make_volume, fresh)
                with volumes.recording([fresh]):
                    pass
                self.provision.made([fresh])
            volume = volumes.get(name)
            if request.driver and volume.driver != driver:
                raise other_driver(name, volume.driver)
            return await self._shown(volume)

    def drivers(self) -> list[str]:
        """Return the names of the volume drivers that there are, as far as they have been used."""
        kept = {each.driver for each in self.provision.volumes if not each.local}
        return [LOCAL, *sorted({*kept, *self.provision.remote.known()})]

    async def listing(self, filters: Filters) -> Json:
        """GET /volumes."""
        chosen = self._filter(filters)
        volumes = self.provision.volumes
        there, warnings = await self.provision.strangers.listing(each.driver for each in volumes if not each.local)
        strange = [Volume(name=name, created=0, driver=driver) for driver, name in there if name not in volumes]
        shown = [each for each in (*volumes, *strange) if chosen(each)]
        found = [self._entry(each, there.get((each.driver, each.name))) for each in shown]
        return {"Volumes": found, "Warnings": warnings or None}

    async def _known_elsewhere(self, name: str) -> Volume | None:
        """Return a volume that has no record here, as a plugin tells of it."""
        return None if name in self.provision.volumes else await self.provision.strangers.find(name)

    async def _find(self, name: str) -> Volume:
        """Return a volume, also one that only its plugin knows. Raises NotFound."""
        return await self._known_elsewhere(name) or self.provision.volumes.get(name)

    async def inspect(self, name: str) -> Json:
        """GET /volumes/NAME."""
        return await self._shown(await self._find(name))

    async def _shown(self, volume: Volume) -> Json:
        """Return everything about a volume, also what its plugin knows."""
        if volume.local:
            return self._entry(volume)
        remote = self.provision.remote
        found = await at_their_pace(remote.get, volume.driver, volume.name)
        if found is None:
            raise NotFound(f"get {volume.name}: no such volume")
        scope = await at_their_pace(remote.scope, volume.driver)
        return self._entry(volume, found) | {"Scope": scope, "Status": found.status or {}}

    async def rename(self, name: str, new: str) -> Json:
        """POST /wherry/v1/volumes/NAME/rename."""
        await renaming.rename(self.provision, name, new)
        return await self.inspect(new)

    async def remove(self, name: str, *, force: bool) -> None:
        """DELETE /volumes/NAME; force: one that is not there is no error."""
        try:
            await self._remove(await self._find(name), force=force)
        except NotFound:
            if not force:
                raise

    async def _remove(self, volume: Volume, *, force: bool = False) -> None:
        """force: forget one whose plugin is gone. volume: as it was before its lock is held."""
        name, volumes = volume.name, self.provision.volumes
        async with self.provision.holding([name]):
            if volume.local or name in volumes:
                volume = volumes.get(name)
            if users := self.provision.users(name):
                raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
            try:
                await at_their_pace(self.provision.begin_removal, volume)
            except EngineError:
                if volume.local or not force:
                    raise
            with volumes.forgetting([name]):
                pass
            await asyncio.to_thread(volumes.discard, name)
            self.provision.publish(name, "destroy", driver=volume.driver)

    async def prune(self, filters: Filters) -> Json:
        """POST /volumes/prune: what no container has, and unless all=true nobody has named."""
        chosen = _prunable(filters)
        removed, freed = [], 0
        used = self.provision.in_use()
        for volume in self.provision.volumes:
            if not chosen(volume) or volume.name in used or not volume.local:
                continue
            size = await self._size(volume)
            try:
                await self._remove(volume)
            except (Conflict, NotFound):
                continue  # taken, or removed, meanwhile
            removed.append(volume.name)
            freed += max(size, 0)
        self.provision.bus.publish("volume", "prune", "", {"reclaimed": str(freed)})
        return {"VolumesDeleted": removed, "SpaceReclaimed": freed}

    async def usage(self) -> list[Json]:
        """Return the volumes of GET /system/df: those whose content is ours to count."""
        sizes = await self._walk.result(self._sizes, "sizes of volumes")
        found = []
        used = self.provision.in_use()
        for volume in self.provision.volumes:
            if not backing.of(volume.options, volume.driver).plain:
                continue
            size = sizes.get((volume.name, volume.created))
            if size is None:  # made since the walk began
                size = await self._size(volume)
            found.append(self._entry(volume) | {"UsageData": {"RefCount": used[volume.name], "Size": size}})
        return found

    async def _sizes(self) -> Sizes:
        return {(each.name, each.created): await self._size(each) for each in self.provision.volumes}

    async def _size(self, volume: Volume) -> int:
        if not backing.of(volume.options, volume.driver).plain:
            return 0
        try:
            return await asyncio.to_thread(self.provision.volumes.usage, volume.name)
        except OSError:
            return -1  # "not available", as in the API's schema

    def _entry(self, volume: Volume, found: Remote | None = None) -> Json:
        """found: what its plugin says of it."""
        place = str(self.provision.volumes.mountpoint(volume.name)) if volume.local else ""
        return {
            "CreatedAt": found.created_at if found else rfc3339(volume.created // SECOND * SECOND),
            "Driver": volume.driver,
            "Labels": volume.labels,
            "Mountpoint": found.mountpoint if found else place,
            "Name": volume.name,
            "Options": volume.options,
            "Scope": "local",
        }

    def _filter(self, filters: Filters) -> Callable[[Volume], bool]:
        for name in filters:
            if name not in LIST_FILTERS:
                raise InvalidArgument(f"invalid filter '{name}'")
        tests = [_name_test(value) for value in filters.get("name", ())]
        drivers = filters.get("driver", ())
        dangling = _dangling(filters.get("dangling", ()))
        used = Counter[str]() if dangling is None else self.provision.in_use()

        def chosen(volume: Volume) -> bool:
            named = not tests or any(test(volume.name) for test in tests)
            driven = not drivers or volume.driver in drivers
            labelled = selected(volume.labels or {}, filters)
            return named and driven and labelled and dangling in (None, volume.name not in used)

        return chosen


def _name_test(text: str) -> Callable[[str], bool]:
    try:
        return compile_pattern(text).search
    except InvalidArgument:
        return lambda name: text in name


def _dangling(values: Sequence[str]) -> bool | None:
    words = {value.lower() for value in values}
    if not words:
        return None
    if len(words) > 1 or not words <= {"0", "1", "true", "false"}:
        raise InvalidArgument(f"invalid filter 'dangling=[{' '.join(values)}]'")
    return words <= {"1", "true"}


def _prunable(filters: Filters) -> Callable[[Volume], bool]:
    for name in filters:
        if name not in PRUNE_FILTERS:
            raise InvalidArgument(f"invalid filter '{name}'")
    everything = False
    values = filters.get("all", ())
    if len(values) > 1:
        raise InvalidArgument(f"invalid filter 'all=[{' '.join(values)}]': only one value is expected")
    for value in values:
        meant = booleans.parse(value)
        if meant is None:
            raise InvalidArgument(f"invalid filter 'all': strconv.ParseBool: parsing \"{value}\": invalid syntax")
        everything = meant
    return lambda volume: (everything or volume.anonymous) and selected(volume.labels or {}, filters)
