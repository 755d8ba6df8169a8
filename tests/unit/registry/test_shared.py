"""Work that is done once for all who want it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from wherry.registry.cancellation import Cancellation, Cancelled
from wherry.registry.shared import Job, Shared


def test_all_are_told_and_the_last_one_ends_it() -> None:
    begun, go_on, discarded = threading.Event(), threading.Event(), []
    board: Shared[str] = Shared(2, "test", discarded.append)

    def work(job: Job[str]) -> str:
        job.report({"at": 1})
        begun.set()
        assert go_on.wait(10)
        return "made"

    told: list[list[dict[str, Any]]] = [[], []]
    first = board.join("key", work, told[0].append)
    assert begun.wait(10)
    second = board.join("key", work, told[1].append)
    first.let_go()
    go_on.set()
    assert second.result(Cancellation()) == "made"
    assert told == [[{"at": 1}], [{"at": 1}]]
    assert discarded == []
    second.let_go()
    assert discarded == ["made"]
    third = board.join("key", work, told[0].append)
    assert third.result(Cancellation()) == "made"
    third.let_go()
    board.close()


def test_nobody_is_left() -> None:
    board: Shared[str] = Shared(1, "test", lambda _: None)
    begun, ended = threading.Event(), threading.Event()

    def work(job: Job[str]) -> str:
        begun.set()
        try:
            job.cancellation.wait(10)
        finally:
            ended.set()
        return "never"

    share = board.join("key", work, lambda _: None)
    queued = board.join("other", work, lambda _: None)
    assert begun.wait(10)
    assert not queued.started
    queued.let_go()
    share.let_go()
    assert ended.wait(5)
    board.close()


def test_a_failure_is_for_those_who_waited_and_not_for_the_next() -> None:
    board: Shared[str] = Shared(1, "test", lambda _: None)

    def fail(_: Job[str]) -> str:
        raise ValueError("bad")

    share = board.join("key", fail, lambda _: None)
    with pytest.raises(ValueError, match="bad"):
        share.result(Cancellation())
    with pytest.raises(ValueError, match="bad"):
        share.check()
    other = board.join("key", lambda _: "good", lambda _: None)
    assert other.result(Cancellation()) == "good"
    share.let_go()
    other.let_go()
    board.close()


def test_a_client_that_is_cancelled_waits_no_more() -> None:
    board: Shared[str] = Shared(1, "test", lambda _: None)
    go_on = threading.Event()
    share = board.join("key", lambda _: str(go_on.wait(10)), lambda _: None)
    cancellation = Cancellation()
    threading.Timer(0.1, cancellation.cancel).start()
    with pytest.raises(Cancelled):
        share.result(cancellation)
    go_on.set()
    share.let_go()
    board.close()
