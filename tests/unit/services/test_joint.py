"""GET /system/df from several clients at once: the volumes are walked once for all of them."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wherry.events import Bus
from wherry.services.provision import Provision
from wherry.services.volumes import VolumeService
from wherry.store.database import Database
from wherry.volumes.local import Volumes
from wherry.volumes.records import Volume


class Walked(Volumes):
    """Volumes whose walks are counted, each of which waits until it may go on."""

    def __init__(self, database: Database, root: Path) -> None:
        super().__init__(database, root)
        self.walks: Counter[str] = Counter()
        self.inside = threading.Semaphore(0)
        self.go_on = threading.Event()

    def usage(self, name: str) -> int:
        self.walks[name] += 1
        self.inside.release()
        assert self.go_on.wait(20)
        return super().usage(name)

    def add(self, name: str, content: bytes) -> None:
        self.make(name)
        (self.mountpoint(name) / "f").write_bytes(content)
        with self.recording([Volume(name=name, created=len(content))]):
            pass


@pytest.fixture
def volumes(tmp_path: Path) -> Iterator[Walked]:
    database = Database(tmp_path / "meta.db")
    made = Walked(database, tmp_path / "volumes")
    made.add("one", b"1")
    made.add("two", b"22")
    yield made
    made.go_on.set()
    database.close()


def service(volumes: Volumes) -> VolumeService:
    return VolumeService(Provision(volumes, [], None, Bus(), None, None, None))  # type: ignore[arg-type]


def sizes(usage: list[Any]) -> dict[str, int]:
    return {each["Name"]: each["UsageData"]["Size"] for each in usage}


def test_who_asks_meanwhile_is_told_the_same(volumes: Walked) -> None:
    """The first of them goes away, one comes late, and a volume is made, another one removed and made anew."""

    async def scene() -> None:
        asked = service(volumes)
        first, second = (asyncio.create_task(asked.usage()) for _ in range(2))
        assert await asyncio.to_thread(volumes.inside.acquire, timeout=20)
        third = asyncio.create_task(asked.usage())
        first.cancel()
        await asyncio.wait([first])
        volumes.add("three", b"333")
        with volumes.forgetting(["two"]):
            pass
        volumes.discard("two")
        volumes.add("two", b"55555")
        volumes.go_on.set()
        for each in (second, third):
            assert sizes(await each) == {"one": 1, "two": 5, "three": 3}
        assert (first.cancelled(), volumes.walks["one"]) == (True, 1)
        await asked.usage()
        assert volumes.walks["one"] == 2, "what was found is not told again later"

    asyncio.run(scene())


def test_it_ends_with_the_last_who_waits(volumes: Walked) -> None:
    async def scene() -> None:
        asked = service(volumes)
        callers = [asyncio.create_task(asked.usage()) for _ in range(3)]
        assert await asyncio.to_thread(volumes.inside.acquire, timeout=20)
        for each in callers:
            each.cancel()
        await asyncio.wait(callers)
        again = asyncio.create_task(asked.usage())
        assert await asyncio.to_thread(volumes.inside.acquire, timeout=20)
        volumes.go_on.set()
        assert sizes(await again) == {"one": 1, "two": 2}
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})
        assert volumes.walks == {"one": 2, "two": 1}, "the walk of those who went stopped where it was"

    asyncio.run(scene())


def test_a_walk_that_fails_fails_for_all_and_once(volumes: Walked, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        asked = service(volumes)
        with monkeypatch.context() as broken:
            broken.setattr(Walked, "mountpoint", lambda *_: 1 / 0)
            volumes.go_on.set()
            found = await asyncio.gather(*(asked.usage() for _ in range(3)), return_exceptions=True)
        assert [type(each) for each in found] == [ZeroDivisionError] * 3
        assert sizes(await asked.usage()) == {"one": 1, "two": 2}

    asyncio.run(scene())
