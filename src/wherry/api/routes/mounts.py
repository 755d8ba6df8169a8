"""Mounts of a container that exists: ours and not Docker's, below /wherry/v1."""

from __future__ import annotations

from collections.abc import Iterator

from wherry.api.answers import Answer, json_reply
from wherry.api.backends import Backends, MountsBackend
from wherry.api.request import Request
from wherry.api.router import Route
from wherry.api.routes.xray import PREFIX
from wherry.api.wire.decode import convert
from wherry.models.container import HostConfig


class Mounts:
    """Endpoints over the mounts backend."""

    def __init__(self, backend: MountsBackend) -> None:
        self._backend = backend

    async def listing(self, request: Request) -> Answer:
        """Tell what is mounted."""
        return json_reply(await self._backend.listing(request.params["id"]))

    async def add(self, request: Request) -> Answer:
        """Mount more: the body has "Binds" and "Mounts", as in HostConfig."""
        asked = convert(await request.json() or {}, HostConfig)
        return json_reply(await self._backend.add(request.params["id"], asked), 201)

    async def remove(self, request: Request) -> Answer:
        """Take away what is mounted at ?target=; force=1: also when it is in use."""
        query = request.query
        force = query.flag("force")
        return json_reply(await self._backend.remove(request.params["id"], query.text("target"), force=force))


def routes(backends: Backends) -> Iterator[Route]:
    """Yield the routes of this area."""
    area = Mounts(backends.mounts)
    path = f"{PREFIX}/containers/{{id}}/mounts"
    yield Route("GET", path, area.listing)
    yield Route("POST", path, area.add)
    yield Route("DELETE", path, area.remove)
