"""Operations of the Engine API that are not there yet: answered so that clients and people know where they stand.

An empty list where clients only look (docker plugin ls); 503 in dockerd's words for Swarm, which this
engine takes no part in; 501 with the operation's name for the rest. What is in no table is 404 "page not found".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from wherry.api.answers import Answer, json_reply
from wherry.api.backends import Backends
from wherry.api.request import Request
from wherry.api.router import Endpoint, Route
from wherry.errors import NotFound, NotImplementedHere, Unavailable

NO_SWARM = (
    "This node is not a swarm manager. "
    'Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.'
)
EMPTY: dict[str, Any] = {"/plugins": []}
SWARM = ("swarm", "nodes", "services", "tasks", "secrets", "configs")
PLUGIN = (
    ("GET", "/json"), ("POST", "/enable"), ("POST", "/disable"), ("POST", "/upgrade"), ("POST", "/push"),
    ("POST", "/set"), ("DELETE", ""),
)  # fmt: skip
MISSING = (
    "GET /images/{name...}/attestations|attestations of images",
    "GET /plugins/privileges|managed plugins",
    "POST /plugins/pull|managed plugins",
    "POST /plugins/create|managed plugins",
    "POST /build|building images",
    "POST /build/cancel|building images",
    "POST /session|building images with BuildKit",
    "POST /grpc|building images with BuildKit",
)


def _missing(what: str) -> Endpoint:
    async def endpoint(request: Request) -> Answer:
        raise NotImplementedHere(f"{what}: not there yet in this engine ({request.method} {request.path})")

    return endpoint


async def no_swarm(request: Request) -> Answer:
    """Say that there is no swarm."""
    raise Unavailable(NO_SWARM)


async def no_plugin(request: Request) -> Answer:
    """Say that there is no such plugin: none can be installed."""
    raise NotFound(f"plugin {request.params['name']!r} not found".replace("'", '"'))


def routes(backends: Backends) -> Iterator[Route]:
    """Yield the routes of this area; it needs no backend."""
    for path, answer in EMPTY.items():
        yield Route("GET", path, instant=json_reply(answer))
    for area in SWARM:
        for method in ("GET", "POST", "DELETE"):
            yield Route(method, f"/{area}", no_swarm)
            yield Route(method, f"/{area}/{{rest...}}", no_swarm)
    for line in MISSING:
        operation, _, what = line.partition("|")
        method, _, pattern = operation.partition(" ")
        yield Route(method, pattern, _missing(what))
    for method, end in PLUGIN:
        yield Route(method, f"/plugins/{{name...}}{end}", no_plugin)
