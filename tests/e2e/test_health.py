"""Health checks, through the unmodified CLI."""

import json
import os
import time

import pytest

from tests.engine import Engine, busybox_tar

pytestmark = [pytest.mark.root, pytest.mark.engine]

QUICK = ("--health-interval", "200ms", "--health-timeout", "2s")
SLEEP = ("busybox", "sleep", "1000")


def health_of(engine: Engine, name: str):
    return json.loads(engine.docker("inspect", "-f", "{{json .State.Health}}", name))


def until(engine: Engine, name: str, status: str, seconds: float = 15):
    deadline = time.monotonic() + seconds
    while (found := health_of(engine, name))["Status"] != status:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def shown(engine: Engine, name: str) -> str:
    return engine.docker("ps", "-a", "--filter", f"name={name}", "--format", "{{.Status}}")


def test_from_starting_to_healthy_to_unhealthy_and_back(engine: Engine):
    since = str(time.time())
    check = "echo looked; echo and said >&2; test ! -e /tmp/bad"
    engine.docker("run", "-d", "--name", "aa", "--health-interval", "1s", "--health-retries", "2",
                  "--health-cmd", check, *SLEEP)  # fmt: skip
    assert shown(engine, "aa").endswith("(health: starting)")
    found = until(engine, "aa", "healthy")
    assert found["FailingStreak"] == 0
    last = found["Log"][-1]
    assert (last["ExitCode"], last["Output"].splitlines()) == (0, ["looked", "and said"])
    assert shown(engine, "aa").endswith("(healthy)")
    assert engine.docker("ps", "-q", "--filter", "health=healthy") != ""
    assert engine.docker("ps", "-q", "--filter", "health=none") == ""
    engine.docker("exec", "aa", "touch", "/tmp/bad")
    assert until(engine, "aa", "unhealthy")["FailingStreak"] >= 2
    assert shown(engine, "aa").endswith("(unhealthy)")
    engine.docker("exec", "aa", "rm", "/tmp/bad")
    until(engine, "aa", "healthy")
    told = engine.docker(
        "events", "--since", since, "--until", str(time.time()), "--filter", "event=health_status",
        "--format", "{{.Action}}",
    )  # fmt: skip
    assert told.splitlines() == [f"health_status: {each}" for each in ("healthy", "unhealthy", "healthy")]
    time.sleep(3)
    assert len(health_of(engine, "aa")["Log"]) == 5


def test_a_check_that_takes_too_long_is_killed(engine: Engine):
    engine.docker("run", "-d", "--name", "aa", "--health-interval", "100ms", "--health-timeout", "500ms",
                  "--health-retries", "1", "--health-cmd", "echo so far; exec sleep 77", *SLEEP)  # fmt: skip
    found = until(engine, "aa", "unhealthy")
    assert (found["Log"][0]["ExitCode"], found["Log"][0]["Output"]) == (
        -1, "Health check exceeded timeout (500ms): so far\n",
    )  # fmt: skip
    time.sleep(2.5)  # four more checks: at most the last of them still runs
    assert int(engine.docker("exec", "aa", "sh", "-c", "ps | grep -c '[s]leep 77' || true")) <= 1


def test_a_check_that_cannot_run_is_a_failure(engine: Engine):
    engine.docker("run", "-d", "--name", "aa", *QUICK, "--health-retries", "1", "--health-cmd", "true", *SLEEP)
    until(engine, "aa", "healthy")
    body = {"Image": "busybox", "Cmd": ["sleep", "1000"],
            "Healthcheck": {"Test": ["CMD", "/nosuch"], "Interval": 100_000_000, "Retries": 1}}  # fmt: skip
    assert engine.api("POST", "/containers/create?name=bb", json.dumps(body))[0] == 201
    engine.docker("start", "bb")
    assert "no such file or directory" in until(engine, "bb", "unhealthy")["Log"][0]["Output"]


def test_much_output_is_cut(engine: Engine):
    check = "yes | head -c 100000"
    engine.docker("run", "-d", "--name", "aa", *QUICK, "--health-cmd", check, *SLEEP)
    output = until(engine, "aa", "healthy")["Log"][0]["Output"]
    assert (len(output), output.endswith("...")) == (4099, True)


def test_it_runs_as_the_container_does_and_ends_with_it(engine: Engine):
    engine.docker("run", "-d", "--name", "aa", "-u", "1234", "-e", "WORD=x", "-w", "/tmp", *QUICK,
                  "--health-cmd", 'echo "$(id -u) $WORD $PWD"', *SLEEP)  # fmt: skip
    assert until(engine, "aa", "healthy")["Log"][0]["Output"] == "1234 x /tmp\n"
    engine.docker("stop", "-t", "0", "aa")
    count = len(health_of(engine, "aa")["Log"])
    ended = health_of(engine, "aa")["Log"][-1]
    time.sleep(0.6)
    assert health_of(engine, "aa")["Log"][-1] == ended
    assert count >= 1
    engine.docker("start", "aa")
    assert until(engine, "aa", "healthy")["Log"][-1]["Start"] > ended["Start"]


