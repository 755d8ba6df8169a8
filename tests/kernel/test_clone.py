"""Children that are born in a control group, and processes that move themselves without waiting for RCU."""

import errno
import os
import threading
import time
import uuid

import pytest

from wherry.kernel.clone import fork_into
from wherry.runtime import cgroups

pytestmark = pytest.mark.root


@pytest.fixture
def group():
    made = cgroups.Cgroup.create(f"/wherry-clone-{uuid.uuid4().hex}", {})
    yield made
    made.kill()
    made.remove()


@pytest.fixture
def unified(group):
    if not group._unified:
        pytest.skip("no cgroup2 file system is mounted")
    fd = os.open(group._unified, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def in_child(fork, report):
    """Fork, and return what `report()` says in the child."""
    read, write = os.pipe()
    pid = fork()
    if pid == 0:
        os.write(write, report().encode())
        os._exit(7)
    os.close(write)
    text = b"".join(iter(lambda: os.read(read, 4096), b"")).decode()
    os.close(read)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    return text


def memberships():
    with open("/proc/self/cgroup", encoding="ascii") as file:
        return file.read()


def test_child_is_born_in_the_group(group, unified):
    assert f"0::{group.path}\n" in in_child(lambda: fork_into(unified), memberships)
    assert group.path not in memberships()


def test_child_has_a_working_interpreter(unified):
    def report():
        done = []
        thread = threading.Thread(target=lambda: done.append(threading.get_ident()))
        thread.start()
        thread.join()
        return f"{len(done)} {threading.main_thread() is threading.current_thread()} {sum(range(100000))}"

    assert in_child(lambda: fork_into(unified), report) == "1 True 4999950000"


def test_removed_group(group, unified):
    group.remove()
    with pytest.raises(OSError, match="clone3") as caught:
        fork_into(unified)
    assert caught.value.errno == errno.ENOENT
    assert group.path in caught.value.filename


def test_fork_and_join_put_the_child_everywhere(group):
    def report():
        group.join()
        return memberships()

    lines = in_child(group.fork, report).splitlines()
    assert len(lines) >= len(group.directories)
    assert sum(line.endswith(f":{group.path}") for line in lines) == len(group.directories)


def test_join_without_fork(group):
    def report():
        group.join()
        return memberships()

    assert in_child(os.fork, report).count(group.path) == len(group.directories)


def test_fork_without_clone3(group, monkeypatch):
    def refuse(fd):
        raise OSError(errno.ENOSYS, "clone3")

    monkeypatch.setattr(cgroups, "fork_into", refuse)

    def report():
        group.join()
        return memberships()

    assert in_child(group.fork, report).count(group.path) == len(group.directories)


def test_joining_does_not_wait_for_rcu(group, unified):
    """A write to cgroup.procs takes 8 to 12 ms after a pause; the median is far from that."""

    def report():
        start = time.perf_counter()
        group.join()
        return f"{time.perf_counter() - start}"

    took = []
    for _ in range(9):
        time.sleep(0.05)  # the kernel's lock goes back to its slow start
        took.append(float(in_child(group.fork, report)))
    assert sorted(took)[4] < 0.004
