"""Backups of volumes: ours and not Docker's, below /wherry/v1."""

from __future__ import annotations

from collections.abc import Iterator

from wherry.api.answers import Answer, Stream, json_reply
from wherry.api.backends import Backends, BackupsBackend
from wherry.api.request import Request
from wherry.api.router import Route
from wherry.api.routes.archives import TAR
from wherry.api.routes.xray import PREFIX


class Backups:
    """Endpoints over the backups backend."""

    def __init__(self, backend: BackupsBackend) -> None:
        self._backend = backend

    async def save(self, request: Request) -> Answer:
        """Send the archive of a volume; the body is the manifest of the backup that it adds to, or empty."""
        freeze = request.query.flag("freeze")
        return Stream(
            await self._backend.save(request.params["name"], request.body.reader(), freeze=freeze),
            {"Content-Type": TAR},
        )

    async def restore(self, request: Request) -> Answer:
        """Restore the archive in the body."""
        return json_reply(await self._backend.restore(request.params["name"], request.body.reader()), 201)

    async def snapshot(self, request: Request) -> Answer:
        """Copy a volume to a new one."""
        new = request.query.text("name")
        return json_reply(await self._backend.snapshot(request.params["name"], new), 201)


def routes(backends: Backends) -> Iterator[Route]:
    """Yield the routes of this area."""
    area = Backups(backends.backups)
    path = f"{PREFIX}/volumes/{{name}}"
    yield Route("POST", f"{path}/export", area.save)
    yield Route("POST", f"{path}/import", area.restore)
    yield Route("POST", f"{path}/snapshot", area.snapshot)
