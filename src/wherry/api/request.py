"""A request as the routes see it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from wherry.api.body import Body
from wherry.api.head import write_upgrade
from wherry.api.versions import NEWEST, Version
from wherry.api.wire import decode
from wherry.api.wire.query import Query
from wherry.errors import InvalidArgument
from wherry.models.queries import ClientStream

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Request:
    """One request. path: decoded, without the version. hijack: gives the connection away, see `upgrade`."""

    method: str
    path: str
    query: Query
    headers: Mapping[str, str]
    body: Body
    hijack: Callable[[bytes], Awaitable[ClientStream]]
    version: Version = NEWEST
    params: Mapping[str, str] = field(default_factory=dict)
    hijacked: bool = False

    def __str__(self) -> str:
        return f"{self.method} {self.path!r}"

    async def json(self) -> Any:
        """Return the body as a JSON value, None when there is none; raises InvalidArgument."""
        data = await self.body.read(decode.BODY_LIMIT)
        if not data:
            return None
        kind = self.headers.get("content-type", "")
        if not kind:
            raise InvalidArgument("malformed Content-Type header (): mime: no media type")
        if kind.partition(";")[0].strip().lower() != "application/json":
            raise InvalidArgument(f"unsupported Content-Type header ({kind}): must be 'application/json'")
        return decode.parse(data)

    async def model(self, kind: type[T]) -> T:
        """Return the body as a model; raises InvalidArgument, also when there is no body."""
        value = await self.json()
        if value is None and self.body.received == 0:
            raise InvalidArgument("invalid JSON: got EOF while reading request body")
        return decode.convert(value, kind)

    async def upgrade(self, tty: bool) -> ClientStream:
        """Send the head of a raw stream and take the connection out of the event loop; the caller closes its fd."""
        multiplexed = not tty and self.version >= (1, 42)
        head = write_upgrade(upgrade="upgrade" in self.headers, multiplexed=multiplexed)
        stream = await self.hijack(head)
        self.hijacked = True
        return stream
