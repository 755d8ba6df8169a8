"""The files part of the containers area: docker cp, docker export and docker commit."""

from __future__ import annotations

import base64
from collections.abc import Iterator

from wherry.api.answers import OK, Answer, Reply, Stream, json_reply
from wherry.api.backends import Backends, ContainersBackend
from wherry.api.request import Request
from wherry.api.router import Route
from wherry.api.wire.decode import convert
from wherry.api.wire.encode import encode
from wherry.errors import InvalidArgument
from wherry.models.container import ContainerConfig
from wherry.models.queries import CommitQuery, ExtractQuery, PathStat
from wherry.models.times import rfc3339

TAR = "application/x-tar"


def stat_header(found: PathStat) -> dict[str, str]:
    """Return the header in which a client learns what a path names: JSON in base 64."""
    body = {
        "name": found.name,
        "size": found.size,
        "mode": found.mode,
        "mtime": rfc3339(found.mtime),
        "linkTarget": found.link_target,
    }
    return {"X-Docker-Container-Path-Stat": base64.b64encode(encode(body)).decode()}


def _path(request: Request) -> str:
    path = request.query.text("path")
    if not path:
        raise InvalidArgument("bad parameter: path cannot be empty")
    if "\0" in path:
        raise InvalidArgument("bad parameter: path has a NUL character")
    return path


class Archives:
    """Endpoints over the containers backend."""

    def __init__(self, backend: ContainersBackend) -> None:
        self._backend = backend

    async def look(self, request: Request) -> Answer:
        """Say what a path names, in a header."""
        found = await self._backend.path_stat(request.params["id"], _path(request))
        return Reply(headers=stat_header(found))

    async def take(self, request: Request) -> Answer:
        """Send a tar of what a path names."""
        answer = await self._backend.archive(request.params["id"], _path(request))
        return Stream(answer.chunks, {"Content-Type": TAR, **stat_header(answer.stat)})

    async def put(self, request: Request) -> Answer:
        """Unpack the tar in the body."""
        query = request.query
        wanted = ExtractQuery(
            _path(request), keep_kind=query.flag("noOverwriteDirNonDir"), copy_owner=query.flag("copyUIDGID")
        )
        await self._backend.extract(request.params["id"], wanted, request.body.reader())
        return OK

    async def commit(self, request: Request) -> Answer:
        """Make an image of a container."""
        body, query = await request.json(), request.query
        container = query.text("container")
        if not container:
            raise InvalidArgument('invalid name or ID supplied: ""')
        wanted = CommitQuery(
            repo=query.text("repo"),
            tag=query.text("tag"),
            comment=query.text("comment"),
            author=query.text("author"),
            changes=query.all("changes"),
            pause=query.flag("pause", default=True),
        )
        config = convert(body, ContainerConfig) if body else None
        return json_reply(await self._backend.commit(container, wanted, config), 201)

    async def export(self, request: Request) -> Answer:
        """Send a tar of the root file system."""
        return Stream(
            await self._backend.export(request.params["id"]), {"Content-Type": "application/octet-stream"}
        )


def routes(backends: Backends) -> Iterator[Route]:
    """Yield the routes of this part."""
    part = Archives(backends.containers)
    yield Route("HEAD", "/containers/{id}/archive", part.look)
    yield Route("GET", "/containers/{id}/archive", part.take)
    yield Route("PUT", "/containers/{id}/archive", part.put)
    yield Route("GET", "/containers/{id}/export", part.export)
    yield Route("POST", "/commit", part.commit)
