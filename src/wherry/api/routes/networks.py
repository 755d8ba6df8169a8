"""The networks area, as far as it exists."""

from __future__ import annotations

from collections.abc import Iterator

from wherry.api.answers import Answer, json_reply
from wherry.api.backends import Backends, NetworksBackend
from wherry.api.request import Request
from wherry.api.router import Route


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


def routes(backends: Backends) -> Iterator[Route]:
    """Yield the routes of this area."""
    area = Networks(backends.networks)
    yield Route("GET", "/networks", area.listing)
    yield Route("GET", "/networks/{id}", area.inspect)
