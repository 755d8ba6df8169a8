"""The networks area."""

from __future__ import annotations

from collections.abc import Iterator

from wherry.api.answers import NO_CONTENT, OK, Answer, json_reply
from wherry.api.backends import Backends, NetworksBackend
from wherry.api.request import Request
from wherry.api.router import Route
from wherry.models.network import Connect, CreateNetwork, Disconnect


class Networks:
    """Endpoints over the networks backend."""

    def __init__(self, backend: NetworksBackend) -> None:
        self._backend = backend

    async def listing(self, request: Request) -> Answer:
        """List networks."""
        return json_reply(await self._backend.listing(request.query.filters()))

    async def inspect(self, request: Request) -> Answer:
        """Say everything about a network."""
        return json_reply(await self._backend.inspect(request.params["id"]))

    async def create(self, request: Request) -> Answer:
        """Make a network."""
        return json_reply(await self._backend.create(await request.model(CreateNetwork)), 201)

    async def remove(self, request: Request) -> Answer:
        """Remove a network."""
        await self._backend.remove(request.params["id"])
        return NO_CONTENT

    async def prune(self, request: Request) -> Answer:
        """Remove all networks that nobody is in."""
        return json_reply(await self._backend.prune(request.query.filters()))

    async def connect(self, request: Request) -> Answer:
        """Put a container into a network."""
        asked = await request.model(Connect)
        await self._backend.connect(request.params["id"], asked.container, asked.endpoint_config)
        return OK

    async def disconnect(self, request: Request) -> Answer:
        """Take a container out of a network."""
        asked = await request.model(Disconnect)
        await self._backend.disconnect(request.params["id"], asked.container, force=asked.force)
        return OK


def routes(backends: Backends) -> Iterator[Route]:
    """Yield the routes of this area."""
    area = Networks(backends.networks)
    yield Route("GET", "/networks", area.listing)
    yield Route("GET", "/networks/{id}", area.inspect)
    yield Route("POST", "/networks/create", area.create)
    yield Route("POST", "/networks/prune", area.prune)
    yield Route("DELETE", "/networks/{id}", area.remove)
    yield Route("POST", "/networks/{id}/connect", area.connect)
    yield Route("POST", "/networks/{id}/disconnect", area.disconnect)
