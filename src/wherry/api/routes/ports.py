"""Published ports of a container that exists: ours and not Docker's, below /wherry/v1."""

from __future__ import annotations

from collections.abc import Iterator

from wherry.api.answers import Answer, json_reply
from wherry.api.backends import Backends, PortsBackend
from wherry.api.request import Request
from wherry.api.router import Route
from wherry.api.routes.xray import PREFIX
from wherry.api.wire.decode import convert
from wherry.models.container import HostConfig, PortBinding

Bindings = dict[str, "list[PortBinding] | None"]


async def _bindings(request: Request) -> Bindings:
    """Return the body {"PortBindings": {...}}, as in HostConfig; raises InvalidArgument."""
    return convert(await request.json() or {}, HostConfig).port_bindings or {}


class Ports:
    """Endpoints over the ports backend."""

    def __init__(self, backend: PortsBackend) -> None:
        self._backend = backend

    async def listing(self, request: Request) -> Answer:
        """Tell which ports are published."""
        return json_reply(await self._backend.listing(request.params["id"]))

    async def add(self, request: Request) -> Answer:
        """Publish more."""
        return json_reply(await self._backend.add(request.params["id"], await _bindings(request)))

    async def remove(self, request: Request) -> Answer:
        """Publish some no more."""
        return json_reply(await self._backend.remove(request.params["id"], await _bindings(request)))


def routes(backends: Backends) -> Iterator[Route]:
    """Yield the routes of this area."""
    ports = Ports(backends.ports)
    path = f"{PREFIX}/containers/{{id}}/ports"
    yield Route("GET", path, ports.listing)
    yield Route("POST", f"{path}/add", ports.add)
    yield Route("POST", f"{path}/remove", ports.remove)
