"""A connection in the event loop, over real sockets."""

import asyncio
import os

import pytest

from wherry.runtime import channel
from wherry.supervision.connection import Connection, connect, peer_pid


def test_messages_in_order_and_one_end():
    async def scenario():
        ours, theirs = channel.pair()
        seen, ends = [], []
        ended = asyncio.Event()
        connection = Connection(ours, seen.append, lambda: (ends.append(1), ended.set()))
        for number in range(100):
            channel.send(theirs, {"number": number})
        theirs.close()
        async with asyncio.timeout(5):
            await ended.wait()
        assert [each["number"] for each in seen] == list(range(100))
        assert ends == [1]
        assert not connection.open
        with pytest.raises(BrokenPipeError):
            await connection.send({})

    asyncio.run(scenario())


def test_send_waits_for_a_slow_peer_and_keeps_the_order():
    async def scenario():
        ours, theirs = channel.pair()
        connection = Connection(ours, lambda message: None, lambda: None)
        sends = [asyncio.create_task(connection.send({"number": n, "pad": "x" * 20_000})) for n in range(60)]
        await asyncio.sleep(0.02)
        assert not all(each.done() for each in sends)
        got = []
        for _ in range(60):
            message = (await asyncio.to_thread(channel.receive, theirs))[0]
            got.append(message["number"])
        assert got == list(range(60))
        await asyncio.gather(*sends)
        connection.close()
        theirs.close()

    asyncio.run(scenario())


def test_end_while_a_send_waits():
    async def scenario():
        ours, theirs = channel.pair()
        connection = Connection(ours, lambda message: None, lambda: None)
        sends = [asyncio.create_task(connection.send({"pad": "x" * 20_000})) for _ in range(60)]
        await asyncio.sleep(0.02)
        theirs.close()
        async with asyncio.timeout(5):
            results = await asyncio.gather(*sends, return_exceptions=True)
        assert isinstance(results[-1], ConnectionError)
        connection.close()

    asyncio.run(scenario())


def test_descriptors_that_nobody_asked_for_are_closed():
    async def scenario():
        ours, theirs = channel.pair()
        got = asyncio.Event()
        connection = Connection(ours, lambda message: got.set(), lambda: None)
        before = len(os.listdir("/proc/self/fd"))
        channel.send(theirs, {}, [theirs.fileno()])
        await got.wait()
        assert len(os.listdir("/proc/self/fd")) == before
        connection.close()
        theirs.close()

    asyncio.run(scenario())


def test_nobody_to_connect_to(tmp_path):
    assert asyncio.run(connect(tmp_path)) is None
    assert asyncio.run(connect(tmp_path / "nothing")) is None


def test_peer_pid():
    ours, theirs = channel.pair()
    with ours, theirs:
        assert peer_pid(ours) == os.getpid()
