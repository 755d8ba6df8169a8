"""HTTP/1.1 on the wire: framing, keep-alive, limits, and what is refused."""

from __future__ import annotations

import collections
import itertools
import re
import socket
import time

import pytest

from wherry.api import connection as connection_module

from .fakes import read_all

PING = b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n"
LAST = b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"
JSON = b"Content-Type: application/json\r\n"


def split(answer: bytes) -> tuple[bytes, bytes]:
    """Head and body of the first answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


def post(path: str, body: bytes, *headers: bytes) -> bytes:
    """A POST with JSON, the last on its connection."""
    lines = [f"POST {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n".encode(), *headers]
    if not headers:
        lines.append(JSON)
    return b"".join(lines) + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


def test_ping_tells_versions_and_os(api):
    head, body = split(api.exchange(LAST))
    assert body == b"OK"
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    for line in (b"Api-Version: 1.51", b"Ostype: linux", b"Server: Docker/28.5.2 (linux)", b"Swarm: inactive"):
        assert line in head.split(b"\r\n")


def test_head_has_no_body(api):
    head, body = split(api.exchange(LAST.replace(b"GET", b"HEAD")))
    assert b"Content-Length: 0" in head
    assert body == b""


def test_head_of_what_is_not_there_has_no_body_and_keeps_the_connection(api):
    answer = api.exchange(b"HEAD /version HTTP/1.1\r\nHost: d\r\n\r\n" + LAST)
    first, rest = split(answer)
    assert first.startswith(b"HTTP/1.1 404")
    assert rest.startswith(b"HTTP/1.1 200 OK")


def test_keep_alive_serves_many_requests_on_one_connection(api):
    with api.connect() as connection:
        for _ in range(20):
            connection.sendall(PING)
            assert connection.recv(65536).endswith(b"OK")


def test_pipelined_requests_are_answered_in_order(api):
    answer = api.exchange(PING + post("/containers/create?name=a", b'{"Image":"x"}').replace(b"close", b"x") + LAST)
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"201", b"200"]


def test_pipelined_requests_before_a_half_close_are_all_answered(api):
    assert api.exchange(PING * 3, end=True).count(b"HTTP/1.1 200 OK") == 3


def test_a_request_in_single_bytes_is_understood(api):
    with api.connect() as connection:
        for byte in post("/containers/create", b'{"Image":"x"}'):
            connection.sendall(bytes([byte]))
        assert b"201 Created" in read_all(connection)


def test_http_1_0_gets_its_stream_without_chunks_and_the_end_of_the_connection(api):
    head, body = split(api.exchange(b"GET /containers/it/logs?stdout=1&stderr=1 HTTP/1.0\r\n\r\n"))
    assert b"chunked" not in head
    assert b"Connection: close" in head
    assert body == b"\x01\0\0\0\0\0\0\x04one\n\x02\0\0\0\0\0\0\x04two\n"


def test_chunked_body_is_read(api):
    request = b"POST /containers/create HTTP/1.1\r\nHost: d\r\nConnection: close\r\n" + JSON
    request += b'Transfer-Encoding: chunked\r\n\r\n7\r\n{"Image\r\n6\r\n":"x"}\r\n0\r\n\r\n'
    assert b"201 Created" in api.exchange(request)
    assert api.backends.containers.created[0][0].config.image == "x"


HIDDEN = b"DELETE /containers/it HTTP/1.1\r\nHost: d\r\n\r\n"
HOST = b"POST /containers/it/start HTTP/1.1\r\nHost: d\r\n"
SMUGGLED = {
    "length and chunked": HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "two lengths": HOST + b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n" + HIDDEN,
    "the same length twice": HOST + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "a list of lengths": HOST + b"Content-Length: 0, 0\r\n\r\n" + HIDDEN,
    "signed length": HOST + b"Content-Length: +0\r\n\r\n" + HIDDEN,
    "unknown encoding": HOST + b"Transfer-Encoding: xchunked\r\n\r\n" + HIDDEN,
    "two encodings": HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + HIDDEN,
    "space before colon": HOST + b"Content-Length : 0\r\n\r\n" + HIDDEN,
    "folded line": HOST + b"X: a\r\n Content-Length: 44\r\n\r\n" + HIDDEN,
    "bare newlines": HOST.replace(b"\r\n", b"\n") + b"\n" + HIDDEN,
    "one bare newline": HOST + b"X: a\nContent-Length: 0\r\n\r\n" + HIDDEN,
    "bare carriage return": HOST + b"X: a\rContent-Length: 0\r\n\r\n" + HIDDEN,
    "NUL": HOST + b"X: a\0b\r\n\r\n" + HIDDEN,
    "HTTP/0.9": b"GET /_ping\r\n\r\n" + HIDDEN,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN,
    "no host": b"GET /_ping HTTP/1.1\r\n\r\n" + HIDDEN,
    "bad chunk size": HOST + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\n" + HIDDEN,
    "end of chunks without CR": HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\n" + HIDDEN,
    "trailer": HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n" + HIDDEN,
    "rubbish": b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n" + HIDDEN,
}


@pytest.mark.parametrize("form", SMUGGLED)
def test_ambiguous_request_is_refused_and_nothing_behind_it_is_executed(api, form):
    answer = api.exchange(SMUGGLED[form], end=True)
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 505")), answer
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"Connection: close" in answer
    assert api.backends.containers.calls == []
    assert not api.backends.containers.started.is_set()


def test_too_large_head_is_refused_while_it_comes(api):
    answer = api.exchange(b"GET /_ping HTTP/1.1\r\nHost: d\r\nX: " + b"a" * 70_000)
    assert answer.startswith(b"HTTP/1.1 431")


def test_body_of_a_get_is_not_taken_for_a_request(api):
    request = b"GET /_ping HTTP/1.1\r\nHost: d\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN)
    assert api.exchange(request + HIDDEN + LAST).count(b"HTTP/1.1 200 OK") == 2
    assert api.backends.containers.calls == []


def test_absolute_target_is_refused(api):
    answer = api.exchange(LAST.replace(b"/_ping", b"http://evil/_ping"))
    assert answer.startswith(b"HTTP/1.1 400")


def test_path_that_is_not_normal_is_redirected_with_a_clean_header(api):
    head, _ = split(api.exchange(LAST.replace(b"/_ping", b"/v1.45/x/..//version")))
    assert head.startswith(b"HTTP/1.1 301")
    assert b"\r\nLocation: /v1.45/version\r\n" in head
    assert api.exchange(LAST.replace(b"/_ping", b"//a%0d%0aSet-Cookie:b")).startswith(b"HTTP/1.1 400")


def test_continue_is_sent_when_the_client_waits_for_it(api):
    with api.connect() as connection:
        connection.sendall(
            b"POST /images/load HTTP/1.1\r\nHost: d\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
        )
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.sendall(b"abc")
        found = b""
        while b"Loaded 3 bytes" not in found:
            found += connection.recv(65536)


def test_upload_is_streamed_with_backpressure(api):
    """A slow reader must slow the client down, not fill memory; the connection lives on afterwards."""
    api.backends.images.slow = 0.001
    size = 24 << 20
    with api.connect() as connection:
        connection.sendall(b"POST /images/load HTTP/1.1\r\nHost: d\r\nContent-Length: %d\r\n\r\n" % size)
        sent, most = 0, 0
        block = bytes(1 << 20)
        while sent < size:
            sent += connection.send(block[: size - sent])
            most = max(most, sent - api.backends.images.loaded)
        found = b""
        while b"0\r\n\r\n" not in found:
            found += connection.recv(65536)
        assert b"Loaded %d bytes" % size in found
        connection.sendall(LAST)
        assert read_all(connection).endswith(b"OK")
    assert most < 4 << 20


def test_upload_cut_short_fails_the_reader_and_ends(api):
    with api.connect() as connection:
        connection.sendall(b"POST /images/load HTTP/1.1\r\nHost: d\r\nContent-Length: 100000\r\n\r\nabc")
        assert api.until(lambda: api.backends.images.loaded == 0)
        connection.shutdown(socket.SHUT_WR)
        answer = read_all(connection)
    assert b"errorDetail" in answer
    assert b"the client ended the connection within the request body" in answer


def test_error_after_progress_is_the_last_record(api):
    from wherry.errors import InvalidArgument

    api.backends.images.failure = InvalidArgument("no such layer")
    _, body = split(api.exchange(post("/images/load", b"x")))
    assert b'{"errorDetail":{"message":"no such layer"},"error":"no such layer"}\r\n' in body
    assert body.endswith(b"0\r\n\r\n")


def test_error_before_progress_has_a_status(api):
    head, body = split(api.exchange(post("/images/create?fromImage=a&tag=b", b"")))
    assert head.startswith(b"HTTP/1.1 404")
    assert body == b'{"message":"no registry for a:b"}\n'


def test_unwanted_body_is_thrown_away_and_the_connection_kept(api):
    request = post("/containers/none/kill", b"x" * 500_000).replace(b"Connection: close\r\n", b"")
    answer = api.exchange(request + LAST)
    assert answer.startswith(b"HTTP/1.1 404")
    assert answer.endswith(b"OK")


@pytest.mark.parametrize("keep", [b"", b"Connection: close\r\n"])
def test_a_client_that_sends_much_more_than_is_wanted_sees_the_answer(api, keep):
    """A close under its hands would fail its write, which is all that the docker CLI would then tell."""
    head = b"POST /containers/none/kill HTTP/1.1\r\nHost: d\r\n" + keep + b"Content-Length: 1000000000\r\n\r\n"
    with api.connect() as connection:
        connection.sendall(head)
        connection.sendall(bytes(32 << 20))
        assert connection.recv(65536).startswith(b"HTTP/1.1 404")


def test_too_much_of_an_unwanted_body_ends_the_connection_in_time(api, monkeypatch):
    monkeypatch.setattr(connection_module, "LINGER", 0.2)
    with api.connect() as connection:
        connection.sendall(b"POST /containers/none/kill HTTP/1.1\r\nHost: d\r\nContent-Length: 1000000000000\r\n\r\n")
        pieces = itertools.repeat(bytes(1 << 20))
        with pytest.raises(ConnectionError):
            collections.deque(map(connection.sendall, pieces), maxlen=0)


def test_large_json_is_refused(api):
    assert b"request body too large" in api.exchange(post("/containers/create", b" " * (5 << 20)))


def test_slow_head_is_given_up(api, monkeypatch):
    monkeypatch.setattr(connection_module, "HEAD_TIMEOUT", 0.05)
    with api.connect() as connection:
        connection.sendall(b"GET /_ping HT")
        assert api.until(lambda: len(api.server._live) == 1)
        time.sleep(0.1)
        api.loop.call_soon_threadsafe(api.server._sweep)
        assert read_all(connection) == b""


def test_a_thousand_half_open_connections_do_not_disturb_others(api):
    held = [api.connect() for _ in range(400)]
    try:
        for connection in held:
            connection.sendall(b"GET /")
        begin = time.monotonic()
        assert api.exchange(LAST).endswith(b"OK")
        assert time.monotonic() - begin < 1
    finally:
        for connection in held:
            connection.close()
    assert api.until(lambda: not api.server._live)


@pytest.mark.parametrize(
    ("path", "counter"),
    [
        ("POST /containers/it/wait", lambda b: b.containers.waiting),
        ("GET /containers/it/logs?stdout=1&follow=1", lambda b: b.containers.waiting),
        ("GET /events", lambda b: b.system.listeners),
    ],
)
def test_client_that_goes_away_ends_what_follows(api, path, counter):
    with api.connect() as connection:
        connection.sendall(f"{path} HTTP/1.1\r\nHost: d\r\n\r\n".encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK")
        assert api.until(lambda: counter(api.backends) == 1)
    assert api.until(lambda: counter(api.backends) == 0)
    assert api.until(lambda: not api.server._live)


def test_wait_sends_its_head_before_the_exit(api):
    with api.connect() as connection:
        connection.sendall(b"POST /v1.45/containers/it/wait?condition=next-exit HTTP/1.1\r\nHost: d\r\n\r\n")
        assert connection.recv(65536).endswith(b"Transfer-Encoding: chunked\r\n\r\n")
        assert api.exchange(post("/containers/it/start", b"")).startswith(b"HTTP/1.1 204 No Content")
        found = b""
        while not found.endswith(b"0\r\n\r\n"):
            found += connection.recv(65536)
        assert b'{"StatusCode":7}\n' in found


def test_client_that_does_not_read_pauses_the_stream(api):
    api.backends.containers.lines = [bytes(65536)] * 1000
    taken = 0

    async def chunks():
        nonlocal taken
        for line in api.backends.containers.lines:
            taken += 1
            yield line

    from wherry.models.queries import LogsAnswer

    async def logs(ref, query):
        return LogsAnswer(True, chunks())

    api.backends.containers.logs = logs
    with api.connect() as connection:
        connection.sendall(b"GET /containers/it/logs?stdout=1 HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
        assert api.until(lambda: taken > 3)
        time.sleep(0.1)
        assert taken < 50
        assert len(read_all(connection)) > 65536 * 1000


def test_errors_have_their_status_and_text(api):
    cases = {
        post("/containers/none/start", b""): (404, b'{"message":"No such container: none"}\n'),
        post("/containers/it/pause", b""): (409, b'{"message":"already paused"}\n'),
        post("/containers/it/unpause", b""): (500, b'{"message":"cannot thaw: EIO"}\n'),
        post("/containers/it/nothing", b""): (404, b'{"message":"page not found"}\n'),
        post("/build", b""): (501, b'{"message":"building images: not there yet in this engine (POST /build)"}\n'),
    }
    for request, (status, text) in cases.items():
        head, body = split(api.exchange(request))
        assert (int(head[9:12]), body) == (status, text)


def test_started_already_is_304_without_a_body(api):
    api.exchange(post("/containers/it/start", b""))
    head, body = split(api.exchange(post("/containers/it/start", b"")))
    assert head.startswith(b"HTTP/1.1 304 Not Modified")
    assert body == b""


def test_defect_is_500_and_logged_with_its_trace(api, caplog):
    head, body = split(api.exchange(post("/containers/it/rename?name=b", b"")))
    assert head.startswith(b"HTTP/1.1 500")
    assert body == b'{"message":"ZeroDivisionError: a defect"}\n'
    assert any(record.exc_info for record in caplog.records)


def test_versions_outside_the_range_are_refused_in_dockerds_words(api):
    too_old = api.exchange(LAST.replace(b"/_ping", b"/v1.23/_ping"))
    assert b"400 Bad Request" in too_old
    assert b"client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade" in too_old
    too_new = api.exchange(LAST.replace(b"/_ping", b"/v1.52/_ping"))
    assert b"client version 1.52 is too new. Maximum supported API version is 1.51" in too_new


def test_older_versions_get_what_they_knew(api):
    new, old = (api.exchange(LAST.replace(b"/_ping", path)) for path in (b"/images/json", b"/v1.43/images/json"))
    assert b"VirtualSize" not in new
    assert b'"Containers":1' in new
    assert b'"VirtualSize":5' in old
    assert b'"Containers":-1' in old


def test_log_content_type_depends_on_version(api):
    path = b"/containers/it/logs?stdout=1"
    assert b"multiplexed-stream" in api.exchange(LAST.replace(b"/_ping", b"/v1.42" + path))
    assert b"raw-stream" in api.exchange(LAST.replace(b"/_ping", b"/v1.41" + path))


def test_image_names_with_slashes(api):
    assert b'"RepoTags":["reg/a/b:c"]' in api.exchange(LAST.replace(b"/_ping", b"/images/reg/a/b:c/json"))
    api.exchange(post("/images/reg/a/b:c/tag?repo=x/y&tag=z", b""))
    assert api.backends.images.tagged == ("reg/a/b:c", "x/y", "z")


def test_one_platform_of_an_image(api):
    api.exchange(LAST.replace(b"/_ping", b"/images/reg/a/b:c/json?platform=x"))
    assert api.backends.images.platform == "x"
    answer = api.exchange(LAST.replace(b"GET /_ping", b"DELETE /images/a?platforms=x&platforms=y"))
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"multiple platforms are not supported" in answer


def test_stop_lets_a_request_end_and_cuts_followers_off(api):
    with api.connect() as follower, api.connect() as idle:
        follower.sendall(b"GET /events HTTP/1.1\r\nHost: d\r\n\r\n")
        assert follower.recv(65536)
        assert api.until(lambda: len(api.server._live) == 2)
        begin = time.monotonic()
        api.call(api.server.close())
        assert time.monotonic() - begin < 2
        read_all(follower)
        assert read_all(idle) == b""
    with pytest.raises(OSError, match="No such file"):
        api.connect()


def test_client_that_floods_while_it_follows_is_dropped(api):
    with api.connect() as connection:
        connection.sendall(b"GET /events HTTP/1.1\r\nHost: d\r\n\r\n")
        assert connection.recv(65536)
        with pytest.raises(ConnectionError):
            connection.sendall(bytes(8 << 20))
    assert api.until(lambda: api.backends.system.listeners == 0)
