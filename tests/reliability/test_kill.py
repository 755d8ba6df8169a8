"""kill -9 of the engine, the zygote and supervisors while containers run."""

import os
import signal
import time

import pytest

from tests.engine import Engine

pytestmark = [pytest.mark.root, pytest.mark.engine]


def test_ten_containers_outlive_engine_and_zygote(own_engine: Engine):
    own_engine.start()
    own_engine.import_busybox()
    names = [f"c{number}" for number in range(10)]
    for name in names:
        own_engine.docker("run", "-d", "--name", name, "busybox", "sh", "-c", f"echo from-{name}; sleep 1000")
    own_engine.docker("run", "-d", "--name", "ends", "busybox", "sh", "-c", "sleep 1; exit 42")
    pids = {name: own_engine.docker("inspect", "-f", "{{.State.Pid}}", name) for name in names}
    zygote = own_engine.zygote()
    own_engine.crash()
    try:
        os.kill(zygote, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it saw the end of the engine first
    time.sleep(1.5)
    own_engine.start()
    assert sorted(own_engine.docker("ps", "--format", "{{.Names}}").split()) == sorted(names)
    for name in names:
        assert own_engine.docker("inspect", "-f", "{{.State.Pid}}", name) == pids[name]
        assert own_engine.docker("logs", name) == f"from-{name}"
        assert own_engine.docker("exec", name, "echo", "in") == "in"
    assert own_engine.docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "ends") == "exited 42"
    own_engine.docker("stop", "-t", "0", *names)
    assert own_engine.docker("ps", "-q") == ""
    assert own_engine.docker("run", "--rm", "busybox", "echo", "again") == "again"


def test_a_killed_zygote_is_replaced(own_engine: Engine):
    own_engine.start()
    own_engine.import_busybox()
    own_engine.docker("run", "-d", "--name", "aa", "busybox", "sleep", "1000")
    os.kill(own_engine.zygote(), signal.SIGKILL)
    time.sleep(0.5)
    assert own_engine.docker("run", "--rm", "busybox", "echo", "hi") == "hi"
    assert own_engine.docker("exec", "aa", "echo", "in") == "in"


def test_a_killed_supervisor_ends_its_container_with_137(own_engine: Engine):
    own_engine.start()
    own_engine.import_busybox()
    own_engine.docker("run", "-d", "--name", "aa", "busybox", "sleep", "1000")
    pid = int(own_engine.docker("inspect", "-f", "{{.State.Pid}}", "aa"))
    with open(f"/proc/{pid}/stat") as stat:
        supervisor = int(stat.read().rpartition(")")[2].split()[1])
    os.kill(supervisor, signal.SIGKILL)
    deadline = time.monotonic() + 2
    while own_engine.docker("inspect", "-f", "{{.State.Running}}", "aa") == "true":
        assert time.monotonic() < deadline, "still running two seconds later"
        time.sleep(0.05)
    assert own_engine.docker("inspect", "-f", "{{.State.ExitCode}}", "aa") == "137"
    with pytest.raises(OSError, match=r"No such file|No such process"):
        os.readlink(f"/proc/{pid}/exe")  # gone, or a zombie that init has not reaped yet


def test_sigterm_leaves_nothing_when_nothing_runs(own_engine: Engine):
    own_engine.start()
    own_engine.import_busybox()
    own_engine.docker("run", "--rm", "busybox", "true")
    assert own_engine.stop() == 0
    assert not own_engine.socket.exists()
    assert not os.path.exists(f"/sys/class/net/{own_engine.bridge}")
    own_engine.start()
    assert own_engine.docker("images", "--format", "{{.Repository}}") == "busybox"


def test_two_engines_side_by_side(own_engine: Engine):
    other = Engine()
    try:
        for engine in (own_engine, other):
            engine.start()
            engine.import_busybox()
            engine.docker("run", "-d", "--name", "same", "busybox", "sleep", "1000")
        subnets = {
            engine.docker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", "bridge")
            for engine in (own_engine, other)
        }
        assert len(subnets) == 2
        own_engine.docker("rm", "-f", "same")
        assert other.docker("exec", "same", "echo", "unhurt") == "unhurt"
    finally:
        other.destroy()


def test_a_second_engine_on_the_same_root_is_refused(own_engine: Engine):
    own_engine.start()
    second = Engine()
    second.data_root = own_engine.data_root
    with pytest.raises(AssertionError, match="another wherryd uses"):
        second.start()
    second.data_root = second.root / "data"
    second.destroy()
