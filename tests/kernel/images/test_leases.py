"""What running work needs is not collected, and does not stay when the work fails."""

from __future__ import annotations

import os
import threading
import time

import pytest

from tests.kernel.images.store import LAYER, UPPER, Store
from tests.tars import config_of, digest, docker_archive
from wherry.errors import SystemFailure

pytestmark = pytest.mark.root


def blobs(store: Store) -> list[str]:
    return sorted(f"sha256:{name}" for name in os.listdir(store.root / "content/blobs/sha256"))


def test_a_removal_does_not_take_the_blobs_that_a_load_is_about_to_use(store: Store, monkeypatch) -> None:
    """The same image is removed by another client between the load's look at its layers and its commit."""
    archive = docker_archive([LAYER], ["a:1"])
    (image_id,) = store.load(archive)
    flush = type(store.driver).flush

    def removed_meanwhile(driver) -> None:
        flush(driver)
        store.remove("a:1")
        assert image_id in blobs(store)

    monkeypatch.setattr(type(store.driver), "flush", removed_meanwhile)
    assert store.load(archive) == [image_id]
    monkeypatch.undo()
    assert blobs(store) == sorted([image_id, digest(LAYER)])
    with store.images.saved(["a:1"]) as (_, chunks):
        assert LAYER in b"".join(chunks)


def test_a_blob_without_a_row_goes_with_its_last_lease(store: Store) -> None:
    content = store.images._content
    with content.leases.hold([digest(b"x")]):
        content.put(b"x")
        content.delete(digest(b"x"))
        assert blobs(store) == [digest(b"x")]
    assert blobs(store) == []


def test_a_load_that_fails_at_its_last_step_leaves_no_blobs(store: Store, monkeypatch) -> None:
    kept = store.load(docker_archive([UPPER], ["kept:1"]))
    before = store.state()

    def refuse(*_) -> None:
        raise SystemFailure("no")

    monkeypatch.setattr(store.images._rows, "put_image", refuse)
    with pytest.raises(SystemFailure):
        store.load(docker_archive([LAYER, UPPER], ["a:1"]))
    assert store.state() == before
    assert blobs(store) == sorted([*kept, digest(UPPER)])
    assert config_of([LAYER, UPPER]) not in [path.read_bytes() for path in store.root.glob("content/blobs/sha256/*")]


def test_a_failed_import_leaves_what_another_image_has(store: Store, monkeypatch) -> None:
    store.load(docker_archive([LAYER], ["a:1"]))
    before = store.state()
    monkeypatch.setattr(store.images, "_put", lambda *_: (_ for _ in ()).throw(SystemFailure("no")))
    with pytest.raises(SystemFailure):
        store.put(LAYER, repo="b")
    assert store.state() == before


def test_a_collection_and_the_end_of_a_lease_do_not_wait_for_each_other(store: Store) -> None:
    """One has the database and wants the leases, the other the other way round: the whole engine stood still."""
    store.load(docker_archive([LAYER], ["a:1"]))
    end = time.monotonic() + 2

    def collect() -> None:
        while time.monotonic() < end:
            store.images.collect()

    def hold() -> None:
        while time.monotonic() < end:
            with store.images.saved(["a:1"]):
                pass

    threads = [threading.Thread(target=work, daemon=True) for work in (collect, hold, hold)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
