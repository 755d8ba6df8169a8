"""An image whose layers come one by one, as they do from a registry."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.kernel.images.store import LAYER, UPPER, Store
from tests.tars import config_of, digest, docker_archive
from wherry.errors import Unavailable
from wherry.images.config import parse
from wherry.images.manifest import Candidate
from wherry.images.references import parse as parse_reference
from wherry.images.spool import Member, Spool

pytestmark = pytest.mark.root


class Fetched:
    """Layers out of memory. before: is called with the index of each that is asked for."""

    def __init__(self, spool: Spool, tars: list[bytes], before: Callable[[int], object] = lambda _: None) -> None:
        self.spool = spool
        self.tars = tars
        self.before = before
        self.story: list[tuple[str, int]] = []

    def fetch(self, index: int) -> Member:
        self.story.append(("fetch", index))
        self.before(index)
        return self.spool.take_plain(io.BytesIO(self.tars[index]))

    def report(self, index: int) -> Callable[[dict[str, Any]], None]:
        return lambda _: None

    def done(self, index: int) -> None:
        self.story.append(("done", index))


def candidate(*tars: bytes, name: str = "a:1") -> Candidate:
    data = config_of(list(tars))
    return Candidate(data, parse(data), (), (parse_reference(name),))


def test_each_layer_is_made_before_the_next_is_asked_for(store: Store) -> None:
    with store.images.spool() as spool:
        layers = Fetched(spool, [LAYER, UPPER])
        assert store.images.add(candidate(LAYER, UPPER), layers) == digest(config_of([LAYER, UPPER]))
    assert layers.story == [("fetch", 0), ("done", 0), ("fetch", 1), ("done", 1)]
    assert store.tags() == ["a:1"]
    assert store.state()[2] == []


def test_what_is_here_is_not_asked_for(store: Store) -> None:
    store.load(docker_archive([LAYER], ["below:1"]))
    with store.images.spool() as spool:
        layers = Fetched(spool, [LAYER, UPPER])
        store.images.add(candidate(LAYER, UPPER), layers)
    assert layers.story == [("done", 0), ("fetch", 1), ("done", 1)]


def test_a_layer_that_does_not_come_leaves_nothing(store: Store) -> None:
    before = store.state()

    def refuse(index: int) -> None:
        if index == 1:
            raise Unavailable("gone")

    with store.images.spool() as spool, pytest.raises(Unavailable, match="gone"):
        store.images.add(candidate(LAYER, UPPER), Fetched(spool, [LAYER, UPPER], refuse))
    assert store.state() == before


def test_two_at_once_make_a_layer_once(store: Store) -> None:
    """Both have the layer in hand before either begins with it."""
    meet = threading.Barrier(2, timeout=20)
    made: list[str] = []

    def one() -> None:
        with store.images.spool() as spool:
            made.append(store.images.add(candidate(LAYER), Fetched(spool, [LAYER], lambda _: meet.wait())))

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert made == [digest(config_of([LAYER]))] * 2
    assert store.state()[2] == []
