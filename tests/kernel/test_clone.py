"""Children that are born in a control group, and processes that move themselves without waiting for RCU."""

import errno
import os
import subprocess
import threading
import time
import uuid

import pytest

from wherry.kernel.cgroup import Hierarchy
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
def unified(tmp_path):
    """A layout of version 2, whatever the machine's is: the hierarchy of cgroup2 is always there."""
    mount = tmp_path / "cgroup2"
    mount.mkdir()
    subprocess.run(["mount", "-t", "cgroup2", "none", mount], check=True)
    yield cgroups.Layout(2, (Hierarchy(str(mount), (), unified=True),))
    subprocess.run(["umount", mount], check=True)


@pytest.fixture
def born(unified):
    made = cgroups.Cgroup.open(f"/wherry-clone-{uuid.uuid4().hex}", layout=unified)
    os.mkdir(made.directories[0])
    yield made
    made.remove()


@pytest.fixture
def directory(born):
    fd = os.open(born.directories[0], os.O_PATH | os.O_DIRECTORY)
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


def test_child_is_born_in_the_group(born, directory):
    assert f"0::{born.path}\n" in in_child(lambda: fork_into(directory), memberships)
    assert born.path not in memberships()


def test_child_has_a_working_interpreter(directory):
    def report():
        done = []
        thread = threading.Thread(target=lambda: done.append(threading.get_ident()))
        thread.start()
        thread.join()
        return f"{len(done)} {threading.main_thread() is threading.current_thread()} {sum(range(100000))}"

    assert in_child(lambda: fork_into(directory), report) == "1 True 4999950000"


def test_removed_group(born, directory):
    born.remove()
    with pytest.raises(FileNotFoundError, match="clone3") as caught:
        fork_into(directory)
    assert born.path in caught.value.filename


def joined(group, fork):
    def report():
        group.join()
        return memberships()

    return in_child(fork, report).splitlines()


@pytest.mark.parametrize("clone3", [True, False])
def test_fork_and_join_of_version_2(born, monkeypatch, clone3):
    def refuse(fd):
        raise OSError(errno.ENOSYS, "clone3")

    if not clone3:
        monkeypatch.setattr(cgroups, "fork_into", refuse)
    assert f"0::{born.path}" in joined(born, born.fork)


def test_fork_and_join_of_all_hierarchies(group):
    lines = joined(group, group.fork)
    assert sum(line.endswith(f":{group.path}") for line in lines) == len(group.directories)


def test_join_without_fork(group):
    lines = joined(group, os.fork)
    assert sum(line.endswith(f":{group.path}") for line in lines) == len(group.directories)


@pytest.mark.parametrize("version", ["machine", 2])
def test_joining_does_not_wait_for_rcu(request, version):
    """A write to cgroup.procs takes 8 to 12 ms after a pause; the quickest of some is far from that."""
    group = request.getfixturevalue("born" if version == 2 else "group")

    def report():
        start = time.perf_counter()
        group.join()
        return f"{time.perf_counter() - start}"

    took = []
    for _ in range(9):
        time.sleep(0.05)  # the kernel's lock goes back to its slow start
        took.append(float(in_child(group.fork, report)))
    assert sorted(took)[2] < 0.004
