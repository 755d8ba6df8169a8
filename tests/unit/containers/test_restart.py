"""When a restart policy starts a container again."""

import pytest

from wherry.containers import restart
from wherry.containers.state import State
from wherry.errors import InvalidArgument
from wherry.models.container import RestartPolicy

RAN = State(status="running", started_at=1)


@pytest.mark.parametrize(
    ("policy", "code", "count", "again"),
    [
        (("", 0), 1, 0, False),
        (("no", 0), 1, 0, False),
        (("always", 0), 0, 900, True),
        (("unless-stopped", 0), 0, 900, True),
        (("on-failure", 0), 0, 0, False),
        (("on-failure", 0), 3, 900, True),
        (("on-failure", 2), 3, 1, True),
        (("on-failure", 2), 3, 2, False),
    ],
)
def test_after_an_end(policy, code, count, again):
    state = State(status="running", started_at=1, restart_count=count)
    assert restart.after_end(RestartPolicy(*policy), state, code) is again
    stopped = State(status="running", started_at=1, restart_count=count, stopped_by_user=True)
    assert restart.after_end(RestartPolicy(*policy), stopped, code) is False


@pytest.mark.parametrize(
    ("name", "stopped", "code", "again"),
    [
        ("always", True, 0, True),
        ("always", False, 0, True),
        ("unless-stopped", True, 137, False),
        ("unless-stopped", False, 0, True),
        ("on-failure", False, 0, False),
        ("on-failure", False, 1, True),
        ("on-failure", True, 137, False),
        ("no", False, 1, False),
    ],
)
def test_at_the_start_of_the_engine(name, stopped, code, again):
    state = State(status="exited", started_at=1, exit_code=code, stopped_by_user=stopped)
    assert restart.at_boot(RestartPolicy(name), state) is again
    assert restart.at_boot(RestartPolicy(name), State(exit_code=code)) is False  # it was never started


def test_pauses_double_up_to_a_minute_and_begin_anew_after_a_steady_run():
    pauses, last = [], 0.0
    for _ in range(12):
        last = restart.pause(last, 0.5)
        pauses.append(last)
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8]
    assert pauses[-2:] == [60.0, 60.0]
    assert restart.pause(60.0, 10.0) == 0.1


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        (("sometimes", 0), "unknown policy 'sometimes'"),
        (("always", 3), "can only be used with 'on-failure'"),
        (("", 3), "can only be used with 'on-failure'"),
        (("always", -3), "can only be used with 'on-failure' and cannot be negative"),
        (("on-failure", -1), "maximum retry count cannot be negative"),
    ],
)
def test_policies_that_cannot_be(policy, text):
    with pytest.raises(InvalidArgument, match=text):
        restart.check(RestartPolicy(*policy))


@pytest.mark.parametrize("policy", [("", 0), ("no", 0), ("on-failure", 3), ("always", 0), ("unless-stopped", 0)])
def test_policies_that_can_be(policy):
    restart.check(RestartPolicy(*policy))
