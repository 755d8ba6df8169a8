from __future__ import annotations

import pytest

from wherry.errors import SystemFailure
from wherry.network import stock as module
from wherry.network.sandbox import Built
from wherry.network.stock import CEILING, PAUSE, PAUSE_LOW, QUIET, RETRY, Stock


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Yard:
    """A stock whose work is done by hand."""

    def __init__(self, size: int) -> None:
        self.made = 0
        self.discarded: list[Built] = []
        self.fails = False
        self.stock = Stock(self.make, self.discarded.append, size)

    def make(self, _netlink) -> Built:
        if self.fails:
            raise SystemFailure("no")
        self.made += 1
        return Built(-self.made, (), f"{self.made:064x}")

    def work(self) -> float | None:
        """Do all chores that are due; return how long to wait."""
        while True:
            job, pause = self.stock.next_chore()
            if job is None:
                return pause
            job(None)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def yard(clock):
    yard = Yard(4)
    yard.stock.open()
    yard.work()
    return yard


def test_it_is_filled_when_opened_and_not_before(clock):
    yard = Yard(4)
    assert yard.work() is None
    assert yard.made == 0
    yard.stock.open()
    yard.work()
    assert len(yard.stock) == 4


def test_first_in_first_out(yard):
    assert [yard.stock.take().netns_fd for _ in range(4)] == [-1, -2, -3, -4]
    assert yard.stock.take() is None


def test_it_is_refilled_only_after_a_pause(clock, yard):
    yard.stock.take()
    assert yard.work() == pytest.approx(PAUSE)
    assert len(yard.stock) == 3
    clock.now += PAUSE + 0.001
    yard.work()
    assert len(yard.stock) == 4


def test_when_it_runs_low_the_pause_is_short(clock, yard):
    for _ in range(3):
        yard.stock.take()
    assert yard.work() == pytest.approx(PAUSE_LOW)
    clock.now += PAUSE_LOW + 0.001
    yard.work()
    assert len(yard.stock) == 2


def test_a_burst_makes_it_grow_and_quiet_makes_it_shrink(clock, yard):
    for _ in range(20):
        yard.stock.take()
    clock.now += PAUSE + 0.001
    yard.work()
    assert len(yard.stock) == CEILING
    assert yard.work() == pytest.approx(QUIET + 1)
    clock.now += QUIET + 1
    assert yard.work() is None
    assert len(yard.stock) == 4
    assert len(yard.discarded) == CEILING - 4


def test_a_failure_is_tried_again_later(clock, yard):
    yard.stock.take()
    yard.fails = True
    clock.now += 1
    assert yard.work() == pytest.approx(RETRY)
    yard.fails = False
    clock.now += RETRY + 0.001
    yard.work()
    assert len(yard.stock) == 4


def test_closing_discards_everything_even_what_is_being_made(clock, yard):
    yard.stock.take()
    clock.now += 1
    job, _ = yard.stock.next_chore()
    yard.stock.close()
    job(None)
    assert len(yard.discarded) == 4
    assert len(yard.stock) == 0
    assert yard.work() is None


def test_size_zero_keeps_nothing(clock):
    yard = Yard(0)
    yard.stock.open()
    assert yard.stock.take() is None
    yard.work()
    assert yard.made == 0
