"""What a route can answer: a reply, a stream, or nothing because it has given the connection away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from wherry.api.wire.encode import encode
from wherry.models.parts import Part

JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer whose head is sent at once and whose chunks follow as they come; empty chunks are not sent."""

    chunks: AsyncIterator[Part]
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)
    status: int = 200


class Hijacked:
    """The connection belongs to somebody else now."""


Answer = Reply | Stream | Hijacked


def json_reply(value: Any, status: int = 200) -> Reply:
    """Return a value as JSON."""
    return Reply(status, encode(value) + b"\n", JSON)


NO_CONTENT = Reply(204)
CREATED = Reply(201)
OK = Reply(200)
