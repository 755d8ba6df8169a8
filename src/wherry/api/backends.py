"""What each router needs of the services: the seam between HTTP and the use cases.

Answers are JSON-ready values in Docker's wire names (dicts, lists, Models), shaped for the newest API version;
`versions.py` turns them into what an older one expects. Every method may raise an EngineError.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol

from wherry.models.container import CreateContainer, ExecConfig, ExecStart

Json = Any
Filters = Mapping[str, list[str]]


@dataclass(slots=True)
class ClientStream:
    """A hijacked connection. The holder of `fd` closes it.

    fd: a connected stream socket that carries the client's raw bytes both ways. early: bytes of the client that
    had been read together with the request.
    """

    fd: int
    early: bytes = b""


Upgrade = Callable[[bool], Awaitable[ClientStream]]
"""Called once by a service with "has a terminal": sends the 101 (or 200) head and gives the connection away."""


@dataclass(frozen=True, slots=True)
class AttachQuery:
    """The query of POST /containers/ID/attach."""

    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    stream: bool = False
    logs: bool = False
    detach_keys: str = ""


@dataclass(frozen=True, slots=True)
class LogsQuery:
    """The query of GET /containers/ID/logs. since, until: Unix time in ns, 0 = unset. tail: -1 = all."""

    follow: bool = False
    stdout: bool = False
    stderr: bool = False
    since: int = 0
    until: int = 0
    timestamps: bool = False
    tail: int = -1
    details: bool = False


@dataclass(frozen=True, slots=True)
class ListQuery:
    """The query of GET /containers/json."""

    all: bool = False
    limit: int = 0
    size: bool = False
    filters: Filters = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LogsAnswer:
    """tty decides the content type (raw or multiplexed); chunks are already framed for it."""

    tty: bool
    chunks: AsyncIterator[bytes]


class SystemBackend(Protocol):
    """/_ping needs nothing; the rest of /info, /version, /events, /system/df."""

    async def info(self) -> Json: ...
    async def version(self) -> Json: ...
    async def disk_usage(self) -> Json: ...
    def events(self, *, since: int, until: int, filters: Filters) -> AsyncIterator[Json]: ...


class ContainersBackend(Protocol):
    """The container endpoints. `ref` is a name, an id or a unique prefix of one."""

    async def create(self, request: CreateContainer, *, name: str, platform: str) -> Json: ...
    async def listing(self, query: ListQuery) -> list[Json]: ...
    async def inspect(self, ref: str, *, size: bool = False) -> Json: ...
    async def start(self, ref: str) -> None: ...
    async def stop(self, ref: str, *, signal: str, timeout: int | None) -> None: ...
    async def restart(self, ref: str, *, signal: str, timeout: int | None) -> None: ...
    async def kill(self, ref: str, *, signal: str) -> None: ...
    async def pause(self, ref: str) -> None: ...
    async def unpause(self, ref: str) -> None: ...
    async def remove(self, ref: str, *, force: bool, volumes: bool, link: bool) -> None: ...
    async def rename(self, ref: str, name: str) -> None: ...
    async def resize(self, ref: str, *, height: int, width: int) -> None: ...
    async def top(self, ref: str, ps_args: str) -> Json: ...
    async def wait(self, ref: str, condition: str) -> Awaitable[Json]:
        """Return at once, registered; the result, awaited, is the body {"StatusCode": n}."""
        ...

    async def attach(self, ref: str, query: AttachQuery, upgrade: Upgrade) -> None:
        """Register, call upgrade, connect the stream. Errors before upgrade are ordinary answers."""
        ...

    async def logs(self, ref: str, query: LogsQuery) -> LogsAnswer: ...
    async def prune(self, filters: Filters) -> Json: ...


class ExecBackend(Protocol):
    """The exec endpoints."""

    async def create(self, ref: str, config: ExecConfig) -> Json: ...
    async def start(self, exec_id: str, options: ExecStart, upgrade: Upgrade) -> None:
        """Detached: returns when the process runs. Otherwise calls upgrade first, then starts it."""
        ...

    async def resize(self, exec_id: str, *, height: int, width: int) -> None: ...
    async def inspect(self, exec_id: str) -> Json: ...


class ImagesBackend(Protocol):
    """The image endpoints. `ref` is a name with tag or digest, an id or a prefix of one."""

    async def listing(self, *, all: bool, filters: Filters) -> list[Json]: ...
    async def inspect(self, ref: str) -> Json: ...
    async def history(self, ref: str) -> list[Json]: ...
    async def tag(self, ref: str, *, repo: str, tag: str) -> None: ...
    async def remove(self, ref: str, *, force: bool, noprune: bool) -> list[Json]: ...
    def load(self, body: BinaryIO, *, quiet: bool) -> AsyncIterator[Json]:
        """Yield progress records ({"stream": ...}, {"status": ...}); body is read in a worker thread."""
        ...

    def import_(
        self, body: BinaryIO, *, repo: str, tag: str, message: str, changes: list[str], platform: str
    ) -> AsyncIterator[Json]: ...
    def pull(self, *, image: str, tag: str, platform: str, auth: str) -> AsyncIterator[Json]: ...
    async def prune(self, filters: Filters) -> Json: ...


class NetworksBackend(Protocol):
    """The network endpoints that exist so far."""

    async def listing(self, filters: Filters) -> list[Json]: ...
    async def inspect(self, ref: str) -> Json: ...


@dataclass(frozen=True, slots=True)
class Backends:
    """All routers' needs, filled in by the composition root."""

    system: SystemBackend
    containers: ContainersBackend
    execs: ExecBackend
    images: ImagesBackend
    networks: NetworksBackend
