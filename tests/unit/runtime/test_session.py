"""A session between a process's pipes and its clients, with the real poller, pipes and sockets."""

import fcntl
import os
import pty
import socket
import struct
import time
from collections import deque

import pytest

from wherry.runtime import session as session_module
from wherry.runtime.poller import Poller
from wherry.runtime.session import Session
from wherry.runtime.wire import AttachOptions


class ListLog:
    full = False

    def __init__(self):
        self.written = deque()

    def write(self, stream, data):
        self.written.append((stream, data))

    def close(self):
        self.written.append("closed")


class Rig:
    """A session, the process's ends of its pipes, and clients."""

    def __init__(self, *, stdin=True, once=True, patient=False, terminal=False):
        self.poller = Poller()
        self.log = ListLog()
        self.session = Session(self.poller, terminal=terminal, log=self.log, stdin=stdin, once=once, patient=patient)
        self.sockets = []
        self.stdio = () if terminal else self.session.make_pipes(output=True)

    def terminal(self):
        master, slave = pty.openpty()
        self.session.set_console(master)
        self.stdio = (slave,)
        return slave

    def attach(self, **options):
        ours, theirs = socket.socketpair()
        ours.settimeout(5)
        self.sockets.append(ours)
        self.session.attach(theirs.detach(), AttachOptions(**options))
        return ours

    def run(self, until=lambda: False, seconds=0.15):
        self.poller.run_for(seconds, until=until)

    def write(self, stream, data):
        os.write(self.stdio[stream], data)

    def close(self):
        self.session.finish()
        self.run(seconds=0)
        for client in self.session._clients:
            client.close()
        for fd in set(self.stdio):
            os.close(fd)
        for each in self.sockets:
            each.close()
        self.poller.close()


