"""The volumes area."""

from __future__ import annotations

from collections.abc import Iterator

from wherry.api.answers import NO_CONTENT, Answer, json_reply
from wherry.api.backends import Backends, VolumesBackend
from wherry.api.request import Request
from wherry.api.router import Route
from wherry.api.routes.unsupported import NO_SWARM
from wherry.api.routes.xray import PREFIX
from wherry.api.wire.decode import convert
from wherry.errors import InvalidArgument, Unavailable
from wherry.models.volume import CreateVolume

ANONYMOUS_ONLY = (1, 42)
"""From this version on prune takes volumes that nobody named only, unless all=true."""


CLUSTER = (1, 42)
"""From this version on there are volumes of clusters; before it what is said of one is an unknown field."""


class Volumes:
    """Endpoints over the volumes backend."""

    def __init__(self, backend: VolumesBackend) -> None:
        self._backend = backend

    async def create(self, request: Request) -> Answer:
        """Make a volume, or find the one of that name; without a body one that has no name."""
        asked = convert(await request.json(), CreateVolume)
        if asked.cluster_volume_spec is not None and request.version >= CLUSTER:
            raise Unavailable(NO_SWARM)
        return json_reply(await self._backend.create(asked), 201)

    async def listing(self, request: Request) -> Answer:
        """List volumes."""
        try:
            filters = request.query.filters()
        except InvalidArgument as error:
            raise InvalidArgument(f"error reading volume filters: {error.message}") from error
        return json_reply(await self._backend.listing(filters))

    async def inspect(self, request: Request) -> Answer:
        """Say everything about a volume."""
        return json_reply(await self._backend.inspect(request.params["name"]))

    async def update(self, request: Request) -> Answer:
        """Refuse: only cluster volumes can be changed."""
        raise Unavailable("volume update only valid for cluster volumes, but swarm is unavailable")

    async def remove(self, request: Request) -> Answer:
        """Remove a volume."""
        await self._backend.remove(request.params["name"], force=request.query.flag("force"))
        return NO_CONTENT

    async def rename(self, request: Request) -> Answer:
        """Give a volume another name; ours and not Docker's."""
        return json_reply(await self._backend.rename(request.params["name"], request.query.text("name")))

    async def prune(self, request: Request) -> Answer:
        """Remove the volumes that no container has."""
        filters = request.query.filters()
        if request.version < ANONYMOUS_ONLY:
            filters = {**filters, "all": ["true"]}
        return json_reply(await self._backend.prune(filters))


def routes(backends: Backends) -> Iterator[Route]:
    """Yield the routes of this area."""
    area = Volumes(backends.volumes)
    yield Route("GET", "/volumes", area.listing)
    yield Route("POST", "/volumes/create", area.create)
    yield Route("POST", "/volumes/prune", area.prune)
    yield Route("GET", "/volumes/{name}", area.inspect)
    yield Route("PUT", "/volumes/{name}", area.update)
    yield Route("POST", f"{PREFIX}/volumes/{{name}}/rename", area.rename)
    yield Route("DELETE", "/volumes/{name}", area.remove)
