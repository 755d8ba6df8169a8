"""The exec area: further processes in running containers."""

from __future__ import annotations

from collections.abc import Iterator

from wherry.api.answers import OK, Answer, Hijacked, json_reply
from wherry.api.backends import Backends, ExecBackend
from wherry.api.request import Request
from wherry.api.router import Route
from wherry.models.container import ExecConfig, ExecStart

HIJACKED = Hijacked()


class Execs:
    """Endpoints over the exec backend."""

    def __init__(self, backend: ExecBackend) -> None:
        self._backend = backend

    async def create(self, request: Request) -> Answer:
        """Describe a process to be run in a container."""
        config = await request.model(ExecConfig)
        return json_reply(await self._backend.create(request.params["id"], config), 201)

    async def start(self, request: Request) -> Answer:
        """Run it, detached or connected with the client."""
        options = await request.model(ExecStart) if request.body.received or not request.body.complete else ExecStart()
        await self._backend.start(request.params["id"], options, request.upgrade)
        return HIJACKED if request.hijacked else OK

    async def resize(self, request: Request) -> Answer:
        """Set the size of its terminal."""
        height, width = request.query.size("h", "height"), request.query.size("w", "width")
        await self._backend.resize(request.params["id"], height=height, width=width)
        return OK

    async def inspect(self, request: Request) -> Answer:
        """Say how it is and how it ended."""
        return json_reply(await self._backend.inspect(request.params["id"]))


def routes(backends: Backends) -> Iterator[Route]:
    """Yield the routes of this area."""
    area = Execs(backends.execs)
    yield Route("POST", "/containers/{id}/exec", area.create)
    yield Route("POST", "/exec/{id}/start", area.start)
    yield Route("POST", "/exec/{id}/resize", area.resize)
    yield Route("GET", "/exec/{id}/json", area.inspect)
