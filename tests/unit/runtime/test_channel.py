"""Messages with descriptors over SEQPACKET."""

import os
import socket

import pytest

from wherry.runtime import channel


@pytest.fixture
def ends():
    ours, theirs = channel.pair()
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize("size", [0, 10, channel.INLINE, 3_000_000])
def test_any_size_arrives_whole(ends, size):
    message = {"text": "é" * size, "list": [1, None, True]}
    channel.send(ends[0], message)
    assert channel.receive(ends[1]) == (message, [])


@pytest.mark.parametrize("size", [10, 200_000])
def test_descriptors_arrive_in_order_and_close_on_exec(ends, size):
    pipes = [os.pipe() for _ in range(3)]
    try:
        channel.send(ends[0], {"pad": "x" * size}, [write for _, write in pipes])
        message, fds = channel.receive(ends[1])
        assert len(message["pad"]) == size
        assert not any(os.get_inheritable(fd) for fd in fds)
        for number, fd in enumerate(fds):
            os.write(fd, b"%d" % number)
            os.close(fd)
        assert [os.read(read, 10) for read, _ in pipes] == [b"0", b"1", b"2"]
    finally:
        for fds in pipes:
            for fd in fds:
                os.close(fd)


def test_end_of_the_peer(ends):
    channel.send(ends[1], {"unread": 1})
    ends[1].close()
    channel.receive(ends[0])
    with pytest.raises(EOFError):
        channel.receive(ends[0])
    with pytest.raises(BrokenPipeError):
        channel.send(ends[0], {})


def test_peer_that_left_a_message_unread_is_an_end_too(ends):
    channel.send(ends[0], {"unread": 1})
    ends[1].close()
    with pytest.raises(EOFError):
        channel.receive(ends[0])


def fill(sock):
    while True:
        channel.send(sock, {"pad": "x" * 1000})


def test_full_socket_does_not_block(ends):
    ends[0].setblocking(False)
    with pytest.raises(BlockingIOError):
        fill(ends[0])


def test_descriptors_of_a_wrong_message_are_closed(ends):
    before = len(os.listdir("/proc/self/fd"))
    socket.send_fds(ends[0], [b"[]"], [ends[0].fileno()])
    with pytest.raises(ValueError, match="object"):
        channel.receive(ends[1])
    assert len(os.listdir("/proc/self/fd")) == before
