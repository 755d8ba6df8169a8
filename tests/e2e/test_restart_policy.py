"""--restart: containers that are started again, through the unmodified CLI."""

import json
import os
import signal
import time

import pytest

from tests.engine import Engine
from tests.waiting import until as until_so

pytestmark = [pytest.mark.root, pytest.mark.engine]


def state_of(engine: Engine, name: str):
    state, count = engine.docker("inspect", "-f", "{{json .State}}|{{.RestartCount}}", name).split("|")
    return json.loads(state), int(count)


def until(engine: Engine, name: str, holds, seconds: float = 15):
    deadline = time.monotonic() + seconds
    while not holds(*state_of(engine, name)):
        assert time.monotonic() < deadline, state_of(engine, name)
        time.sleep(0.05)


def waiting(state, count):
    return state["Status"] == "restarting"


def test_on_failure_counts_and_gives_up(engine: Engine):
    since = str(time.time())
    engine.docker("run", "-d", "--name", "aa", "--restart", "on-failure:2", "busybox", "sh", "-c", "echo run; exit 3")
    assert engine.docker("wait", "aa") == "3"
    state, count = state_of(engine, "aa")
    assert (state["Status"], state["ExitCode"], count) == ("exited", 3, 2)
    assert engine.docker("logs", "aa").split() == ["run"] * 3
    told = engine.docker(
        "events", "--since", since, "--until", str(time.time()), "--filter", "container=aa", "--format", "{{.Action}}"
    )
    assert told.split() == ["create", *["start", "die"] * 3]
    engine.docker("start", "aa")
    engine.docker("wait", "aa")
    assert state_of(engine, "aa")[1] == 2  # counted from nothing again


def test_success_is_no_failure(engine: Engine):
    engine.docker("run", "-d", "--name", "aa", "--restart", "on-failure", "busybox", "true")
    assert engine.docker("wait", "aa") == "0"
    time.sleep(0.4)
    state, count = state_of(engine, "aa")
    assert (state["Status"], count) == ("exited", 0)


def test_a_program_that_dies_is_another_process_after(engine: Engine):
    engine.docker("run", "-d", "--name", "aa", "--restart", "always", "busybox", "sleep", "1000")
    first = state_of(engine, "aa")[0]["Pid"]
    os.kill(first, signal.SIGKILL)
    until(engine, "aa", lambda state, count: state["Status"] == "running" and state["Pid"] not in (0, first))
    assert engine.docker("exec", "aa", "cat", "/proc/1/comm") == "sleep"
    assert state_of(engine, "aa")[1] == 1
    engine.docker("stop", "-t", "0", "aa")
    time.sleep(0.5)
    assert state_of(engine, "aa")[0]["Status"] == "exited"


@pytest.mark.parametrize("words", [("stop",), ("kill",), ("stop", "-s", "USR1")])
def test_what_somebody_ends_stays_ended(engine: Engine, words):
    script = "trap 'exit 5' USR1; while :; do sleep 0.05; done"
    engine.docker("run", "-d", "--name", "aa", "--restart", "always", "busybox", "sh", "-c", script)
    time.sleep(0.2)
    engine.docker(*words, *(["-t", "1"] if words[0] == "stop" else []), "aa")
    time.sleep(0.5)
    state, count = state_of(engine, "aa")
    assert (state["Status"], count) == ("exited", 0)


def test_while_it_waits(engine: Engine):
    engine.docker("run", "-d", "--name", "aa", "--restart", "always", "busybox", "sh", "-c", "exit 3")
    until(engine, "aa", lambda state, count: count >= 4 and waiting(state, count))
    state, _ = state_of(engine, "aa")
    assert (state["Running"], state["Restarting"], state["Pid"], state["ExitCode"]) == (True, True, 0, 3)
    assert engine.docker("ps", "--format", "{{.Status}}").startswith("Restarting (3) ")
    text = "is restarting, wait until the container is running"
    for words in (("exec", "aa", "true"), ("pause", "aa"), ("top", "aa")):
        assert text in engine.run(*words).stderr, words
    assert engine.api("POST", "/containers/aa/attach?stream=1")[0] == 409
    refused = engine.run("rm", "aa").stderr
    assert 'cannot remove container "aa": container is restarting: stop the container before' in refused
    assert engine.api("POST", "/containers/aa/start")[0] == 304
    engine.docker("stop", "aa")
    state, _ = state_of(engine, "aa")
    assert (state["Status"], state["Running"], state["ExitCode"]) == ("exited", False, 3)
    time.sleep(1)
    assert state_of(engine, "aa")[0]["Status"] == "exited"
    engine.docker("start", "aa")
    until(engine, "aa", waiting)
    engine.docker("rm", "-f", "aa")
    assert engine.docker("ps", "-aq") == ""


