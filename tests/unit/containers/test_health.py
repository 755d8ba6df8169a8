"""What follows from health checks."""

import pytest

from wherry.containers import health
from wherry.containers.health import SECOND, Health, Result
from wherry.models.container import ContainerConfig, HealthConfig


def plan(**more):
    return health.plan(ContainerConfig(healthcheck=HealthConfig(test=["CMD", "x"], **more)))


def result(code, begin=0):
    return Result(begin, begin + 1, code, "")


@pytest.mark.parametrize(
    ("test", "shell", "command"),
    [
        (None, None, None),
        ([], None, None),
        (["NONE"], None, None),
        (["CMD"], None, None),
        (["CMD", "ls", "-l"], None, ("ls", "-l")),
        (["CMD-SHELL", "ls -l"], None, ("/bin/sh", "-c", "ls -l")),
        (["CMD-SHELL", "ls -l"], ["/bin/bash", "-ec"], ("/bin/bash", "-ec", "ls -l")),
        (["OTHER", "x"], None, None),
    ],
)
def test_the_command(test, shell, command):
    found = health.plan(ContainerConfig(healthcheck=HealthConfig(test=test), shell=shell))
    assert (found.command if found else None) == command
    assert health.plan(ContainerConfig()) is None


def test_times_that_are_not_given():
    found = plan()
    assert (found.interval, found.timeout, found.start_period, found.start_interval) == (30, 30, 0, 5)
    assert found.retries == 3
    assert plan(interval=SECOND // 2, retries=7).interval == 0.5


def test_the_ways_between_the_states():
    chosen, state = plan(retries=2), Health()
    seen = []
    for code in (1, 0, 1, 1, 1, 0):
        changed = state.take(result(code), chosen, started_at=0)
        seen.append((state.status, state.streak, changed))
    assert seen == [
        ("starting", 1, False),
        ("healthy", 0, True),
        ("healthy", 1, False),
        ("unhealthy", 2, True),
        ("unhealthy", 3, False),
        ("healthy", 0, True),
    ]


def test_failures_in_the_start_period_do_not_count():
    chosen, state = plan(retries=1, start_period=10 * SECOND, start_interval=SECOND, interval=20 * SECOND), Health()
    assert not state.take(result(1, 9 * SECOND), chosen, started_at=0)
    assert (state.status, state.streak) == ("starting", 0)
    assert state.pause(chosen, 9 * SECOND) == 1
    assert state.pause(chosen, 10 * SECOND) == 20
    assert state.take(result(0, 9 * SECOND), chosen, started_at=0)
    assert state.pause(chosen, 9 * SECOND) == 20  # it has started
    assert state.take(result(1, 9 * SECOND), chosen, started_at=0)
    assert state.status == "unhealthy"


def test_the_last_five_are_shown():
    state = Health()
    for number in range(7):
        state.take(Result(number * SECOND, number * SECOND + 5, number, f"out {number}"), plan(), started_at=0)
    wire = state.to_wire()
    assert [each["ExitCode"] for each in wire["Log"]] == [2, 3, 4, 5, 6]
    assert wire["Log"][0] == {
        "Start": "1970-01-01T00:00:02Z", "End": "1970-01-01T00:00:02.000000005Z", "ExitCode": 2, "Output": "out 2",
    }  # fmt: skip
    assert (wire["Status"], wire["FailingStreak"]) == ("unhealthy", 6)


def test_what_is_left_open_comes_from_the_image():
    image = HealthConfig(test=["CMD", "a"], interval=SECOND, retries=9)
    asked = HealthConfig(timeout=5 * SECOND, retries=1)
    assert health.merge(asked, image) == HealthConfig(
        test=["CMD", "a"], interval=SECOND, timeout=5 * SECOND, retries=1
    )
    assert health.merge(None, image) == image
    assert health.merge(asked, None) == asked
    off = HealthConfig(test=["NONE"])
    assert health.plan(ContainerConfig(healthcheck=health.merge(off, image))) is None
