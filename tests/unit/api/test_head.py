"""Heads and bodies of requests: where they end, and what is refused."""

from __future__ import annotations

import random

import pytest

from wherry.api.head import Incoming, Refused, find_end, parse_head, write_head, write_upgrade

CHUNKED = b"POST /x HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n"


def head(*lines: bytes, first: bytes = b"GET /x HTTP/1.1"):
    """A parsed head with a Host."""
    return parse_head(b"\r\n".join([first, b"Host: d", *lines]) + b"\r\n\r\n")


def feed(data: bytes, step: int) -> tuple[bytes, bytes | None]:
    """The body and the rest of a chunked request that comes in pieces."""
    incoming, body = Incoming(parse_head(CHUNKED)), b""
    for at in range(0, len(data), step):
        pieces, rest = incoming.take(data[at : at + step])
        body += b"".join(pieces)
        if rest is not None:
            return body, rest + data[at + step :]
    return body, None


def test_heads():
    found = head(b"A-b:  c d \t", b"X: 1", b"x: 2", b"Empty:")
    assert found.headers == {"host": "d", "a-b": "c d", "x": "1, 2", "empty": ""}
    assert (found.method, found.target, found.keep_alive) == ("GET", "/x", True)
    assert not head(b"Connection: Close").keep_alive
    assert not parse_head(b"GET / HTTP/1.0\r\n\r\n").keep_alive


BAD_LINES = [b"X : 1", b" X: 1", b"X", b": 1", b"X: a\rb", b"X: a\nb", b"X: \0", b"X: \x7f", b"\xe9: 1", b"Host: e"]
BAD_LINES += [b"Content-Length: -1", b"Content-Length: 1, 1", b"Content-Length:", b"Content-Length: 0x1"]
BAD_LINES += [b"Content-Length: \xb2", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked\x0b"]


@pytest.mark.parametrize("line", BAD_LINES)
def test_bad_lines_are_refused(line):
    with pytest.raises(Refused):
        head(line)


@pytest.mark.parametrize(
    "first",
    [
        b"GET  / HTTP/1.1",
        b"GET /a b HTTP/1.1",
        b"GET / HTTP/1.10",
        b"GET / http/1.1",
        b"G(T / HTTP/1.1",
        b"GET /\xff HTTP/1.1",
    ],
)
def test_bad_request_lines_are_refused(first):
    with pytest.raises(Refused):
        head(first=first)


def test_chunks_may_not_come_with_http_1_0():
    with pytest.raises(Refused):
        parse_head(CHUNKED.replace(b"1.1", b"1.0"))


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64, 1000])
def test_chunks_in_pieces_of_every_size(step):
    rest = b"GET /next"
    data = b"5;a=b\r\nhello\r\n1\r\n \r\n00A ;x\r\nwonderful!\r\n0\r\n\r\n" + rest
    assert feed(data, step) == (b"hello wonderful!", rest)


def test_chunks_at_random():
    numbers = random.Random(5)
    for _ in range(200):
        parts = [numbers.randbytes(numbers.randrange(1, 60)) for _ in range(numbers.randrange(8))]
        data = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n" + b"rest"
        assert feed(data, numbers.randrange(1, 40)) == (b"".join(parts), b"rest")


BAD_CHUNKS = [b"5\nhello\r\n0\r\n\r\n", b"5\r\nhello\n0\r\n\r\n", b"5\r\nhello!\r\n", b"0x5\r\nhello", b"-1\r\n"]
BAD_CHUNKS += [b" 5\r\n", b"\r\n", b"+5\r\n", b"5_0\r\n", b"g\r\n", b"0\r\n\n", b"0\r\nX: y\r\n\r\n"]
BAD_CHUNKS += [b"f" * 16 + b"\r\n", b"5;" + b"x" * 2000, b"5;a\0\r\nhello", b"\xd9\xa1\r\nx\r\n"]


@pytest.mark.parametrize("step", [1, 1000])
@pytest.mark.parametrize("data", BAD_CHUNKS)
def test_bad_chunks_are_refused(data, step):
    with pytest.raises(Refused):
        feed(data, step)


def test_body_with_a_length():
    incoming = Incoming(head(b"Content-Length: 5"))
    assert incoming.take(b"abc") == ([b"abc"], None)
    assert incoming.take(b"defgh") == ([b"de"], b"fgh")
    assert Incoming(head(b"Content-Length: 0")).empty
    assert Incoming(head()).empty


def test_end_of_the_head():
    assert find_end(bytearray(b"GET / HTTP/1.1\r\n\r\nrest")) == 18
    assert find_end(bytearray(b"GET / HTTP/1.1\r\nHost")) == 0
    for data in (b"GET / HTTP/1.1\n\n", b"x" * 70_000, b"x" * 65_536 + b"\r\n\r\n"):
        with pytest.raises(Refused):
            find_end(bytearray(data))


def test_answers_cannot_be_split():
    with pytest.raises(ValueError, match="line break"):
        write_head(200, {"X": "a\r\nSet-Cookie: b"}, length=0, keep_alive=True, chunked=False)


def test_heads_of_raw_streams():
    assert write_upgrade(upgrade=True, multiplexed=True).startswith(
        b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n"
        b"Connection: Upgrade\r\nUpgrade: tcp\r\n"
    )
    assert write_upgrade(upgrade=False, multiplexed=True) == (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"
    )
