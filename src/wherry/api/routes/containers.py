"""The containers area."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import structs

from wherry.api import mounts, streams, websocket
from wherry.api.answers import NO_CONTENT, OK, Answer, Hijacked, Stream, json_reply
from wherry.api.backends import Backends, ContainersBackend
from wherry.api.head import MULTIPLEXED, RAW_STREAM
from wherry.api.request import Request
from wherry.api.router import Route
from wherry.api.versions import adapt
from wherry.api.wire.decode import convert
from wherry.api.wire.query import Query
from wherry.errors import InvalidArgument
from wherry.models.container import ContainerConfig, CreateContainer, HostConfig
from wherry.models.queries import AttachQuery, ListQuery, LogsQuery

HIJACKED = Hijacked()


def parse_create(body: Any) -> CreateContainer:
    """Return the three parts of a create body, which lie one within the other; raises InvalidArgument."""
    if body is None:
        raise InvalidArgument("config cannot be empty in order to create a container")
    config = convert(body, ContainerConfig)
    rest: dict[str, Any] = {}
    for key, value in body.items():
        if key.lower() in ("hostconfig", "networkingconfig"):
            rest[key.lower()] = value
    nested = convert({"HostConfig": rest.get("hostconfig"), "NetworkingConfig": rest.get("networkingconfig")}, Nested)
    return CreateContainer(
        config=config,
        host_config=nested.host_config,
        networking_config=nested.networking_config,
    )


class Nested(CreateContainer, frozen=True):
    """The parts that lie within the config, read together so that a complaint names the part."""

    config: ContainerConfig = ContainerConfig()


def parse_tail(text: str) -> int:
    """Return the number of lines, -1 for all; what is no number means all, as in dockerd."""
    digits = text.removeprefix("+")
    return int(digits) if digits.isdecimal() and len(digits) < 19 else -1


def logs_query(query: Query) -> LogsQuery:
    """Return what is asked of a log; raises InvalidArgument."""
    wanted = LogsQuery(
        follow=query.flag("follow"),
        stdout=query.flag("stdout"),
        stderr=query.flag("stderr"),
        since=query.moment("since"),
        until=query.moment("until"),
        timestamps=query.flag("timestamps"),
        tail=parse_tail(query.text("tail")),
        details=query.flag("details"),
    )
    if not (wanted.stdout or wanted.stderr):
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    return wanted


class Containers:
    """Endpoints over the containers backend."""

    def __init__(self, backend: ContainersBackend) -> None:
        self._backend = backend

    async def create(self, request: Request) -> Answer:
        """Make a container."""
        body = await request.json()
        if body is None and not request.body.received:
            raise InvalidArgument("invalid JSON: got EOF while reading request body")
        wanted = parse_create(body)
        host = mounts.adapted(wanted.host_config, request.version)
        name, platform = request.query.text("name"), request.query.text("platform")
        made = await self._backend.create(structs.replace(wanted, host_config=host), name=name, platform=platform)
        warnings = [*made["Warnings"], *mounts.warnings(host, request.version)]
        return json_reply(made | {"Warnings": warnings}, 201)

    async def listing(self, request: Request) -> Answer:
        """List containers."""
        query = request.query
        wanted = ListQuery(
            all=query.flag("all"),
            limit=query.number("limit") or 0,
            size=query.flag("size"),
            filters=query.filters(),
        )
        return json_reply(adapt("container list", request.version, await self._backend.listing(wanted)))

    async def inspect(self, request: Request) -> Answer:
        """Say everything about a container."""
        found = await self._backend.inspect(request.params["id"], size=request.query.flag("size"))
        return json_reply(adapt("container inspect", request.version, found))

    async def start(self, request: Request) -> Answer:
        """Start a container."""
        if (await request.json()) not in (None, {}):
            raise InvalidArgument(
                "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"
            )
        await self._backend.start(request.params["id"])
        return NO_CONTENT

    async def stop(self, request: Request) -> Answer:
        """Stop a container."""
        query = request.query
        await self._backend.stop(request.params["id"], signal=query.text("signal"), timeout=query.number("t"))
        return NO_CONTENT

    async def restart(self, request: Request) -> Answer:
        """Stop and start a container."""
        query = request.query
        await self._backend.restart(request.params["id"], signal=query.text("signal"), timeout=query.number("t"))
        return NO_CONTENT

    async def kill(self, request: Request) -> Answer:
        """Send a signal to a container."""
        await self._backend.kill(request.params["id"], signal=request.query.text("signal"))
        return NO_CONTENT

    async def pause(self, request: Request) -> Answer:
        """Freeze a container."""
        await self._backend.pause(request.params["id"])
        return NO_CONTENT

    async def unpause(self, request: Request) -> Answer:
        """Let a frozen container go on."""
        await self._backend.unpause(request.params["id"])
        return NO_CONTENT

    async def remove(self, request: Request) -> Answer:
        """Remove a container."""
        query = request.query
        await self._backend.remove(
            request.params["id"], force=query.flag("force"), volumes=query.flag("v"), link=query.flag("link")
        )
        return NO_CONTENT

    async def changes(self, request: Request) -> Answer:
        """List what a container changed in its file system; null when that is nothing."""
        return json_reply(await self._backend.changes(request.params["id"]) or None)

    async def stats(self, request: Request) -> Answer:
        """Tell what a container uses: once, or every second until the client goes."""
        query, container = request.query, request.params["id"]
        streamed, one_shot = query.flag("stream", default=True), query.flag("one-shot")
        if streamed and one_shot:
            raise InvalidArgument("cannot have stream=true and one-shot=true")
        if streamed:
            return await streams.events(self._backend.usage_stream(container))
        return json_reply(await self._backend.usage(container, one_shot=one_shot))

    async def update(self, request: Request) -> Answer:
        """Change limits and the restart policy."""
        asked = await request.model(HostConfig)
        return json_reply(await self._backend.update(request.params["id"], asked))

    async def rename(self, request: Request) -> Answer:
        """Give a container another name."""
        name = request.query.text("name")
        if not name:
            raise InvalidArgument("Neither old nor new names may be empty")
        await self._backend.rename(request.params["id"], name)
        return NO_CONTENT

    async def resize(self, request: Request) -> Answer:
        """Set the size of a container's terminal."""
        height, width = request.query.size("h", "height"), request.query.size("w", "width")
        await self._backend.resize(request.params["id"], height=height, width=width)
        return OK

    async def top(self, request: Request) -> Answer:
        """List a container's processes."""
        return json_reply(await self._backend.top(request.params["id"], request.query.text("ps_args", "-ef")))

    async def wait(self, request: Request) -> Answer:
        """Tell the exit code when there is one; the head of the answer says that the wait is registered."""
        result = await self._backend.wait(request.params["id"], request.query.text("condition"))
        return Stream(streams.late(result))

    async def attach(self, request: Request) -> Answer:
        """Connect the client with a container's streams."""
        query = request.query
        wanted = AttachQuery(
            stdin=query.flag("stdin"),
            stdout=query.flag("stdout"),
            stderr=query.flag("stderr"),
            stream=query.flag("stream"),
            logs=query.flag("logs"),
            detach_keys=query.text("detachKeys"),
        )
        await request.body.read(0)
        await self._backend.attach(request.params["id"], wanted, request.upgrade)
        return HIJACKED

    async def attach_socket(self, request: Request) -> Answer:
        """Connect the client with a container's streams over a WebSocket; before API 1.42 with all of them."""
        query = request.query
        every = request.version < (1, 42)
        wanted = AttachQuery(
            stdin=every or query.flag("stdin"),
            stdout=every or query.flag("stdout"),
            stderr=every or query.flag("stderr"),
            stream=query.flag("stream"),
            logs=query.flag("logs"),
            detach_keys=query.text("detachKeys"),
        )
        await self._backend.attach(request.params["id"], wanted, websocket.upgrade(request))
        return HIJACKED

    async def logs(self, request: Request) -> Answer:
        """Send a container's log."""
        answer = await self._backend.logs(request.params["id"], logs_query(request.query))
        multiplexed = not answer.tty and request.version >= (1, 42)
        return Stream(answer.chunks, {"Content-Type": MULTIPLEXED if multiplexed else RAW_STREAM})

    async def prune(self, request: Request) -> Answer:
        """Remove all containers that do not run."""
        return json_reply(await self._backend.prune(request.query.filters()))


