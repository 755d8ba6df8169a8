"""What clients ask for, between the API and the services: parsed queries and hijacked connections."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

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


class Chunked(Protocol):
    """Bytes that come piece by piece. `aclose` ends it and has to be called, also when nothing was read."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...
    async def __anext__(self) -> bytes: ...
    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class LogsAnswer:
    """tty decides the content type (raw or multiplexed); chunks are already framed for it."""

    tty: bool
    chunks: Chunked


@dataclass(frozen=True, slots=True)
class PathStat:
    """What a path in a container names. mode: as Go's os.FileMode has it. mtime: Unix ns.

    link_target: where a link leads, an absolute path in the container; "" for what is no link.
    """

    name: str
    size: int
    mode: int
    mtime: int
    link_target: str
    is_folder: bool


@dataclass(frozen=True, slots=True)
class ArchiveAnswer:
    """The answer of GET /containers/ID/archive. chunks: must be closed (`aclose`), also when it is not read."""

    stat: PathStat
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class ExtractQuery:
    """The query of PUT /containers/ID/archive.

    keep_kind: refuse to put a file in the place of a directory or the reverse. copy_owner: all becomes the
    container user's.
    """

    path: str
    keep_kind: bool = False
    copy_owner: bool = False


@dataclass(frozen=True, slots=True)
class CommitQuery:
    """The query of POST /commit. changes: instructions of a Dockerfile. pause: freeze the container meanwhile."""

    repo: str = ""
    tag: str = ""
    comment: str = ""
    author: str = ""
    changes: list[str] = field(default_factory=list)
    pause: bool = True
