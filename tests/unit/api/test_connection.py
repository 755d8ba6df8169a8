"""A connection whose client goes away in the middle of an answer, on a transport of the test's own."""

import asyncio
import logging

from wherry.api.answers import Stream
from wherry.api.connection import Connection


class Closed(asyncio.Transport):
    """Closes at a write, as uvloop's does when the write fails: it takes no other, and tells of it a turn later."""

    def __init__(self, allowed: int) -> None:
        super().__init__()
        self.allowed = allowed
        self.written: list[bytes] = []
        self.aborted = False

    def write(self, data) -> None:
        if self.is_closing():
            raise RuntimeError("unable to perform operation; the handler is closed")
        self.written.append(bytes(data))
        self.allowed -= 1

    def is_closing(self) -> bool:
        return self.allowed <= 0

    def set_write_buffer_limits(self, high=None, low=None) -> None:
        pass

    def abort(self) -> None:
        self.aborted = True


async def ready():
    for number in range(3):
        yield b"%d" % number


class Serves:
    """Answers every request with a stream that has all its chunks at once."""

    def resolve(self, head, body, hijack):
        async def answer():
            return Stream(ready())

        return answer(), True


def serve(allowed: int) -> Closed:
    async def scenario() -> Closed:
        transport = Closed(allowed)
        connection = Connection(Serves(), set())
        connection.connection_made(transport)
        connection.data_received(b"GET /events HTTP/1.1\r\nHost: d\r\n\r\n")
        task = connection.task
        assert task is not None
        await task
        return transport

    return asyncio.run(scenario())


def test_a_client_that_is_gone_before_a_chunk_is_no_failure(caplog) -> None:
    caplog.set_level(logging.DEBUG, logger="wherry.api.connection")
    for allowed in (1, 2, 4):  # after the head, after a chunk, before the last one
        transport = serve(allowed)
        assert (len(transport.written), transport.aborted) == (allowed, True)
    told = [record.message for record in caplog.records if record.name == "wherry.api.connection"]
    assert told == ["client lost"] * 3
