"""Bodies: the reader in a thread, limits, and ends."""

from __future__ import annotations

import asyncio

import pytest

from wherry.api import body as body_module
from wherry.api.body import HIGH, Body, ClientGone
from wherry.errors import InvalidArgument


def test_a_thread_reads_what_the_loop_feeds():
    async def main():
        flow = []
        body = Body(flow.append)
        reader = body.reader()
        reading = asyncio.create_task(asyncio.to_thread(lambda: (reader.read(3), reader.read())))
        for piece in (b"ab", b"cd", b"e" * 300_000):
            body.feed(piece)
            await asyncio.sleep(0)
        body.finish()
        assert await reading == (b"abc", b"d" + b"e" * 300_000)
        assert flow == []

    asyncio.run(main())


def test_a_slow_thread_pauses_and_resumes_the_connection():
    async def main():
        flow = []
        body = Body(flow.append)
        for _ in range(5):
            body.feed(bytes(HIGH // 4))
        assert flow == [True]
        reader = body.reader()
        await asyncio.to_thread(reader.read, HIGH // 2)
        await asyncio.sleep(0)
        assert flow == [True]
        await asyncio.to_thread(reader.read, HIGH // 2)
        await asyncio.sleep(0)
        assert flow == [True, False]

    asyncio.run(main())


def test_a_body_that_breaks_off_is_an_error_for_both_kinds_of_readers():
    async def main():
        body = Body(lambda paused: None)
        body.feed(b"x")
        body.fail(ClientGone("gone"))
        with pytest.raises(OSError, match="gone"):
            await asyncio.to_thread(body.reader().read)
        body = Body(lambda paused: None)
        waiting = asyncio.create_task(body.read(10))
        await asyncio.sleep(0)
        body.fail(ClientGone("gone"))
        with pytest.raises(ClientGone):
            await waiting

    asyncio.run(main())


def test_failure_after_the_end_is_none():
    async def main():
        body = Body(lambda paused: None)
        body.feed(b"x")
        body.finish()
        body.fail(ClientGone("gone"))
        assert await body.read(10) == b"x"

    asyncio.run(main())


def test_discarding_frees_a_reader_that_waits():
    async def main():
        body = Body(lambda paused: None)
        reading = asyncio.create_task(asyncio.to_thread(body.reader().read))
        await asyncio.sleep(0.01)
        body.discard()
        with pytest.raises(OSError, match="has been answered"):
            await reading
        body.feed(b"abc")
        assert body.discarded == 3

    asyncio.run(main())


def test_limit_and_time(monkeypatch):
    async def main():
        body = Body(lambda paused: None)
        body.feed(b"12345")
        with pytest.raises(InvalidArgument, match="at most 4 bytes"):
            await body.read(4)
        monkeypatch.setattr(body_module, "BODY_TIMEOUT", 0.01)
        with pytest.raises(InvalidArgument, match="in time"):
            await Body(lambda paused: None).read(4)

    asyncio.run(main())
