"""The API server: listening sockets, their connections, and the request boundary.

A listening socket makes a `Connection` (bytes, HTTP/1.1), which asks `Server.resolve` for the route; its endpoint
calls the services.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Iterable

from wherry.api import errors
from wherry.api.answers import Answer, Hijacked, Reply
from wherry.api.backends import Backends
from wherry.api.body import Body, ClientGone
from wherry.api.connection import Connection, Hijack
from wherry.api.head import Head
from wherry.api.listen import BACKLOG, Listening
from wherry.api.request import Request
from wherry.api.router import Endpoint, Match, Moved, Route, Router, split_target
from wherry.api.routes import (
    archives,
    backups,
    check,
    containers,
    execs,
    images,
    mounts,
    networks,
    ports,
    registries,
    system,
    unsupported,
    volumes,
    xray,
)
from wherry.api.wire.query import Query
from wherry.errors import EngineError

log = logging.getLogger(__name__)

SWEEP_EVERY = 5.0
GRACE = 5.0
"""Seconds for requests that are being served when the server stops."""


def all_routes(backends: Backends) -> Iterable[Route]:
    """Yield the routes of every area; what is not there yet comes last."""
    first = (system, containers, archives, execs, images, registries, networks, ports, mounts, volumes, backups, check)
    for area in (*first, xray, unsupported):
        yield from area.routes(backends)


class Server:
    """Serves the API on any number of sockets, in one event loop."""

    def __init__(self, backends: Backends) -> None:
        self._router = Router(all_routes(backends))
        self._live: set[Connection] = set()
        self._servers: list[tuple[asyncio.AbstractServer, Listening]] = []
        self._sweeper: asyncio.TimerHandle | None = None

    async def start(self, listening: Listening) -> None:
        """Accept connections on a listening socket, which belongs to the server from now on."""
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(
            lambda: Connection(self, self._live), sock=listening.socket, backlog=BACKLOG
        )
        self._servers.append((server, listening))
        if self._sweeper is None:
            self._sweep()

    def _sweep(self) -> None:
        now = time.monotonic()
        for connection in tuple(self._live):
            connection.check_time(now)
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_EVERY, self._sweep)

    async def close(self) -> None:
        """Stop accepting, end what only follows, give the rest GRACE seconds. Hijacked connections live on."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for server, listening in self._servers:
            listening.unlink()
            server.close()
        self._servers.clear()
        for connection in tuple(self._live):
            connection.shut_down()
        working = [each.task for each in self._live if each.task is not None]
        if working:
            _, late = await asyncio.wait(working, timeout=GRACE)
            for task in late:
                task.cancel("server stops")
            if late:
                await asyncio.wait(late, timeout=GRACE)
        await asyncio.sleep(0)  # transports close in the loop's next turn

    def resolve(self, head: Head, body: Body, hijack: Hijack) -> tuple[Awaitable[Answer] | Reply, bool]:
        """Return the answer, or what will give it and whether that ends when the client goes away."""
        try:
            path, text = split_target(head.target)
            found = self._router.match(head.method, path)
            if log.isEnabledFor(logging.DEBUG):
                log.debug("request", extra={"operation": f"{head.method} {found.route.pattern}", "target": head.target})
            if found.route.instant is not None:
                return found.route.instant, False
            request = _request(head, found, Query(text), body, hijack)
        except Moved as moved:
            return Reply(301, headers={"Location": moved.to}), False
        except EngineError as error:
            return errors.answer(error, head.target), False
        assert found.route.endpoint is not None
        return _serve(found.route.endpoint, request), found.route.follows


def _request(head: Head, found: Match, query: Query, body: Body, hijack: Hijack) -> Request:
    return Request(
        method=head.method,
        path=found.path,
        query=query,
        headers=head.headers,
        body=body,
        hijack=hijack,
        version=found.version,
        params=found.params,
    )


async def _serve(endpoint: Endpoint, request: Request) -> Answer:
    """Call an endpoint: the request boundary, where every failure becomes an answer."""
    try:
        return await endpoint(request)
    except ClientGone:
        raise
    except Exception as error:
        reply = errors.answer(error, str(request))
        if request.hijacked:
            # there is no answer any more; what the user should see the service has written into the stream
            log.warning("failed after the upgrade", extra={"request": str(request), "error": str(error)})
            return Hijacked()
        return reply
