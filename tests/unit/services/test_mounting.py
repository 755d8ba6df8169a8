"""Mounts that take too long: given up, they have either taken effect, which is then told, or never will."""

from __future__ import annotations

import asyncio
import threading
from types import MethodType, SimpleNamespace

import pytest

from wherry.errors import Conflict, Unavailable
from wherry.services import mounting
from wherry.services.mounting import Mounting
from wherry.services.pace import GivenUp, Permit

CONTAINER = SimpleNamespace(id="c" * 64, name="aa")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounting, "PATIENCE", 0.05)


def test_what_took_effect_in_time_is_not_told_to_have_failed() -> None:
    """As its thread comes back late."""
    closed = threading.Event()

    class Seen(Permit):
        def close(self) -> bool:
            closed.set()
            return super().close()

    def work(_: object, permit: Permit) -> str:
        with permit.used():
            pass
        assert closed.wait(20)
        return "mounted"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mounting, "Permit", Seen)
        assert asyncio.run(Mounting(None)._inside(CONTAINER, work)) == "mounted"  # type: ignore[arg-type]


def test_what_was_given_up_takes_no_effect() -> None:
    go_on, ended = threading.Event(), threading.Event()
    found: list[object] = []

    def work(_: object, permit: Permit) -> None:
        assert go_on.wait(20)
        try:
            with permit.used():
                found.append("mounted")
        except GivenUp as error:
            found.append(error)
        ended.set()

    async def scene() -> None:
        with pytest.raises(Unavailable, match="container aa: a file system has not answered"):
            await Mounting(None)._inside(CONTAINER, work)  # type: ignore[arg-type]
        go_on.set()
        assert await asyncio.to_thread(ended.wait, 20)

    asyncio.run(scene())
    assert [type(each) for each in found] == [GivenUp]


def test_an_effect_that_is_taking_place_is_waited_for() -> None:
    permit, inside, go_on = Permit(), threading.Event(), threading.Event()

    def work() -> None:
        with permit.used():
            inside.set()
            assert go_on.wait(20)

    def close() -> None:
        answers.append(permit.close())

    answers: list[bool] = []
    threads = [threading.Thread(target=each) for each in (work, close)]
    threads[0].start()
    assert inside.wait(20)
    threads[1].start()
    go_on.set()
    for each in threads:
        each.join(20)
    assert answers == [True]


def test_an_effect_that_failed_is_none() -> None:
    permit = Permit()
    with pytest.raises(OSError, match="busy"), permit.used():
        raise OSError(16, "busy")
    assert permit.close() is False


def test_all_that_was_mounted_is_taken_out_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when one of them cannot be; what is told is why the last one failed."""
    done: list[tuple[str, int]] = []

    async def hold(*_: object) -> None: ...

    async def inside(_: object, container: object, work: MethodType, mount: int, *more: object) -> None:
        done.append((work.__name__, mount))
        if done[-1] == ("_put", 3):
            raise Unavailable("late")
        if done[-1] == ("_take", 2):
            raise Conflict("ended")

    monkeypatch.setattr(Mounting, "_hold", hold)
    monkeypatch.setattr(Mounting, "_inside", inside)
    with pytest.raises(Unavailable, match="late"):
        asyncio.run(Mounting(None)._attach(CONTAINER, [1, 2, 3]))  # type: ignore[arg-type,list-item]
    assert done == [("_put", 1), ("_put", 2), ("_put", 3), ("_take", 2), ("_take", 1)]
