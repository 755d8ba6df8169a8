"""Connections that are given away: the head, early bytes, half-close, and that nobody shuts the socket down."""

from __future__ import annotations

import json
import os
import socket
import threading

import pytest

from .fakes import frame, read_all

ATTACH = "POST /v{version}/containers/it/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: d\r\n{upgrade}\r\n"
UPGRADE = "Connection: Upgrade\r\nUpgrade: tcp\r\n"


def attach(version: str = "1.51", upgrade: str = UPGRADE) -> bytes:
    """The head of an attach request."""
    return ATTACH.format(version=version, upgrade=upgrade).encode()


def receive_head(connection: socket.socket) -> tuple[list[bytes], bytes]:
    """Lines of the head, and what came behind it in the same read."""
    head, _, rest = connection.recv(65536).partition(b"\r\n\r\n")
    return head.split(b"\r\n"), rest


def test_attach_is_101_in_the_words_that_clients_look_for(api):
    with api.connect() as connection:
        connection.sendall(attach())
        lines, rest = receive_head(connection)
    assert lines[0] == b"HTTP/1.1 101 UPGRADED"
    assert b"Content-Type: application/vnd.docker.multiplexed-stream" in lines
    assert b"Connection: Upgrade" in lines
    assert b"Upgrade: tcp" in lines
    assert b"Api-Version: 1.51" in lines
    assert rest == b""


@pytest.mark.parametrize(
    ("version", "tty", "kind"),
    [("1.42", False, b"multiplexed"), ("1.41", False, b"raw"), ("1.42", True, b"raw")],
)
def test_content_type_tells_terminal_and_version(api, version, tty, kind):
    api.backends.containers.tty = tty
    with api.connect() as connection:
        connection.sendall(attach(version))
        lines, _ = receive_head(connection)
    assert b"Content-Type: application/vnd.docker." + kind + b"-stream" in lines


def test_attach_without_upgrade_is_200_and_raw_until_close(api):
    with api.connect() as connection:
        connection.sendall(attach(upgrade=""))
        lines, _ = receive_head(connection)
        connection.sendall(b"hi")
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == frame(b"hi")
    assert lines == [b"HTTP/1.1 200 OK", b"Content-Type: application/vnd.docker.raw-stream"]


def test_output_goes_on_after_the_client_has_ended_its_input(api):
    data = os.urandom(3 << 20)
    api.backends.containers.tty = True
    with api.connect() as connection:
        connection.sendall(attach())
        receive_head(connection)

        def send() -> None:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        assert read_all(connection) == data
        sender.join()


def test_bytes_sent_with_the_request_are_not_lost(api):
    with api.connect() as connection:
        connection.sendall(attach() + b"early")
        receive_head(connection)
        assert connection.recv(65536) == frame(b"early")


def test_what_looks_like_a_request_after_the_upgrade_is_only_bytes(api):
    hidden = b"DELETE /containers/it HTTP/1.1\r\nHost: d\r\n\r\n"
    with api.connect() as connection:
        connection.sendall(attach() + hidden)
        receive_head(connection)
        assert connection.recv(65536) == frame(hidden)
    assert len(api.backends.containers.calls) == 1


def test_exec_with_body_and_upgrade_in_one_write(api):
    body = b'{"Tty":true}'
    head = f"POST /exec/{'e' * 64}/start HTTP/1.1\r\nHost: d\r\n{UPGRADE}Content-Length: {len(body)}\r\n"
    create = b'{"AttachStdin":true,"Cmd":["cat"]}'
    with api.connect() as connection:
        connection.sendall(
            b"POST /containers/it/exec HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(create), create)
        )
        assert b"201 Created" in connection.recv(65536)
        connection.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body + b"first")
        lines, _ = receive_head(connection)
        assert lines[0] == b"HTTP/1.1 101 UPGRADED"
        assert connection.recv(65536) == b"first"
        connection.sendall(b"second")
        assert connection.recv(65536) == b"second"


def test_error_before_the_upgrade_is_an_ordinary_answer(api):
    answer = api.exchange(attach().replace(b"/it/", b"/none/").replace(b"Host: d", b"Host: d\r\nConnection: close"))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404")
    assert json.loads(body) == {"message": "No such container: none"}


def test_dropping_the_transport_does_not_shut_the_socket_down(api):
    """The duplicate must be the last and only end: alive both ways, out of epoll, and one descriptor in all."""
    kept = []

    async def keep(ref, query, upgrade):
        kept.append(await upgrade(False))

    api.backends.containers.attach = keep
    with api.connect() as connection:
        connection.sendall(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n")
        assert connection.recv(65536)
        before = len(os.listdir("/proc/self/fd"))
        connection.sendall(attach() + b"early")
        receive_head(connection)
        assert api.until(lambda: bool(kept))
        assert api.until(lambda: not api.server._live)
        api.exchange(b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")  # the loop has turned
        assert len(os.listdir("/proc/self/fd")) == before
        with socket.socket(fileno=kept[0].fd) as mine:
            assert kept[0].early == b"early"
            assert os.get_blocking(mine.fileno())
            assert not os.get_inheritable(mine.fileno())
            connection.sendall(b"in")
            mine.sendall(b"out")
            assert connection.recv(10) == b"out"
            assert mine.recv(10) == b"in"
        assert connection.recv(10) == b""


def test_stop_of_the_server_leaves_given_away_connections_alone(api):
    with api.connect() as connection:
        connection.sendall(attach())
        receive_head(connection)
        api.call(api.server.close())
        connection.sendall(b"still")
        assert connection.recv(100) == frame(b"still")


def test_two_hundred_attachments_leave_nothing(api):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(200):
        with api.connect() as connection:
            connection.sendall(attach())
            receive_head(connection)
    assert api.until(lambda: len(os.listdir("/proc/self/fd")) <= before)
    assert not api.server._live


def test_upgrade_behind_an_answer_that_is_still_being_read(api):
    """The head of the stream must not overtake, or cut off, what is queued in the transport."""
    api.backends.containers.lines = [bytes(1 << 20)] * 5
    logs = b"GET /containers/it/logs?stdout=1 HTTP/1.1\r\nHost: d\r\n\r\n"
    with api.connect() as connection:
        connection.sendall(logs + attach())
        found = bytearray()
        while b"101 UPGRADED" not in found[-4096:]:
            found += connection.recv(65536)
        assert len(found) > 5 << 20
        assert b"\r\n0\r\n\r\nHTTP/1.1 101 UPGRADED\r\n" in found
        connection.sendall(b"x")
        connection.shutdown(socket.SHUT_WR)
        assert (bytes(found[-4096:]) + read_all(connection)).endswith(frame(b"x"))
