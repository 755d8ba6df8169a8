"""Streams of records: JSON lines that tell progress or events, and results that come late."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import Any

from wherry.api import errors
from wherry.api.answers import Stream
from wherry.api.wire.encode import encode


async def progress(records: AsyncIterator[Any], what: str) -> Stream:
    """Return a stream of progress records, each a line that ends in CR LF.

    A failure before the first record is raised, so that it gets a status of its own; a later one becomes the last
    record, in the form that clients look for.
    """
    first = await anext(records, None)
    return Stream(_progress(first, records, what))


async def _progress(first: Any, records: AsyncIterator[Any], what: str) -> AsyncIterator[bytes]:
    try:
        if first is not None:
            yield encode(first) + b"\r\n"
        async for record in records:
            yield encode(record) + b"\r\n"
    except Exception as error:
        message = errors.message_of(error, what)
        yield encode({"errorDetail": {"message": message}, "error": message}) + b"\r\n"
    finally:
        await close(records)


async def events(records: AsyncIterator[Any]) -> Stream:
    """Return a stream of events, a line each. The first record is awaited: it is None, and means subscribed."""
    first = await anext(records, None)
    return Stream(_lines(first, records))


async def _lines(first: Any, records: AsyncIterator[Any]) -> AsyncIterator[bytes]:
    try:
        if first is not None:
            yield encode(first) + b"\n"
        async for record in records:
            if record is not None:
                yield encode(record) + b"\n"
    finally:
        await close(records)


async def late(result: Awaitable[Any]) -> AsyncIterator[bytes]:
    """Yield one JSON value when it is there; the head of the answer has long been sent."""
    yield encode(await result) + b"\n"


async def close(records: AsyncIterator[Any]) -> None:
    """End an async generator now, not when it is collected: it may hold a subscription or a descriptor."""
    if (end := getattr(records, "aclose", None)) is not None:
        await end()