def test_a_paused_container_is_not_asked(engine: Engine):
    engine.docker("run", "-d", "--name", "aa", *QUICK, "--health-cmd", "true", *SLEEP)
    until(engine, "aa", "healthy")
    engine.docker("pause", "aa")
    time.sleep(0.5)
    before = health_of(engine, "aa")["Log"][-1]
    time.sleep(0.7)
    assert health_of(engine, "aa")["Log"][-1] == before
    engine.docker("unpause", "aa")
    until(engine, "aa", "healthy")


def test_one_that_is_paused_or_has_ended_is_called_unhealthy_without_an_event(engine: Engine):
    since = str(time.time())
    engine.docker("run", "-d", "--name", "aa", *QUICK, "--health-cmd", "true", *SLEEP)
    until(engine, "aa", "healthy")
    engine.docker("pause", "aa")
    assert health_of(engine, "aa")["Status"] == "unhealthy"
    assert engine.docker("ps", "-q", "--filter", "health=unhealthy") != ""
    engine.docker("unpause", "aa")
    until(engine, "aa", "healthy")
    engine.docker("kill", "aa")
    ended = health_of(engine, "aa")
    assert (ended["Status"], ended["FailingStreak"]) == ("unhealthy", 0)
    engine.docker("start", "aa")
    assert until(engine, "aa", "healthy")["Log"][0] in ended["Log"]
    told = engine.docker("events", "--since", since, "--until", str(time.time()), "--filter", "event=health_status",
                         "--format", "{{.Action}}")  # fmt: skip
    assert told.splitlines() == ["health_status: healthy"] * 3


def test_no_check_and_one_that_is_taken_away(engine: Engine):
    engine.docker("run", "-d", "--name", "aa", *SLEEP)
    engine.docker("run", "-d", "--name", "bb", "--no-healthcheck", *SLEEP)
    for name in ("aa", "bb"):
        assert "Health" not in json.loads(engine.docker("inspect", "-f", "{{json .State}}", name))
    assert len(engine.docker("ps", "-q", "--filter", "health=none").split()) == 2


def test_an_image_can_have_one(engine: Engine):
    change = 'HEALTHCHECK --interval=200ms --retries=1 CMD test "$GOOD" = yes'
    tar = engine.data_root / "image.tar"
    tar.write_bytes(busybox_tar())
    engine.docker("import", "-c", change, str(tar), "checked")
    tar.unlink()
    engine.docker("run", "-d", "--name", "good", "-e", "GOOD=yes", "checked", "sleep", "1000")
    engine.docker("run", "-d", "--name", "bad", "checked", "sleep", "1000")
    until(engine, "good", "healthy")
    until(engine, "bad", "unhealthy")


def test_after_a_restart_of_the_engine(own_engine: Engine):
    engine = own_engine
    engine.start()
    engine.import_busybox()
    engine.docker("run", "-d", "--name", "aa", *QUICK, "--health-cmd", "true", *SLEEP)
    until(engine, "aa", "healthy")
    engine.crash()
    engine.start()
    until(engine, "aa", "healthy")


def test_what_executes_it_is_seen_by_xray_but_not_by_top(engine: Engine):
    engine.docker("run", "-d", "--name", "aa", *QUICK, "--health-cmd", "set -- /proc/[0-9]*; echo $#", *SLEEP)
    assert until(engine, "aa", "healthy")["Log"][0]["Output"] == "2\n"  # process 1 and sh
    rows = engine.docker("top", "aa", "-eo", "pid,args").splitlines()[1:]
    assert [row.split(None, 1)[1] for row in rows if "/proc/[0-9]" not in row] == ["sleep 1000"]
    entries = json.loads(engine.api("GET", "/wherry/v1/containers/aa/xray")[1])["Processes"]["Entries"]
    (starter,) = [each for each in entries if each["Role"] == "starter"]
    assert (starter["Name"], starter["Inside"]) == ("wherry-start", 0)
    engine.docker("rm", "-f", "aa")
    with pytest.raises(ProcessLookupError):
        os.kill(starter["Pid"], 0)


def test_where_no_starter_can_be_it_is_an_exec(engine: Engine):
    engine.docker("run", "-d", "--name", "aa", "--pid", "host", *QUICK, "--health-cmd", "echo said", *SLEEP)
    assert until(engine, "aa", "healthy")["Log"][0]["Output"] == "said\n"


def test_events_of_each_check(engine: Engine):
    since = str(time.time())
    engine.docker("run", "-d", "--name", "aa", *QUICK, "--health-cmd", "exit 3", "--health-retries", "1", *SLEEP)
    until(engine, "aa", "unhealthy")
    told = engine.docker("events", "--since", since, "--until", str(time.time()), "--filter", "container=aa",
                         "--format", "{{.Action}} {{.Actor.Attributes.exitCode}}").splitlines()  # fmt: skip
    first = told.index("exec_create: /bin/sh -c exit 3 <no value>")
    assert told[first : first + 4] == [
        "exec_create: /bin/sh -c exit 3 <no value>", "exec_start: /bin/sh -c exit 3 <no value>", "exec_die 3",
        "health_status: unhealthy <no value>",
    ]  # fmt: skip
