"""Pulls that have the tables of contents of eStargz layers before all data, of honest registries and of others."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import tars
from tests.estargz import Estargz, Table, estargz, push
from tests.kernel.images.store import LAYER
from tests.kernel.registry.desk import Desk
from tests.liars import DOCKER_CONFIG, DOCKER_LAYER, DOCKER_MANIFEST, Exchange, Liar, descriptor, digest, on
from tests.registries import Registry
from tests.tars import config_of, file, folder, hard
from wherry.registry.cancellation import Cancellation, Cancelled
from wherry.services import promises
from wherry.services.promises import Promises

pytestmark = pytest.mark.root

NOISE = bytes(i * i % 251 for i in range(70_000))
LOW = [folder("bin"), file("bin/sh", NOISE, mode=0o755, xattrs={"user.a": "b"}), hard("bin/again", "bin/sh")]
HIGH = [file("etc/name", b"upper"), file("etc/.wh.gone")]


@pytest.fixture
def lazy(tmp_path: Path) -> Iterator[Desk]:
    with Desk(tmp_path, lazy=True) as made:
        yield made


def offer(registry: Liar, *layers: Estargz, annotations: dict[str, str] | None = None) -> str:
    """Offer an image of such layers; return the name of it."""
    config = config_of([each.tar for each in layers])
    for data in (config, *(each.blob for each in layers)):
        registry.put_blob(data)
    document = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": descriptor(config, DOCKER_CONFIG),
        "layers": [
            descriptor(each.blob, DOCKER_LAYER, annotations=each.annotations if annotations is None else annotations)
            for each in layers
        ],
    }
    registry.put_manifest(document, "1")
    return f"{registry.host}/a/b:1"


def requests(registry: Liar, *layers: Estargz) -> list[tuple[int, str]]:
    """What was asked of the layers' blobs, in order: (which, Range)."""
    blobs = [digest(each.blob) for each in layers]
    asked = [(path.rpartition("/")[2], headers.get("Range", "")) for _, path, headers in registry.seen]
    return [(blobs.index(name), wanted) for name, wanted in asked if name in blobs]


def verified(desk: Desk) -> list[str]:
    return [each["status"] for each in desk.said if each["status"].startswith("Index verified")]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]


def test_all_tables_come_before_any_data(lazy: Desk, registry: Liar, caplog: pytest.LogCaptureFixture) -> None:
    low, high = estargz(LOW, chunk=10_000), estargz(HIGH)
    name = offer(registry, low, high)
    lazy.pull(name)
    asked = requests(registry, low, high)
    sizes = [len(each.blob) for each in (low, high)]
    ends = {(at, f"bytes={max(size - promises._TAIL, 0)}-{size - 1}") for at, size in enumerate(sizes)}
    assert set(asked[:2]) == ends
    assert sorted(asked[2:]) == [(0, ""), (1, "")]
    assert sorted(verified(lazy)) == [
        "Index verified: 2 files, 5 bytes", f"Index verified: 3 files, {len(NOISE)} bytes",
    ]  # fmt: skip
    order = [each["status"].partition(":")[0] for each in lazy.said]
    assert order.index("Downloading") > max(at for at, text in enumerate(order) if text == "Index verified")
    assert not warnings(caplog)
    chain = lazy.store.images.resolve(name).chain_id
    assert (lazy.root / "snapshots/overlay2/layers" / chain / "fs/etc/name").read_bytes() == b"upper"
    assert not list((lazy.root / "content/spool").iterdir())


def test_a_table_that_is_larger_than_the_end_that_comes_at_once(
    lazy: Desk, registry: Liar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promises, "_TAIL", 100)
    low = estargz(LOW)
    lazy.pull(offer(registry, low))
    size = len(low.blob)
    assert requests(registry, low)[:2] == [(0, f"bytes={size - 100}-{size - 1}"), (0, f"bytes={low.end}-{size - 101}")]
    assert len(verified(lazy)) == 1


def test_without_the_option_and_without_the_annotation_nothing_changes(
    desk: Desk, registry: Liar, tmp_path: Path
) -> None:
    low = estargz(LOW)
    desk.pull(offer(registry, low))
    assert requests(registry, low) == [(0, "")]
    registry.seen.clear()
    (tmp_path / "other").mkdir()
    with Desk(tmp_path / "other", lazy=True) as lazy:
        lazy.pull(offer(registry, low, annotations={}))
    assert requests(registry, low) == [(0, "")]


def lie(content: Table) -> None:
    content["entries"][1]["mode"] = 0o4755


def test_a_lie_is_logged_and_the_tar_counts(lazy: Desk, registry: Liar, caplog: pytest.LogCaptureFixture) -> None:
    low = estargz(LOW, change=lie)
    name = offer(registry, low)
    lazy.pull(name)
    (text,) = warnings(caplog)
    assert "is not what its table of contents promised: 'bin/sh': another mode than in the table" in text
    made = lazy.root / "snapshots/overlay2/layers" / lazy.store.images.resolve(name).chain_id / "fs/bin/sh"
    assert made.stat().st_mode & 0o7777 == 0o755


def _change(at: int, **fields: Any) -> Any:
    return lambda content: content["entries"][at].update(fields)


