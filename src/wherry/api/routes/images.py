"""The images area. Names hold slashes, so {name...}."""

from __future__ import annotations

from collections.abc import Iterator

from wherry.api import streams
from wherry.api.answers import CREATED, OK, Answer, Stream, json_reply
from wherry.api.backends import Backends, ImagesBackend, RegistriesBackend
from wherry.api.request import Request
from wherry.api.router import Route
from wherry.api.versions import adapt
from wherry.errors import InvalidArgument, NotImplementedHere


def _one(name: str, values: list[str]) -> str:
    """Return the one platform that a query gives: an image here has no more. Raises InvalidArgument."""
    if len(values) > 1:
        raise InvalidArgument(f"{name}: multiple platforms are not supported: an image here is for one")
    return values[0] if values else ""


class Images:
    """Endpoints over the images backend."""

    def __init__(self, backend: ImagesBackend, registries: RegistriesBackend) -> None:
        self._backend = backend
        self._registries = registries

    async def listing(self, request: Request) -> Answer:
        """List images."""
        query = request.query
        found = await self._backend.listing(
            all=query.flag("all"), filters=query.filters(), shared=query.flag("shared-size")
        )
        return json_reply(adapt("image list", request.version, found))

    async def inspect(self, request: Request) -> Answer:
        """Say everything about an image."""
        found = await self._backend.inspect(request.params["name"], platform=request.query.text("platform"))
        return json_reply(adapt("image inspect", request.version, found))

    async def history(self, request: Request) -> Answer:
        """Say how an image came to be."""
        platform = request.query.text("platform")
        return json_reply(await self._backend.history(request.params["name"], platform=platform))

    async def tag(self, request: Request) -> Answer:
        """Give an image one more name."""
        query = request.query
        await self._backend.tag(request.params["name"], repo=query.text("repo"), tag=query.text("tag"))
        return CREATED if query.text("repo") else OK

    async def remove(self, request: Request) -> Answer:
        """Take a name off an image, and remove it with its last name."""
        query = request.query
        steps = await self._backend.remove(
            request.params["name"],
            force=query.flag("force"),
            noprune=query.flag("noprune"),
            platform=_one("platforms", query.all("platforms")),
        )
        return json_reply(steps)

    async def load(self, request: Request) -> Answer:
        """Take images in from an archive in the body."""
        quiet = request.query.flag("quiet", default=True)
        platform = _one("platform", request.query.all("platform"))
        records = self._backend.load(request.body.reader(), quiet=quiet, platform=platform)
        return await streams.progress(records, str(request))

    async def save(self, request: Request) -> Answer:
        """Send images as an archive that can be loaded."""
        query = request.query
        refs = [request.params["name"]] if "name" in request.params else query.all("names")
        chunks = await self._backend.save(refs, platform=_one("platform", query.all("platform")))
        return Stream(chunks, {"Content-Type": "application/x-tar"})

    async def create(self, request: Request) -> Answer:
        """Pull an image (fromImage), or make one of a file system in the body (fromSrc=-)."""
        query = request.query
        platform = query.text("platform")
        if query.text("fromImage"):
            records = self._registries.pull(
                image=query.text("fromImage"),
                tag=query.text("tag"),
                platform=platform,
                auth=request.headers.get("x-registry-auth", ""),
            )
            return await streams.progress(records, str(request))
        source = query.text("fromSrc")
        if not source:
            raise InvalidArgument("one of fromImage and fromSrc must be given")
        if source != "-":
            raise NotImplementedHere(
                f"importing from {source} is not possible yet: fetch it and use docker import -, or a file"
            )
        records = self._backend.import_(
            request.body.reader(),
            repo=query.text("repo"),
            tag=query.text("tag"),
            message=query.text("message"),
            changes=query.all("changes"),
            platform=platform,
        )
        return await streams.progress(records, str(request))

    async def prune(self, request: Request) -> Answer:
        """Remove images that nothing uses."""
        return json_reply(await self._backend.prune(request.query.filters()))


def routes(backends: Backends) -> Iterator[Route]:
    """Yield the routes of this area."""
    area = Images(backends.images, backends.registries)
    yield Route("GET", "/images/json", area.listing)
    yield Route("POST", "/images/create", area.create)
    yield Route("POST", "/images/load", area.load)
    yield Route("GET", "/images/get", area.save)
    yield Route("GET", "/images/{name...}/get", area.save)
    yield Route("POST", "/images/prune", area.prune)
    yield Route("GET", "/images/{name...}/json", area.inspect)
    yield Route("GET", "/images/{name...}/history", area.history)
    yield Route("POST", "/images/{name...}/tag", area.tag)
    yield Route("DELETE", "/images/{name...}", area.remove)