def routes(backends: Backends) -> Iterator[Route]:
    """Yield the routes of this area."""
    area = Containers(backends.containers)
    yield Route("GET", "/containers/json", area.listing)
    yield Route("POST", "/containers/create", area.create)
    yield Route("POST", "/containers/prune", area.prune)
    yield Route("GET", "/containers/{id}/json", area.inspect)
    yield Route("POST", "/containers/{id}/start", area.start)
    yield Route("POST", "/containers/{id}/wait", area.wait, follows=True)
    yield Route("POST", "/containers/{id}/attach", area.attach)
    yield Route("GET", "/containers/{id}/attach/ws", area.attach_socket)
    yield Route("GET", "/containers/{id}/logs", area.logs, follows=True)
    yield Route("POST", "/containers/{id}/stop", area.stop)
    yield Route("POST", "/containers/{id}/restart", area.restart)
    yield Route("POST", "/containers/{id}/kill", area.kill)
    yield Route("POST", "/containers/{id}/pause", area.pause)
    yield Route("POST", "/containers/{id}/unpause", area.unpause)
    yield Route("POST", "/containers/{id}/rename", area.rename)
    yield Route("POST", "/containers/{id}/update", area.update)
    yield Route("GET", "/containers/{id}/stats", area.stats)
    yield Route("GET", "/containers/{id}/changes", area.changes)
    yield Route("POST", "/containers/{id}/resize", area.resize)
    yield Route("GET", "/containers/{id}/top", area.top)
    yield Route("DELETE", "/containers/{id}", area.remove)
