"""The container use cases as the API asks for them; the work is in creation, lifecycle, streams and looks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from typing import Any, BinaryIO

from msgspec import structs

from wherry.containers import names
from wherry.containers.catalog import Catalog, Container
from wherry.containers.state import check_not_restarting
from wherry.errors import Conflict, InvalidArgument, NotFound, SystemFailure
from wherry.models.container import ContainerConfig, CreateContainer, HostConfig
from wherry.models.queries import (
    ArchiveAnswer,
    AttachQuery,
    CommitQuery,
    ExtractQuery,
    Filters,
    ListQuery,
    LogsAnswer,
    LogsQuery,
    PathStat,
    Upgrade,
)
from wherry.services import endpoints, processes
from wherry.services.committing import Committing
from wherry.services.copying import Copying
from wherry.services.creation import Creation
from wherry.services.lifecycle import Lifecycle
from wherry.services.looks import Looks
from wherry.services.statistics import Statistics
from wherry.services.streams import Streams
from wherry.services.updating import Updating

Json = Any
WAIT_CONDITIONS = frozenset({"", "not-running", "next-exit", "removed"})


@dataclass(frozen=True, slots=True)
class Containers:
    """ContainersBackend."""

    catalog: Catalog
    creation: Creation
    lifecycle: Lifecycle
    streams: Streams
    looks: Looks
    updating: Updating
    statistics: Statistics
    copying: Copying
    committing: Committing

    async def create(self, request: CreateContainer, *, name: str, platform: str) -> Json:
        """POST /containers/create."""
        return await self.creation.create(request, name=name, platform=platform)

    async def listing(self, query: ListQuery) -> list[Json]:
        """GET /containers/json."""
        return await self.looks.listing(query)

    async def inspect(self, ref: str, *, size: bool = False) -> Json:
        """GET /containers/ID/json."""
        return await self.looks.inspect(self.catalog.resolve(ref), size=size)

    async def start(self, ref: str) -> None:
        """POST /containers/ID/start."""
        await self.lifecycle.start(self.catalog.resolve(ref))

    async def stop(self, ref: str, *, signal: str, timeout: int | None) -> None:
        """POST /containers/ID/stop."""
        await self.lifecycle.stop(self.catalog.resolve(ref), signal_name=signal, timeout=timeout)

    async def restart(self, ref: str, *, signal: str, timeout: int | None) -> None:
        """POST /containers/ID/restart."""
        await self.lifecycle.restart(self.catalog.resolve(ref), signal_name=signal, timeout=timeout)

    async def kill(self, ref: str, *, signal: str) -> None:
        """POST /containers/ID/kill."""
        try:
            container = self.catalog.resolve(ref)
        except NotFound as error:
            raise NotFound(f"cannot kill container: {ref}: {error.message}") from error
        await self.lifecycle.kill(container, signal)

    async def pause(self, ref: str) -> None:
        """POST /containers/ID/pause."""
        self.lifecycle.pause(self.catalog.resolve(ref))

    async def unpause(self, ref: str) -> None:
        """POST /containers/ID/unpause."""
        self.lifecycle.unpause(self.catalog.resolve(ref))

    async def remove(self, ref: str, *, force: bool, volumes: bool, link: bool) -> None:
        """DELETE /containers/ID; volumes: with the volumes that nobody named."""
        if link:
            self.lifecycle.launching.links.remove(ref)
            return
        await self.lifecycle.remove(self.catalog.resolve(ref), force=force, volumes=volumes)

    async def rename(self, ref: str, name: str) -> None:
        """POST /containers/ID/rename."""
        container = self.catalog.resolve(ref)
        if not name:
            raise InvalidArgument("Neither old nor new names may be empty")
        try:
            bare = names.check(name if name.startswith("/") else f"/{name}")
        except InvalidArgument as error:
            raise InvalidArgument(f"Error when allocating new name: {error.message}") from error
        if bare == container.name:
            raise InvalidArgument("Renaming a container with the same name as its current name")
        async with container.lock:
            self.catalog.check_is_there(container)
            try:
                self.catalog.check_name_is_free(bare)
            except Conflict as error:
                raise Conflict(f"Error when allocating new name: {error.message}") from error
            old = container.name
            self.catalog.save(container, structs.replace(container.record, name=bare))
            await asyncio.to_thread(self._rename_endpoints, container)
        self.lifecycle.publish(container, "rename", oldName=f"/{old}")

    def _rename_endpoints(self, container: Container) -> None:
        networks = self.lifecycle.networks
        names = {networks.resolve(each.network).id: each.names for each in endpoints.requests(container.record)}
        networks.rename(container.id, names)

    async def update(self, ref: str, asked: HostConfig) -> Json:
        """POST /containers/ID/update."""
        return await self.updating.update(self.catalog.resolve(ref), asked)

    async def changes(self, ref: str) -> list[Json]:
        """GET /containers/ID/changes."""
        return await self.looks.changes(self.catalog.resolve(ref))

    async def path_stat(self, ref: str, path: str) -> PathStat:
        """HEAD /containers/ID/archive."""
        return await self.copying.look(self.catalog.resolve(ref), ref, path)

    async def archive(self, ref: str, path: str) -> ArchiveAnswer:
        """GET /containers/ID/archive."""
        return await self.copying.take(self.catalog.resolve(ref), ref, path)

    async def extract(self, ref: str, query: ExtractQuery, body: BinaryIO) -> None:
        """PUT /containers/ID/archive."""
        await self.copying.put(self.catalog.resolve(ref), ref, query, body)

    async def export(self, ref: str) -> AsyncIterator[bytes]:
        """GET /containers/ID/export."""
        return await self.copying.export(self.catalog.resolve(ref))

    async def commit(self, ref: str, query: CommitQuery, config: ContainerConfig | None) -> Json:
        """POST /commit."""
        return {"Id": await self.committing.commit(self.catalog.resolve(ref), query, config)}

    async def usage(self, ref: str, *, one_shot: bool) -> Json:
        """GET /containers/ID/stats?stream=false."""
        return await self.statistics.once(self.catalog.resolve(ref), one_shot=one_shot)

    def usage_stream(self, ref: str) -> AsyncIterator[Json]:
        """GET /containers/ID/stats."""
        return self.statistics.stream(self.catalog.resolve(ref))

    async def resize(self, ref: str, *, height: int, width: int) -> None:
        """POST /containers/ID/resize."""
        container = self._running(ref)
        assert container.task is not None
        if container.record.config.tty:  # dockerd takes it for any container
            await container.task.resize(height, width)
        self.lifecycle.publish(container, "resize", height=str(height), width=str(width))

    def _running(self, ref: str) -> Container:
        container = self.catalog.resolve(ref)
        check_not_restarting(f"Container {container.id}", container.record.state.status)
        if not container.record.state.alive or container.task is None:
            raise Conflict(f"container {container.id} is not running")
        return container

    async def top(self, ref: str, ps_args: str) -> Json:
        """GET /containers/ID/top."""
        container = self._running(ref)
        try:
            first = container.task.pid if container.task else 0
            pids = processes.pids(self.lifecycle.cgroup_path(container), first)
        except OSError as error:
            raise SystemFailure(f"cannot list the processes of container {container.id}: {error}") from error
        answer = await asyncio.to_thread(processes.table, pids, ps_args)
        self.lifecycle.publish(container, "top")
        return answer

    async def wait(self, ref: str, condition: str) -> Awaitable[Json]:
        """POST /containers/ID/wait: registered when this returns."""
        if condition not in WAIT_CONDITIONS:
            raise InvalidArgument(f'invalid condition: "{condition}"')
        container = self.catalog.resolve(ref)
        loop = asyncio.get_running_loop()
        if condition == "removed":
            if container.removed is None:
                container.removed = loop.create_future()
            return _result(asyncio.shield(container.removed))
        if condition == "next-exit":
            return _result(container.end())
        if container.record.state.active:
            return _at_rest(container, container.end())
        already: asyncio.Future[int] = loop.create_future()
        already.set_result(container.record.state.exit_code)
        return _result(already)

    async def attach(self, ref: str, query: AttachQuery, upgrade: Upgrade) -> None:
        """POST /containers/ID/attach."""
        await self.streams.attach(self.catalog.resolve(ref), query, upgrade)

    async def logs(self, ref: str, query: LogsQuery) -> LogsAnswer:
        """GET /containers/ID/logs."""
        return self.streams.logs(self.catalog.resolve(ref), query)

    async def prune(self, filters: Filters) -> Json:
        """POST /containers/prune: remove what does not run."""
        return await self.looks.prune(filters, self.lifecycle)


async def _result(code: asyncio.Future[int]) -> Json:
    return {"StatusCode": await code}


async def _at_rest(container: Container, ended: asyncio.Future[int]) -> Json:
    """The end after which a container is not started again."""
    code = await ended
    while container.record.state.active:
        code = await container.end()
    return {"StatusCode": code}
