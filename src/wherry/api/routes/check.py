"""Whether all that the engine keeps is accounted for: ours and not Docker's, below /wherry/v1."""

from __future__ import annotations

from collections.abc import Iterator

from wherry.api.answers import Answer, json_reply
from wherry.api.backends import Backends, CheckBackend
from wherry.api.request import Request
from wherry.api.router import Route
from wherry.api.routes.xray import PREFIX


class Check:
    """Endpoints over the check backend."""

    def __init__(self, backend: CheckBackend) -> None:
        self._backend = backend

    async def look(self, request: Request) -> Answer:
        """Tell what is wrong."""
        return json_reply(await self._backend.check(deep=request.query.flag("deep"), repair=False))

    async def repair(self, request: Request) -> Answer:
        """Mend what can be mended, and tell of all."""
        return json_reply(await self._backend.check(deep=request.query.flag("deep"), repair=True))


def routes(backends: Backends) -> Iterator[Route]:
    """Yield the routes of this area."""
    check = Check(backends.check)
    yield Route("GET", f"{PREFIX}/system/check", check.look)
    yield Route("POST", f"{PREFIX}/system/check", check.repair)
