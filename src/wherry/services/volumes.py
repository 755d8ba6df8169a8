"""docker volume create, ls, inspect, rm, prune, and the volumes of docker system df."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from wherry.errors import Conflict, InvalidArgument, NotFound
from wherry.models import booleans
from wherry.models.labels import selected
from wherry.models.patterns import compile_pattern
from wherry.models.queries import Filters
from wherry.models.times import SECOND, rfc3339
from wherry.models.volume import CreateVolume
from wherry.services.provision import Provision
from wherry.volumes import backing, names
from wherry.volumes.records import ANONYMOUS, Volume, invent_name

Json = Any
LIST_FILTERS = frozenset({"dangling", "driver", "label", "name"})
PRUNE_FILTERS = frozenset({"all", "label", "label!"})


@dataclass(frozen=True, slots=True)
class VolumeService:
    """VolumesBackend."""

    provision: Provision

    async def create(self, request: CreateVolume) -> Json:
        """POST /volumes/create; an existing volume of that name is what is asked for."""
        name = names.check(request.name) if request.name else invent_name()
        names.check_driver(name, request.driver)
        backing.check(name, request.driver_opts or {})
        labels = dict(request.labels or {}) | ({} if request.name else {ANONYMOUS: ""})
        kept = labels if labels or request.labels is not None else None
        async with self.provision.holding([name]):
            volumes = self.provision.volumes
            if name not in volumes:
                fresh = [Volume(name=name, created=time.time_ns(), labels=kept, options=request.driver_opts)]
                await asyncio.to_thread(volumes.make, name)
                with volumes.recording(fresh):
                    pass
                self.provision.made(fresh)
            return self._entry(volumes.get(name))

    async def listing(self, filters: Filters) -> Json:
        """GET /volumes."""
        chosen = self._filter(filters)
        found = [self._entry(each) for each in self.provision.volumes if chosen(each)]
        return {"Volumes": found, "Warnings": None}

    async def inspect(self, name: str) -> Json:
        """GET /volumes/NAME."""
        return self._entry(self.provision.volumes.get(name))

    async def remove(self, name: str, *, force: bool) -> None:
        """DELETE /volumes/NAME; force: one that is not there is no error."""
        try:
            self.provision.volumes.get(name)
            await self._remove(name)
        except NotFound:
            if not force:
                raise

    async def _remove(self, name: str) -> None:
        async with self.provision.holding([name]):
            volumes = self.provision.volumes
            volumes.get(name)
            if users := self.provision.users(name):
                raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
            await asyncio.to_thread(self.provision.unsettle, [name])
            with volumes.forgetting([name]):
                pass
            await asyncio.to_thread(volumes.discard, name)
            self.provision.publish(name, "destroy")

    async def prune(self, filters: Filters) -> Json:
        """POST /volumes/prune: what no container has, and unless all=true nobody has named."""
        chosen = _prunable(filters)
        removed, freed = [], 0
        used = self.provision.in_use()
        for volume in self.provision.volumes:
            if not chosen(volume) or volume.name in used:
                continue
            size = await self._size(volume)
            try:
                await self._remove(volume.name)
            except (Conflict, NotFound):
                continue  # taken, or removed, meanwhile
            removed.append(volume.name)
            freed += max(size, 0)
        self.provision.bus.publish("volume", "prune", "", {"reclaimed": str(freed)})
        return {"VolumesDeleted": removed, "SpaceReclaimed": freed}

    async def usage(self) -> list[Json]:
        """Return the volumes of GET /system/df: those whose content is ours to count."""
        found = []
        used = self.provision.in_use()
        for volume in self.provision.volumes:
            if not backing.of(volume.options).plain:
                continue
            size = await self._size(volume)
            found.append(self._entry(volume) | {"UsageData": {"RefCount": used[volume.name], "Size": size}})
        return found

    async def _size(self, volume: Volume) -> int:
        if not backing.of(volume.options).plain:
            return 0
        try:
            return await asyncio.to_thread(self.provision.volumes.usage, volume.name)
        except OSError:
            return -1  # "not available", as in the API's schema

    def _entry(self, volume: Volume) -> Json:
        return {
            "CreatedAt": rfc3339(volume.created // SECOND * SECOND),
            "Driver": names.DRIVER,
            "Labels": volume.labels,
            "Mountpoint": str(self.provision.volumes.mountpoint(volume.name)),
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
            driven = not drivers or names.DRIVER in drivers
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
    for value in filters.get("all", ()):
        meant = booleans.parse(value)
        if meant is None:
            raise InvalidArgument(f"invalid filter 'all': strconv.ParseBool: parsing \"{value}\": invalid syntax")
        everything = meant
    return lambda volume: (everything or volume.anonymous) and selected(volume.labels or {}, filters)