MANY = b",".join([b'{"name":"a","type":"reg"}'] * 200_001)


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        (estargz(LOW, change=_change(0, name="../../../etc")), "leads out of the archive's root"),
        (estargz(LOW, change=_change(1, offset=1 << 50)), "where the blob has none"),
        (estargz([*LOW, *HIGH], change=_change(3, offset=1)), "lies in that of another file"),
        (estargz(LOW, change=_change(1, size=1 << 60)), "can become"),
        (estargz(LOW, raw=b'{"version":1,"entries":[' + b"[" * 100_000), "not what it should be"),
        (estargz(LOW, raw=b'{"version":1,"entries":[' + MANY + b"]}"), "at most 200000 are read"),
        (estargz(LOW, offset=1 << 40), "the footer points to"),
        (estargz(LOW, offset=0), "no stargz.index.json where the footer points to"),
        (estargz(LOW, offset=3), "cannot be read|no stargz"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_is_not_used(
    lazy: Desk, registry: Liar, caplog: pytest.LogCaptureFixture, layer: Estargz, told: str
) -> None:
    name = offer(registry, layer)
    lazy.pull(name)
    (text,) = warnings(caplog)
    assert text.startswith(f"the table of contents of layer {digest(layer.blob)} is not used: ")
    assert any(each in text for each in told.split("|"))
    assert not verified(lazy)
    assert lazy.store.tags() == [name]


def test_a_table_with_another_digest_than_in_the_manifest(
    lazy: Desk, registry: Liar, caplog: pytest.LogCaptureFixture
) -> None:
    low = estargz(LOW)
    annotations = estargz(HIGH).annotations
    lazy.pull(offer(registry, low, annotations=annotations))
    assert digest(low.table) in warnings(caplog)[0]
    assert not verified(lazy)


def test_a_layer_that_only_says_that_it_has_a_table(
    lazy: Desk, registry: Liar, caplog: pytest.LogCaptureFixture
) -> None:
    name = offer(registry, Estargz(tars.archive([file("x", NOISE)]), tars.archive([file("x", NOISE)]), b"{}", 0))
    lazy.pull(name)
    assert "there is no eStargz footer" in warnings(caplog)[0]
    assert lazy.store.tags() == [name]


def whole(exchange: Exchange) -> None:
    name = exchange.path.rpartition("/")[2]
    exchange.reply(200, exchange.server.blobs[name])


def elsewhere(exchange: Exchange) -> None:
    data = exchange.server.blobs[exchange.path.rpartition("/")[2]]
    if not exchange.headers.get("Range"):
        return exchange.reply(200, data)
    exchange.reply(206, data[:100], Content_Range=f"bytes 0-99/{len(data)}")


def refused(exchange: Exchange) -> None:
    if not exchange.headers.get("Range"):
        return whole(exchange)
    exchange.reply(416)


def endless(exchange: Exchange) -> None:
    data = exchange.server.blobs[exchange.path.rpartition("/")[2]]
    wanted = exchange.headers.get("Range", "")
    if not wanted:
        return exchange.reply(200, data)
    where = wanted.replace("=", " ")
    exchange.reply(206, bytes(1 << 20), Content_Range=f"{where}/{len(data)}")


@pytest.mark.parametrize("answer", [whole, elsewhere, refused, endless])
def test_a_registry_that_does_not_send_parts(lazy: Desk, registry: Liar, answer: Any) -> None:
    low = estargz(LOW)
    name = offer(registry, low)
    registry.tricks.append(on(digest(low.blob), answer))
    lazy.pull(name)
    assert not verified(lazy)
    assert len(requests(registry, low)) == 2
    assert lazy.store.tags() == [name]


def test_a_lie_about_the_layer_is_found_as_ever(lazy: Desk, registry: Liar) -> None:
    """A right table makes a wrong tar no better: nothing is there after."""
    low, other = estargz(LOW), estargz(HIGH)
    name = offer(registry, low)
    before = lazy.state()

    def swap(exchange: Exchange) -> None:
        exchange.reply(200, other.blob.ljust(len(low.blob), b"\0")[: len(low.blob)])

    trick = on(digest(low.blob), swap)
    registry.tricks.append(lambda exchange: not exchange.headers.get("Range") and trick(exchange))
    with pytest.raises(Exception, match="verification failed"):
        lazy.pull(name)
    assert len(verified(lazy)) == 1
    assert lazy.state() == before


@pytest.mark.parametrize("held", [True, False])
def test_who_goes_does_not_wait_for_the_comparison(
    lazy: Desk, registry: Liar, monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    """Neither for his own nor for that of another pull, which has the place in memory."""
    name = offer(registry, estargz(LOW))
    before = lazy.state()
    cancellation = Cancellation()
    compare = Promises.compare

    def leave(*args: Any) -> None:
        cancellation.cancel()
        compare(*args)

    monkeypatch.setattr(Promises, "compare", leave)
    if held:
        monkeypatch.setattr(promises, "_IN_MEMORY", threading.BoundedSemaphore(1))
        monkeypatch.setattr(Promises, "_keep", _keep_and_hold(Promises._keep))
    with pytest.raises(Cancelled):
        lazy.pull(name, cancellation=cancellation)
    assert lazy.state() == before


def _keep_and_hold(keep: Any) -> Any:
    def work(*args: Any) -> None:
        keep(*args)
        promises._IN_MEMORY.acquire()

    return work


def test_from_a_registry_of_debian(lazy: Desk) -> None:
    low, high = estargz(LOW, chunk=10_000), estargz(HIGH)
    with Registry() as registry:
        push(registry, low, high)
        lazy.pull(f"{registry.host}/a/b:1")
        parts = [each for each in registry.log.read_text().splitlines() if '" 206 ' in each]
    assert len(verified(lazy)) == len(parts) == 2


def test_an_ordinary_layer_has_no_table(lazy: Desk, registry: Liar, caplog: pytest.LogCaptureFixture) -> None:
    registry.put_image([LAYER])
    lazy.pull(f"{registry.host}/a/b:1")
    assert not warnings(caplog)
    assert not verified(lazy)
