"""A page that parent and child share."""

from __future__ import annotations

import os
import time

import pytest

from wherry.runtime.phases import Marks


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_the_parent_sees_what_the_child_noted() -> None:
    marks = Marks()
    before = time.monotonic_ns()
    marks.begin("cgroup")
    pid = os.fork()
    if pid == 0:
        for name in ("cgroup", "namespaces", "namespaces", "rootfs", "namespaces"):
            marks.begin(name)
        os._exit(0)
    os.waitpid(pid, 0)
    found = marks.read()
    assert [name for name, _ in found] == ["cgroup", "namespaces", "rootfs", "namespaces"]
    times = [at for _, at in found]
    assert times == sorted(times)
    assert before <= times[0] <= times[-1] <= time.monotonic_ns()
    marks.close()


def test_a_page_that_is_full_stays_readable() -> None:
    marks = Marks()
    for number in range(1000):
        marks.begin(f"phase-{number}")
    found = marks.read()
    assert 100 < len(found) < 200
    assert found[-1][0] == f"phase-{len(found) - 1}"
    marks.close()


def test_it_costs_next_to_nothing() -> None:
    marks = Marks()
    began = time.perf_counter()
    for number in range(100):
        marks.begin(str(number % 7))
    assert (time.perf_counter() - began) / 100 < 50e-6
    marks.close()
