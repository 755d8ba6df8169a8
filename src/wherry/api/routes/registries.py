"""Registries: docker push, login, search, and what a name means there. docker pull is POST /images/create."""

from __future__ import annotations

from collections.abc import Iterator

from wherry.api import streams
from wherry.api.answers import Answer, json_reply
from wherry.api.backends import Backends, RegistriesBackend
from wherry.api.request import Request
from wherry.api.router import Route
from wherry.errors import InvalidArgument


def auth_of(request: Request) -> str:
    """Return the header in which a client hands credentials over."""
    return request.headers.get("x-registry-auth", "")


class Registries:
    """Endpoints over the registries backend."""

    def __init__(self, backend: RegistriesBackend) -> None:
        self._backend = backend

    async def push(self, request: Request) -> Answer:
        """Send an image to its registry."""
        records = self._backend.push(request.params["name"], tag=request.query.text("tag"), auth=auth_of(request))
        return await streams.progress(records, str(request))

    async def login(self, request: Request) -> Answer:
        """Say whether a registry takes credentials."""
        body = await request.json()
        if not isinstance(body, dict):
            raise InvalidArgument("invalid request body: it must be a JSON object")
        return json_reply(await self._backend.login(body))

    async def search(self, request: Request) -> Answer:
        """Search an index."""
        query = request.query
        found = await self._backend.search(
            query.text("term"), limit=query.number("limit") or 0, filters=query.filters(), auth=auth_of(request)
        )
        return json_reply(found)

    async def distribution(self, request: Request) -> Answer:
        """Say what a name means in its registry."""
        return json_reply(await self._backend.distribution(request.params["name"], auth=auth_of(request)))


def routes(backends: Backends) -> Iterator[Route]:
    """Yield the routes of this area."""
    area = Registries(backends.registries)
    yield Route("POST", "/images/{name...}/push", area.push)
    yield Route("GET", "/images/search", area.search, follows=True)
    yield Route("GET", "/distribution/{name...}/json", area.distribution, follows=True)
    yield Route("POST", "/auth", area.login)
