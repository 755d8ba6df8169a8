"""A fast flow gets a large pipe and is read in large pieces; no other flow is touched, and the pipe does not last."""

import fcntl
import os
import subprocess
import time

import pytest

from wherry.runtime import flow as flow_module
from wherry.runtime.flow import NORMAL, WIDE, Flow
from wherry.runtime.poller import READ, Poller


class Reader:
    """Reads a pipe as a session does."""

    def __init__(self):
        self.poller = Poller()
        self.fd, self.write_end = os.pipe2(os.O_CLOEXEC)
        self.flow = Flow(self.poller, self.fd)
        self.reads = self.size = 0
        self.sizes = set()
        self.ended = False
        os.set_blocking(self.fd, False)
        self.poller.watch(self.fd, READ, self.read)

    def read(self, events):
        data = os.read(self.fd, 1 << 16)
        self.reads += 1
        self.size += len(data)
        self.ended = not data
        if data:
            self.flow.passed(len(data), emptied=len(data) < 1 << 16)
            self.sizes.add(self.pipe_size)
        else:
            self.poller.forget(self.fd)

    @property
    def pipe_size(self):
        return fcntl.fcntl(self.fd, fcntl.F_GETPIPE_SZ)

    def close(self):
        self.flow.close()
        self.poller.close()
        os.close(self.fd)


@pytest.fixture
def reader(monkeypatch):
    monkeypatch.setattr(flow_module, "CALM", 0.05)
    reader = Reader()
    yield reader
    reader.close()


def writes(reader, script):
    """Let a child write into the pipe."""
    child = subprocess.Popen(["busybox", "sh", "-c", script], stdout=reader.write_end)
    os.close(reader.write_end)
    return child


def test_a_fast_flow_is_read_in_large_pieces_and_its_pipe_shrinks_again(reader):
    child = writes(reader, "yes 0123456789 | head -n 3000000; sleep 1")
    reader.poller.run_for(20, until=lambda: reader.size == 33_000_000)
    assert WIDE in reader.sizes
    assert reader.size / reader.reads > 8000  # without a pause some 4000, what the program writes at a time
    reader.poller.run_for(5, until=lambda: reader.pipe_size == NORMAL)
    assert reader.pipe_size == NORMAL
    assert not reader.ended  # it shrank because nothing came, not because it was over
    child.kill()
    child.wait()


def test_a_flow_of_answers_is_never_waited_for(reader, monkeypatch):
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    child = writes(reader, "i=0; while [ $i -lt 3000 ]; do echo answer $i; i=$((i+1)); done")
    reader.poller.run_for(20, until=lambda: reader.ended)
    child.wait()
    assert reader.size > 30_000
    assert pauses == []
    assert reader.sizes == {NORMAL}


def test_what_is_left_in_the_pipe_keeps_it_large(reader):
    reader.flow._widen()
    os.write(reader.write_end, b"x" * (WIDE - 4096))
    reader.poller.forget(reader.fd)
    reader.poller.run_for(0.2, until=lambda: False)
    assert reader.pipe_size == WIDE
    os.read(reader.fd, WIDE)
    reader.poller.run_for(5, until=lambda: reader.pipe_size == NORMAL)
    assert reader.pipe_size == NORMAL
    os.close(reader.write_end)
