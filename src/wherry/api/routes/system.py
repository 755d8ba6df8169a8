"""The system area: ping, version, info, events, disk usage, login."""

from __future__ import annotations

from collections.abc import Iterator

from wherry.api import streams
from wherry.api.answers import OK, Answer, Reply, json_reply
from wherry.api.backends import Backends, SystemBackend
from wherry.api.request import Request
from wherry.api.router import Route
from wherry.api.versions import adapt
from wherry.errors import InvalidArgument

PING = {
    "Builder-Version": "1",
    "Cache-Control": "no-cache, no-store, must-revalidate",
    "Content-Type": "text/plain; charset=utf-8",
    "Pragma": "no-cache",
    "Swarm": "inactive",
}
"""Builder-Version 1: the classic POST /build, not BuildKit."""
KINDS = ("container", "image", "volume", "build-cache")
KINDS_ASKED = (1, 42)
"""Until then type= was unknown, and everything was told."""

PONG = Reply(200, b"OK", PING)
QUIET_PONG = Reply(200, b"", PING)


async def prune_build_cache(request: Request) -> Answer:
    """Delete what builds have cached, which is nothing without a builder; docker system prune asks for it."""
    return json_reply({"CachesDeleted": None, "SpaceReclaimed": 0})


class System:
    """Endpoints over the system backend."""

    def __init__(self, backend: SystemBackend) -> None:
        self._backend = backend

    async def version(self, request: Request) -> Answer:
        """Say which engine, versions and components these are."""
        return json_reply(await self._backend.version())

    async def info(self, request: Request) -> Answer:
        """Say how the engine and the machine are set up."""
        return json_reply(await self._backend.info())

    async def events(self, request: Request) -> Answer:
        """Tell what happens, from since until until."""
        query = request.query
        since, until = query.moment("since"), query.moment("until")
        if 0 < until < since:
            raise InvalidArgument(
                f"`since` time ({query.text('since')}) cannot be after `until` time ({query.text('until')})"
            )
        return await streams.events(self._backend.events(since=since, until=until, filters=query.filters()))

    async def disk_usage(self, request: Request) -> Answer:
        """Say what takes how much room; with type=, only that."""
        asked = request.query.all("type") if request.version >= KINDS_ASKED else []
        for kind in asked:
            if kind not in KINDS:
                raise InvalidArgument(f"unknown object type: {kind}")
        usage = await self._backend.disk_usage(asked or KINDS)
        return json_reply(adapt("disk usage", request.version, usage))


def routes(backends: Backends) -> Iterator[Route]:
    """Yield the routes of this area."""
    system = System(backends.system)
    yield Route("GET", "/_ping", instant=PONG)
    yield Route("HEAD", "/_ping", instant=QUIET_PONG)
    yield Route("OPTIONS", "/{path...}", instant=OK)  # as dockerd: nothing, and no permission for foreign origins
    yield Route("GET", "/version", system.version)
    yield Route("GET", "/info", system.info)
    yield Route("GET", "/events", system.events, follows=True)
    yield Route("GET", "/system/df", system.disk_usage)
    yield Route("POST", "/build/prune", prune_build_cache)