def test_a_start_that_fails_is_the_end_of_it(engine: Engine, tmp_path):
    (tmp_path / "file").touch()
    engine.docker(
        "run", "-d", "--name", "aa", "--restart", "always", "-v", f"{tmp_path}/file:/f", "busybox", "sleep", "1000"
    )
    (tmp_path / "file").unlink()
    (tmp_path / "file").mkdir()
    os.kill(state_of(engine, "aa")[0]["Pid"], signal.SIGKILL)
    until(engine, "aa", lambda state, count: state["Status"] == "exited")
    assert state_of(engine, "aa")[0]["Error"] != ""


def test_logs_are_followed_over_restarts(engine: Engine):
    engine.docker("run", "-d", "--name", "aa", "--restart", "on-failure:2", "busybox", "sh", "-c", "echo run; exit 1")
    assert engine.docker("logs", "-f", "aa").split() == ["run"] * 3


@pytest.mark.parametrize("clean", [True, False])
def test_after_a_restart_of_the_engine(own_engine: Engine, clean):
    engine = own_engine
    engine.start()
    engine.import_busybox()
    sleeping = ("busybox", "sleep", "1000")
    engine.docker("run", "-d", "--name", "going", "--restart", "always", *sleeping)
    for name, policy in (("always", "always"), ("stopped", "unless-stopped"), ("never", "no")):
        engine.docker("run", "-d", "--name", name, "--restart", policy, *sleeping)
        engine.docker("stop", "-t", "0", name)
    engine.docker("create", "--name", "fresh", "--restart", "always", *sleeping)
    engine.docker("run", "-d", "--name", "pausing", "--restart", "always", "busybox", "sh", "-c", "exit 3")
    until(engine, "pausing", lambda state, count: count >= 3)
    before = state_of(engine, "going")[0]["Pid"]
    engine.stop() if clean else engine.crash()
    engine.start()
    until(engine, "always", lambda state, count: state["Status"] == "running")
    count = state_of(engine, "pausing")[1]
    until(engine, "pausing", lambda state, now: now > count)
    assert state_of(engine, "going")[0]["Pid"] == before
    for name, status in (("stopped", "exited"), ("never", "exited"), ("fresh", "created")):
        assert state_of(engine, name)[0]["Status"] == status


def test_an_engine_that_stops_its_containers_starts_them_again(own_engine: Engine):
    engine = own_engine
    engine.start()
    engine.import_busybox()
    engine.docker("run", "-d", "--name", "aa", "--restart", "unless-stopped", "busybox", "sleep", "1000")
    engine.stop()
    (engine.root / "daemon.json").write_text('{"live-restore": false}')
    engine.start()
    first = state_of(engine, "aa")[0]["Pid"]
    engine.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    engine.start()
    until(engine, "aa", lambda state, count: state["Status"] == "running" and state["Pid"] != first)


def test_an_unhealthy_one_is_started_again(engine: Engine):
    """The health of each run is a file of its own; the second run is well."""
    script = "echo run >>/runs; trap 'exit 0' TERM; while :; do sleep 0.1; done"
    check = "[ $(wc -l </runs) -gt 1 ]"
    flags = ["--health-cmd", check, "--health-interval", "100ms", "--health-retries", "2"]
    engine.docker("run", "-d", "--name", "aa", "--restart", "on-unhealthy", *flags, "busybox", "sh", "-c", script)
    until_so(lambda: engine.docker("inspect", "-f", "{{.State.Health.Status}}", "aa") == "healthy")
    assert engine.docker("inspect", "-f", "{{.RestartCount}}", "aa") == "1"
    engine.docker("run", "-d", "--name", "bb", *flags, "busybox", "sh", "-c", script)  # without it: only told
    until_so(lambda: engine.docker("inspect", "-f", "{{.State.Health.Status}}", "bb") == "unhealthy")
    assert engine.docker("inspect", "-f", "{{.State.Status}} {{.RestartCount}}", "bb") == "running 0"
    engine.docker("stop", "-t", "0", "aa")
    assert engine.docker("inspect", "-f", "{{.State.Status}}", "aa") == "exited"


def test_one_that_is_never_well_is_given_up(engine: Engine):
    flags = ["--health-cmd", "false", "--health-interval", "50ms", "--health-retries", "1", "--stop-timeout", "0"]
    engine.docker("run", "-d", "--name", "aa", "--restart", "on-unhealthy:2", *flags, "busybox", "sleep", "1000")
    until_so(lambda: engine.docker("inspect", "-f", "{{.State.Status}}", "aa") == "exited")
    assert engine.docker("inspect", "-f", "{{.RestartCount}} {{.State.ExitCode}}", "aa") == "2 137"
