"""What is ours and not Docker's: below /wherry/v1, which no version of Docker's API can come to use."""

from __future__ import annotations

from collections.abc import Iterator

from wherry.api.answers import Answer, json_reply
from wherry.api.backends import Backends, XrayBackend
from wherry.api.request import Request
from wherry.api.router import Route

PREFIX = "/wherry/v1"


class Xray:
    """Endpoints over the xray backend."""

    def __init__(self, backend: XrayBackend) -> None:
        self._backend = backend

    async def look(self, request: Request) -> Answer:
        """Tell what of a container is in the kernel."""
        return json_reply(await self._backend.look(request.params["id"]))

    async def network(self, request: Request) -> Answer:
        """Tell what of a network is in the kernel."""
        return json_reply(await self._backend.network(request.params["id"]))


def routes(backends: Backends) -> Iterator[Route]:
    """Yield the routes of this area."""
    own = Xray(backends.xray)
    yield Route("GET", f"{PREFIX}/containers/{{id}}/xray", own.look)
    yield Route("GET", f"{PREFIX}/networks/{{id}}/xray", own.network)