@pytest.fixture
def rig():
    made = []

    def make(**options):
        made.append(Rig(**options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def frame(stream, data):
    return struct.pack(">BxxxL", stream, len(data)) + data


def is_empty(sock):
    sock.setblocking(False)
    try:
        return sock.recv(1) == b"eof?"
    except BlockingIOError:
        return True
    finally:
        sock.settimeout(5)


def test_output_is_framed_logged_and_selected(rig):
    r = rig()
    both, errors = r.attach(), r.attach(stdout=False)
    r.write(1, b"out")
    r.run(lambda: len(r.log.written) == 1)
    r.write(2, b"err")
    r.run(lambda: len(r.log.written) == 2)
    assert both.recv(100) == frame(1, b"out") + frame(2, b"err")
    assert errors.recv(100) == frame(2, b"err")
    assert list(r.log.written) == [("stdout", b"out"), ("stderr", b"err")]


def test_a_terminal_is_raw(rig):
    r = rig(terminal=True)
    slave = r.terminal()
    sock = r.attach()
    os.write(slave, b"a\n")
    r.run(lambda: r.log.written)
    assert sock.recv(100) == b"a\r\n"


def test_first_byte_waits_until_the_head_was_read(rig):
    r = rig()
    ours, theirs = socket.socketpair()
    r.sockets.append(ours)
    theirs.sendall(b"HTTP head\r\n\r\n")
    r.session.attach(theirs.detach(), AttachOptions())
    r.write(1, b"x")
    r.run(seconds=0.01)
    assert ours.recv(100) == b"HTTP head\r\n\r\n"
    r.run(seconds=0.01)
    assert ours.recv(100) == frame(1, b"x")


def test_first_byte_does_not_wait_for_ever(rig, monkeypatch):
    monkeypatch.setattr("wherry.runtime.client.HOLD", 0.05)
    r = rig()
    ours, theirs = socket.socketpair()
    r.sockets.append(ours)
    theirs.sendall(b"unread")
    r.session.attach(theirs.detach(), AttachOptions())
    r.write(1, b"x")
    r.run(seconds=0.2)
    assert ours.recv(100) == b"unread" + frame(1, b"x")


def test_input_arrives_and_half_close_ends_it_once(rig):
    r = rig()
    sock = r.attach(stdin=True, early=b"early ")
    sock.sendall(b"bird")
    sock.shutdown(socket.SHUT_WR)
    r.run(seconds=0.02)
    assert os.read(r.stdio[0], 100) == b"early bird"
    assert os.read(r.stdio[0], 100) == b""
    r.write(1, b"still")  # output goes on after the half-close
    r.run(lambda: r.log.written)
    assert sock.recv(100) == frame(1, b"still")


def test_half_close_without_stdin_once_detaches_as_in_dockerd(rig):
    r = rig(once=False)
    sock = r.attach(stdin=True)
    sock.shutdown(socket.SHUT_WR)
    r.run(seconds=0.02)
    assert sock.recv(100) == b""
    os.set_blocking(r.stdio[0], False)
    with pytest.raises(BlockingIOError):  # the process's stdin is still open
        os.read(r.stdio[0], 1)


def test_half_close_of_a_client_without_stdin_changes_nothing(rig):
    r = rig()
    sock = r.attach()
    sock.shutdown(socket.SHUT_WR)
    r.run(seconds=0.02)
    r.write(1, b"x")
    r.run(lambda: r.log.written)
    assert sock.recv(100) == frame(1, b"x")


def test_client_that_goes_away_is_forgotten(rig):
    r = rig(once=False)
    sock = r.attach()
    sock.close()
    r.run(seconds=0.02)
    r.write(1, b"x")
    r.run(lambda: r.log.written)
    assert r.session._clients == []


def test_process_that_reads_nothing_pauses_the_client_only(rig):
    r = rig()
    sock = r.attach(stdin=True)
    sock.setblocking(False)
    sent = 0
    for _ in range(300):
        try:
            sent += sock.send(b"x" * 65536)
        except BlockingIOError:
            r.run(seconds=0.001)
    assert sent < 3_000_000  # held back: pipe, one chunk, socket buffers
    r.write(1, b"alive")
    r.run(lambda: r.log.written)
    assert r.log.written[0] == ("stdout", b"alive")
    received = 0
    os.set_blocking(r.stdio[0], False)
    while received < sent:
        try:
            received += len(os.read(r.stdio[0], 1 << 20))
        except BlockingIOError:
            r.run(seconds=0.001)
    assert received == sent


def test_input_after_the_process_closed_its_stdin_is_discarded(rig):
    r = rig()
    os.close(r.stdio[0])
    r.stdio = r.stdio[1:]
    sock = r.attach(stdin=True)
    for _ in range(5):
        sock.sendall(b"x" * 1000)
        r.run(seconds=0.005)
    os.write(r.stdio[0], b"on")
    r.run(lambda: r.log.written)
    assert sock.recv(100) == frame(1, b"on")


def test_slow_client_loses_nothing_and_holds_output_up(rig, monkeypatch):
    monkeypatch.setattr(session_module, "BACKLOG", 300_000)
    r = rig()
    sock = r.attach()
    os.set_blocking(r.stdio[1], False)
    total = 3_000_000
    written = got = 0
    received = bytearray()
    sock.settimeout(0.001)
    while written < total or got < total:
        try:
            if written < total:
                written += os.write(r.stdio[1], b"y" * min(60000, total - written))
        except BlockingIOError:
            pass
        r.run(seconds=0.001)
        try:
            received += sock.recv(20_000)
        except TimeoutError:
            pass
        got = payload_size(received)
    assert got == total
    assert sum(len(data) for _, data in r.log.written) == total


def payload_size(stream):
    size = position = 0
    while position + 8 <= len(stream):
        length = struct.unpack_from(">L", stream, position + 4)[0]
        size += min(length, len(stream) - position - 8)
        position += 8 + length
    return size


def test_client_that_hangs_is_dropped_and_the_process_goes_on(rig, monkeypatch):
    monkeypatch.setattr(session_module, "BACKLOG", 300_000)
    monkeypatch.setattr(session_module, "STALL", 0.2)
    r = rig()
    r.attach()
    os.set_blocking(r.stdio[1], False)
    written, deadline = 0, time.monotonic() + 5
    while written < 3_000_000 and time.monotonic() < deadline:
        try:
            written += os.write(r.stdio[1], b"y" * 60000)
        except BlockingIOError:
            r.run(seconds=0.01)
    assert written >= 3_000_000
    assert r.session._clients == []


def test_exec_client_that_pauses_is_waited_for(rig, monkeypatch):
    monkeypatch.setattr(session_module, "BACKLOG", 300_000)
    monkeypatch.setattr(session_module, "STALL", 0.05)
    r = rig(patient=True)
    r.attach()
    os.set_blocking(r.stdio[1], False)
    written = 0
    for _ in range(100):
        try:
            written += os.write(r.stdio[1], b"y" * 60000)
        except BlockingIOError:
            r.run(seconds=0.005)
    assert written < 3_000_000
    assert len(r.session._clients) == 1


def test_detach_keys_end_the_client_not_the_process(rig):
    r = rig(terminal=True)
    slave = r.terminal()
    sock = r.attach(stdin=True)
    sock.sendall(b"ls\n\x10")
    r.run(seconds=0.01)
    sock.sendall(b"\x11")
    r.run(seconds=0.01)
    while chunk := sock.recv(100):  # the echo, then the end
        assert b"\x10" not in chunk
    assert os.read(slave, 100) == b"ls\n"
    assert r.session.output_open


def test_input_before_the_terminal_is_kept(rig):
    r = rig(terminal=True)
    sock = r.attach(stdin=True, early=b"one ")
    sock.sendall(b"two\n")
    r.run(seconds=0.01)
    slave = r.terminal()
    r.run(seconds=0.02)
    assert os.read(slave, 100) == b"one two\n"


def test_resize(rig):
    r = rig(terminal=True)
    slave = r.terminal()
    r.session.resize(33, 101)
    assert fcntl.ioctl(slave, 0x5413, b"\0" * 8)[:4] == struct.pack("HH", 33, 101)


@pytest.mark.parametrize("size", [(70000, 1), (1, 65536), (-1, 1)])
def test_a_size_that_no_terminal_has_is_refused(rig, size):
    r = rig(terminal=True)
    r.terminal()
    with pytest.raises(ValueError, match="no terminal has"):
        r.session.resize(*size)


def test_resize_without_terminal(rig):
    with pytest.raises(OSError, match="Inappropriate ioctl"):
        rig().session.resize(1, 1)


def test_finish_flushes_then_shuts_down_without_a_reset(rig):
    r = rig()
    sock = r.attach(stdin=True)
    r.write(1, b"last words")
    sock.sendall(b"never read")
    r.session.drain()
    r.session.finish()
    r.run(seconds=0.08)
    assert sock.recv(100) == frame(1, b"last words")
    assert sock.recv(100) == b""
    assert r.log.written[-1] == "closed"


def test_abandon_leaves_the_stream_usable(rig):
    r = rig()
    ours, theirs = socket.socketpair()
    r.sockets += [ours, theirs]
    r.session.attach(os.dup(theirs.fileno()), AttachOptions())
    r.session.abandon()
    theirs.sendall(b"why it failed")
    assert ours.recv(100) == b"why it failed"


def test_unread_input_and_hangup_do_not_spin(rig):
    """A closed client with its output held up must not be reported again and again."""
    r = rig()
    sock = r.attach(stdin=True)
    sock.sendall(b"x" * 100_000)
    r.run(seconds=0.02)
    sock.close()
    started = time.process_time()
    r.run(seconds=0.2)
    assert time.process_time() - started < 0.1
