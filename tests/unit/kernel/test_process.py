"""Wrappers that an ordinary user can call: capabilities, descriptors, terminals, pidfds."""

import os
import signal
import threading

import pytest

from tests.forked import forked
from wherry.kernel import caps, fds, libc, pidfd, process, terminal
from wherry.supervision import remains


def status(field):
    with open("/proc/self/status") as file:
        return next(line.split()[1] for line in file if line.startswith(field))


def test_capability_sets_are_those_of_procfs():
    effective, permitted, inheritable = caps.get()
    assert effective == int(status("CapEff"), 16)
    assert permitted == int(status("CapPrm"), 16)
    assert inheritable == int(status("CapInh"), 16)
    assert caps.bounding() == int(status("CapBnd"), 16)


def test_names_and_bits():
    assert caps.mask(["CAP_CHOWN", "CAP_CHECKPOINT_RESTORE"]) == 1 | 1 << 40
    assert caps.names(1 | 1 << 40) == ["CAP_CHOWN", "CAP_CHECKPOINT_RESTORE"]
    with pytest.raises(OSError, match="unknown capability") as caught:
        caps.mask(["CAP_NOPE"])
    assert caught.value.filename == "CAP_NOPE"


def test_close_except():
    def work():
        kept = [os.dup(0) for _ in range(6)][::2]
        report = os.dup(1)
        fds.close_except({0, 1, 2, *kept, report})
        left = []
        for fd in range(64):
            try:
                os.fstat(fd)
                left.append(fd)
            except OSError:
                pass
        return left == sorted({0, 1, 2, *kept, report})

    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(writer, 1)
        os.write(1, str(work()).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as file:
        assert file.read() == "True"
    os.waitpid(pid, 0)


def test_install_stdio_in_any_order():
    """The sources may be the very numbers that are being replaced."""

    def work():
        numbers = []
        for order in ((2, 0, 1), (1, 2, 0)):
            pipes = [os.open("/dev/null", os.O_RDWR) for _ in range(3)]
            files = [os.memfd_create(str(index)) for index in range(3)]
            fds.install_stdio(files)
            before = [os.fstat(fd).st_ino for fd in range(3)]
            fds.install_stdio(order)
            numbers.append([before[index] for index in order] == [os.fstat(fd).st_ino for fd in range(3)])
            fds.close_range(min(pipes), max(pipes))
        return numbers

    assert forked(work) == "[True, True]"


def test_terminal_by_descriptor():
    devpts = os.open("/dev/pts", os.O_PATH)
    master = terminal.open_master(devpts)
    peer = terminal.open_peer(master)
    try:
        terminal.set_size(master, 11, 22)
        assert os.get_terminal_size(peer) == (22, 11)
        assert os.ttyname(peer) == f"/dev/pts/{terminal.number(master)}"
    finally:
        for fd in (peer, master, devpts):
            os.close(fd)


def test_only_a_multiplexer_makes_terminals(tmp_path):
    (tmp_path / "ptmx").write_text("")
    folder = os.open(tmp_path, os.O_PATH)
    try:
        with pytest.raises(OSError, match="multiplexer"):
            terminal.open_master(folder)
        (tmp_path / "ptmx").unlink()
        (tmp_path / "ptmx").symlink_to("/dev/ptmx")
        with pytest.raises(OSError, match="symbolic links"):
            terminal.open_master(folder)
    finally:
        os.close(folder)


def test_pidfd_tells_the_end():
    pid = os.fork()
    if pid == 0:
        signal.pause()
    fd = pidfd.pidfd_open(pid)
    try:
        assert not pidfd.has_ended(fd)
        pidfd.pidfd_send_signal(fd, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert pidfd.has_ended(fd)
        os.waitpid(pid, 0)
        with pytest.raises(ProcessLookupError, match="pidfd_send_signal"):
            pidfd.pidfd_send_signal(fd, signal.SIGTERM)
    finally:
        os.close(fd)


def test_dumpable():
    def work():
        process.set_dumpable(False)
        return process.prctl(3)  # PR_GET_DUMPABLE

    assert forked(work) == "0"


def test_failures_name_the_call():
    with pytest.raises(OSError, match="prctl 9999: Invalid argument"):
        process.prctl(9999)
    assert str(libc.failure("x", "/p")).endswith("'/p'")


def test_oom_score():
    def work():
        process.set_oom_score(77)
        with open("/proc/self/oom_score_adj") as file:
            return process.oom_score(), file.read()

    assert forked(work) == "(77, '77\\n')"


def test_a_process_id_that_is_a_threads_now_is_no_process():
    """Ids of processes that ended are given to threads too: an engine that looks for what it ran must see "gone"."""
    ready, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: (ready.set(), done.wait()))
    thread.start()
    try:
        ready.wait()
        assert thread.native_id is not None
        with pytest.raises(ProcessLookupError, match="pidfd_open"):
            pidfd.pidfd_open(thread.native_id)
        assert remains.open_process(thread.native_id, 1) is None
        remains.kill_supervisor(thread.native_id)
    finally:
        done.set()
        thread.join()
