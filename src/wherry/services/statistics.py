"""docker stats: one sampler for all who watch, so that the cost goes with the containers and not with the clients.

Nobody watches: nothing runs. A single answer does not wait a second for a second sample, as dockerd does: uptime is
known to the nanosecond, so that a pause of `SHORT` seconds gives the load as well.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from wherry.containers import usage
from wherry.containers.catalog import Container
from wherry.kernel import cgroup
from wherry.runtime.cgroups import Cgroup
from wherry.services.lifecycle import Lifecycle
from wherry.supervision.background import spawn

Json = Any
PERIOD = 1.0
SHORT = 0.04
_NOT_THERE = (errno.ENOENT, errno.ENODEV, errno.ESRCH, errno.EOPNOTSUPP)  # not in this kernel, or ended


class Statistics:
    """Samples the containers that somebody watches, once a second."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._catalog = lifecycle.catalog
        self._lifecycle = lifecycle
        self._watched: Counter[str] = Counter()
        self._latest: dict[str, tuple[Json | None, Json]] = {}
        self._tick: asyncio.Future[None] | None = None

    async def once(self, container: Container, *, one_shot: bool) -> Json:
        """Return one answer: with one_shot from a single sample, else with the load since an earlier one."""
        sample, before = await asyncio.to_thread(self._read, container), None
        if sample is not None and not one_shot:
            before, kept = sample, self._latest.get(container.id)
            if kept is not None and kept[1]["read"] != sample["read"]:
                before = kept[1]
            else:
                await asyncio.sleep(SHORT)
                sample = await asyncio.to_thread(self._read, container)
        return usage.answer(sample, before, name=container.name, container_id=container.id)

    async def stream(self, container: Container) -> AsyncIterator[Json]:
        """Yield None, then an answer a second while the container is there; none for seconds in which it rests."""
        yield None
        self._watched[container.id] += 1
        shown = ""
        try:
            while container.id in self._catalog:
                await self._next_tick()
                before, sample = self._latest.get(container.id, (None, None))
                if sample is not None and sample["read"] != shown:
                    shown = sample["read"]
                    yield usage.answer(sample, before, name=container.name, container_id=container.id)
        finally:
            self._watched[container.id] -= 1
            if not self._watched[container.id]:
                del self._watched[container.id]
                self._latest.pop(container.id, None)

    async def _next_tick(self) -> None:
        if self._tick is None:
            self._tick = asyncio.get_running_loop().create_future()
            spawn(self._run(self._tick), "container statistics")
        await asyncio.shield(self._tick)

    async def _run(self, tick: asyncio.Future[None]) -> None:
        """Sample for everybody who waits for this tick; who wants another one makes it."""
        now = time.time()
        await asyncio.sleep(PERIOD - now % PERIOD)
        self._tick = None
        try:
            containers = [container for container in self._catalog if container.id in self._watched]
            samples = await asyncio.to_thread(lambda: [(each.id, self._read(each)) for each in containers])
            for container_id, sample in samples:
                if sample is None:
                    self._latest.pop(container_id, None)
                elif container_id in self._watched:
                    earlier = self._latest.get(container_id)
                    self._latest[container_id] = (earlier[1] if earlier else None, sample)
        finally:
            tick.set_result(None)

    def _read(self, container: Container) -> Json | None:
        """Take one sample; None when the container does not run."""
        state = container.record.state
        if not state.alive:
            return None
        group = Cgroup.open(self._lifecycle.cgroup_path(container))
        texts = {name: _text(f"{directory}/{name}") for directory, names in _files(group) for name in names}
        if container.record.host_config.own_network:
            texts["net/dev"] = _text(f"/proc/{state.pid}/net/dev")
        if not any(texts.values()):
            return None  # it has ended since
        return usage.reading(
            texts,
            version=group.version,
            at=time.time_ns(),
            cpus=self._lifecycle.launching.facts.cpu_count,
            uptime=time.clock_gettime_ns(time.CLOCK_BOOTTIME),
            machine_memory=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        )


def _files(group: Cgroup) -> list[tuple[str, tuple[str, ...]]]:
    """Return the directories of a group and what to read in each."""
    if group.version == 2:
        return [(group.directories[0], usage.V2_FILES)]
    found = [(group.directory(controller), names) for controller, names in usage.V1_FILES.items()]
    return [(directory, names) for directory, names in found if directory]


def _text(path: str) -> str:
    try:
        return cgroup.read(path)
    except OSError as error:
        if error.errno in _NOT_THERE:
            return ""
        raise
