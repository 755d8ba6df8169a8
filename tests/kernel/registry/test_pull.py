"""What a pull makes of an honest registry."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from tests import tars
from tests.kernel.images.store import LAYER, UPPER
from tests.kernel.registry.desk import Desk
from tests.liars import DOCKER_INDEX, Exchange, Liar, breaking_off, descriptor, digest, on
from tests.tars import config_of, file
from wherry.errors import NotFound
from wherry.images.references import parse
from wherry.registry.api import ANONYMOUS
from wherry.registry.cancellation import Cancellation, Cancelled
from wherry.services.pulling import Wanted

pytestmark = pytest.mark.root

BIG = tars.archive([file("big", bytes(range(256)) * 8000)])


def test_the_story_of_a_pull(desk: Desk, registry: Liar) -> None:
    manifest = registry.put_image([LAYER, UPPER])
    name = f"{registry.host}/a/b:1"
    told = desk.pull(name)
    first, second = (digest(gzip.compress(each, 1, mtime=0))[7:19] for each in (LAYER, UPPER))
    assert told[0] == "Pulling from a/b"
    assert desk.said[0] == {"status": "Pulling from a/b", "id": "1"}
    steps = [each["status"] for each in desk.said if each.get("id") == first]
    assert list(dict.fromkeys(steps)) == [
        "Pulling fs layer", "Downloading", "Verifying Checksum", "Download complete", "Extracting", "Pull complete",
    ]  # fmt: skip
    assert [each["id"] for each in desk.said if each["status"] == "Pull complete"] == [first, second]
    assert told[-2:] == [f"Digest: {manifest}", f"Status: Downloaded newer image for {name}"]
    body = desk.store.images.inspect(name)
    assert body["Id"] == digest(config_of([LAYER, UPPER]))
    assert body["RepoTags"] == [name]
    assert body["RepoDigests"] == [f"{registry.host}/a/b@{manifest}"]
    assert body["RootFS"]["Layers"] == [digest(LAYER), digest(UPPER)]


def test_the_second_pull_takes_nothing(desk: Desk, registry: Liar) -> None:
    manifest = registry.put_image([LAYER])
    name = f"{registry.host}/a/b:1"
    desk.pull(name)
    before, asked = desk.state(), len(registry.seen)
    assert desk.pull(name) == ["Pulling from a/b", f"Digest: {manifest}", f"Status: Image is up to date for {name}"]
    assert not [path for _, path, _ in registry.seen[asked:] if digest(gzip.compress(LAYER, 1, mtime=0)) in path]
    # only the time of the tag
    assert before[0][0] == desk.state()[0][0]
    assert before[1:] == desk.state()[1:]


def test_by_digest(desk: Desk, registry: Liar) -> None:
    manifest = registry.put_image([LAYER])
    name = f"{registry.host}/a/b@{manifest}"
    assert desk.pull(name)[-1] == f"Status: Downloaded newer image for {name}"
    body = desk.store.images.inspect(name)
    assert (body["RepoTags"], body["RepoDigests"]) == ([], [name])


def test_all_tags(desk: Desk, registry: Liar) -> None:
    registry.put_image([LAYER], "one")
    registry.put_image([LAYER, UPPER], "two")
    desk.pull(f"{registry.host}/a/b")
    assert desk.store.tags() == [f"{registry.host}/a/b:one", f"{registry.host}/a/b:two"]


def test_all_tags_in_pages(desk: Desk, registry: Liar) -> None:
    """Link is a hint for the query alone: another host in it is not asked."""
    for tag in ("one", "two"):
        registry.put_image([LAYER], tag)

    def page(exchange: Exchange) -> None:
        if "last=" in exchange.path:
            return exchange.reply(200, b'{"tags": ["two"]}')
        link = '<http://other.example/v2/a/b/tags/list?last=one>; rel="next"'
        return exchange.reply(200, b'{"tags": ["one"]}', Link=link)

    registry.tricks.append(on("/tags/list", page))
    desk.pull(f"{registry.host}/a/b")
    assert len(desk.store.tags()) == 2


@pytest.mark.parametrize(
    ("asked", "got"), [("", "amd64"), ("linux/arm64", "arm64"), ("linux/arm/v7", "armv6"), ("linux/arm/v6", "armv6")]
)
def test_the_entry_of_an_index_for_the_platform(
    desk: Desk, registry: Liar, asked: str, got: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wherry.models.platforms.host_architecture", lambda: "amd64")
    entries = []
    for architecture, variant in (("arm64", "v8"), ("amd64", ""), ("arm", "v6")):
        layer = tars.archive([file("which", f"{architecture}{variant if architecture == 'arm' else ''}".encode())])
        data = registry.manifests[registry.put_image([layer])][0]
        platform = {"architecture": architecture, "os": "linux"} | ({"variant": variant} if variant else {})
        entries.append(descriptor(data, registry.manifests["1"][1], platform=platform))
    index = {"schemaVersion": 2, "mediaType": DOCKER_INDEX, "manifests": entries}
    top = registry.put_manifest(index, "many", media_type=DOCKER_INDEX)
    name = f"{registry.host}/a/b:many"
    assert f"Digest: {top}" in desk.pull(name, platform=asked)
    chain = desk.store.images.resolve(name).chain_id
    assert (desk.root / "snapshots/overlay2/layers" / chain / "fs/which").read_text() == got
    with pytest.raises(NotFound, match="no matching manifest for linux/riscv64 in the manifest list entries"):
        desk.pull(name, platform="linux/riscv64")


@pytest.mark.parametrize(
    ("compress", "kind"),
    [
        (lambda data: data, "application/vnd.oci.image.layer.v1.tar"),
        (lambda data: zstandard.compress(data), "application/vnd.oci.image.layer.v1.tar+zstd"),
        (gzip.compress, "application/vnd.oci.image.layer.v1.tar+gzip"),
    ],
)
def test_forms_of_layers(desk: Desk, registry: Liar, compress: object, kind: str) -> None:
    registry.put_image([LAYER], compress=compress, layer_type=kind)
    desk.pull(f"{registry.host}/a/b:1")
    assert desk.store.images.inspect(f"{registry.host}/a/b:1")["RootFS"]["Layers"] == [digest(LAYER)]


def test_an_image_for_another_machine_comes_with_a_warning(desk: Desk, registry: Liar) -> None:
    registry.put_image([LAYER])
    told = desk.pull(f"{registry.host}/a/b:1", platform="linux/s390x")
    assert (
        f"WARNING: image with reference {registry.host}/a/b:1 was found but its platform (linux/amd64) does not match "
        "the specified platform (linux/s390x)"
    ) in told


def test_a_broken_connection_goes_on_where_it_broke(desk: Desk, registry: Liar) -> None:
    registry.put_image([BIG], compress=lambda data: data, layer_type="application/vnd.oci.image.layer.v1.tar")
    registry.tricks.append(on(digest(BIG), breaking_off(BIG, 700_000), times=2))
    desk.pull(f"{registry.host}/a/b:1")
    ranges = [headers.get("Range") for _, path, headers in registry.seen if digest(BIG) in path]
    assert ranges == [None, "bytes=700000-", "bytes=1400000-"]


def test_a_registry_that_ignores_ranges(desk: Desk, registry: Liar) -> None:
    registry.put_image([BIG], compress=lambda data: data, layer_type="application/vnd.oci.image.layer.v1.tar")
    registry.tricks.append(on(digest(BIG), breaking_off(BIG, 700_000), times=1))
    registry.tricks.append(on(digest(BIG), lambda exchange: exchange.reply(200, BIG)))
    desk.pull(f"{registry.host}/a/b:1")
    assert desk.store.tags() == [f"{registry.host}/a/b:1"]


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Desk]:
    (tmp_path / "patient").mkdir()
    with Desk(tmp_path / "patient", patience=60.0) as made:
        yield made


def test_two_pulls_share_the_download_and_one_may_go(patient: Desk, registry: Liar) -> None:
    desk = patient
    registry.put_image([BIG], compress=lambda data: data, layer_type="application/vnd.oci.image.layer.v1.tar")
    go_on, asked = threading.Event(), threading.Event()

    def slow(exchange: Exchange) -> None:
        exchange.send_response(200)
        exchange.send_header("Content-Length", str(len(BIG)))
        exchange.end_headers()
        exchange.wfile.write(BIG[:1000])
        asked.set()
        go_on.wait(20)
        exchange.wfile.write(BIG[1000:])

    registry.tricks.append(on(digest(BIG), slow))
    first, ends = Cancellation(), []

    def one(cancellation: Cancellation) -> None:
        try:
            desk.pulling.pull(_wanted(registry), lambda _: None, cancellation)
            ends.append("done")
        except Cancelled:
            ends.append("cancelled")

    threads = [threading.Thread(target=one, args=(each,)) for each in (first, Cancellation())]
    threads[0].start()
    assert asked.wait(20)
    threads[1].start()
    deadline = time.monotonic() + 10
    while sum("manifests" in path for path in registry.paths()) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)  # the second has its part in the download by now
    first.cancel()
    threads[0].join(5)
    assert ends == ["cancelled"]
    go_on.set()
    threads[1].join(20)
    assert ends == ["cancelled", "done"]
    assert sum(digest(BIG) in path for path in registry.paths()) == 1
    assert desk.store.state()[2] == []


def _wanted(registry: Liar) -> Wanted:
    return Wanted(parse(f"{registry.host}/a/b:1"), "", ANONYMOUS)


def test_the_last_who_goes_ends_a_download_that_hangs(patient: Desk, registry: Liar) -> None:
    registry.put_image([BIG], compress=lambda data: data, layer_type="application/vnd.oci.image.layer.v1.tar")
    go_on, asked = threading.Event(), threading.Event()

    def hang(exchange: Exchange) -> None:
        exchange.send_response(200)
        exchange.send_header("Content-Length", str(len(BIG)))
        exchange.end_headers()
        exchange.wfile.write(BIG[:1000])
        asked.set()
        go_on.wait(20)

    registry.tricks.append(on(digest(BIG), hang))
    cancellation = Cancellation()
    thread = threading.Thread(target=lambda: _swallow(patient, registry, cancellation))
    thread.start()
    assert asked.wait(20)
    began = time.monotonic()
    cancellation.cancel()
    thread.join(5)
    deadline = time.monotonic() + 5
    while patient.store.state()[2] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert time.monotonic() - began < 4
    assert patient.store.state()[2] == []
    go_on.set()


def _swallow(desk: Desk, registry: Liar, cancellation: Cancellation) -> None:
    with pytest.raises(Cancelled):
        desk.pulling.pull(_wanted(registry), lambda _: None, cancellation)


def test_layers_are_made_while_others_arrive_and_only_some_at_a_time(tmp_path: Path, registry: Liar) -> None:
    """The last layer comes when the first one is complete: were they made after all have come, it never would."""
    layers = [tars.archive([file(f"f{number}", bytes([number]) * 50_000)]) for number in range(5)]
    registry.put_image(layers)
    first, last = (digest(gzip.compress(each, 1, mtime=0)) for each in (layers[0], layers[-1]))
    complete, lock, now, most = threading.Event(), threading.Lock(), [0], [0]

    def watched(exchange: Exchange) -> bool:
        if "/blobs/" not in exchange.path or exchange.path.endswith(digest(config_of(layers))):
            return False
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.1)
        if exchange.path.endswith(last):
            assert complete.wait(30)
        with lock:
            now[0] -= 1
        return False

    def told(record: dict[str, object]) -> None:
        if record.get("status") == "Pull complete" and record.get("id") == first[7:19]:
            complete.set()

    registry.tricks.append(watched)
    with Desk(tmp_path, downloads=2, patience=60.0) as desk:
        desk.pulling.pull(_wanted(registry), told, Cancellation())
        assert desk.store.tags() == [f"{registry.host}/a/b:1"]
    assert complete.is_set()
    assert most == [2]
