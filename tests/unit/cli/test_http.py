"""Requests and answers on the wire."""

from __future__ import annotations

import socket

import pytest

from tests.unit.cli.fake import FakeEngine, chunked, refuse, reply
from wherry.cli.failures import ApiError, Unreachable
from wherry.cli.http import Client, Response, connect, encode_query, quote


def test_the_query_is_encoded() -> None:
    query = {"name": "a b/ä", "force": True, "v": None, "changes": ["CMD x", "ENV a=b"]}
    assert encode_query(query) == "?name=a%20b%2F%C3%A4&force=1&changes=CMD%20x&changes=ENV%20a%3Db"
    assert encode_query({}) == ""


def test_a_name_cannot_leave_its_place_in_the_path() -> None:
    assert quote("a?b#c d\r\nX: y") == "a%3Fb%23c%20d%0D%0AX:%20y"
    assert quote("repo/name:tag") == "repo/name:tag"


def test_bodies_by_length_and_by_chunks(engine: FakeEngine) -> None:
    engine.answers["GET /a"] = reply({"x": 1})
    engine.answers["GET /b"] = chunked(b'{"x"', b": 2}")
    engine.answers["POST /c"] = b"HTTP/1.1 204 No Content\r\n\r\n"
    client = Client(engine.host)
    assert client.get("/a") == {"x": 1}
    assert client.get("/b") == {"x": 2}
    assert client.post("/c") is None


def test_records_are_cut_at_newlines_wherever_chunks_end(engine: FakeEngine) -> None:
    engine.answers["GET /e"] = chunked(b'{"n": 1}\r\n{"n"', b": 2}\r\n", b'{"n": 3}')
    response = Client(engine.host).open("GET", "/e")
    assert [record["n"] for record in response.records()] == [1, 2, 3]
    response.close()


def test_a_refusal_carries_the_engines_words(engine: FakeEngine) -> None:
    engine.answers["GET /a"] = refuse(409, "Conflict. Already there.")
    with pytest.raises(ApiError) as raised:
        Client(engine.host).get("/a")
    assert (raised.value.http, raised.value.message) == (409, "Conflict. Already there.")


def test_an_answer_cut_short_is_an_error(engine: FakeEngine) -> None:
    engine.answers["GET /a"] = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"
    with pytest.raises(ApiError, match="in the middle of an answer"):
        Client(engine.host).get("/a")


def test_what_came_with_the_head_is_not_lost() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\nearly")
        response = Response(ours)
        assert response.status == 101
        assert response.detach() == (ours, b"early")


@pytest.mark.parametrize("host", ["unix:///nonexistent/socket", "ftp://x", "/no/scheme"])
def test_nobody_there(host: str) -> None:
    with pytest.raises(Unreachable):
        connect(host)


def test_tcp_by_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        sock = connect(f"tcp://localhost:{port}")
        accepted, _ = listener.accept()
        with accepted:
            sock.send(b"x")
            assert accepted.recv(1) == b"x"
        sock.close()
    with pytest.raises(Unreachable):
        connect(f"tcp://127.0.0.1:{port}")
