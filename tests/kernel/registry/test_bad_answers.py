"""Registries that lie, stall and break: a clear error, nothing tagged, nothing left, and the next try works."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import tars
from tests.kernel.images.store import LAYER, UPPER
from tests.kernel.registry.desk import Desk
from tests.liars import DOCKER_CONFIG, Exchange, Liar, breaking_off, digest, on
from tests.tars import config_of, file
from wherry.errors import EngineError

pytestmark = pytest.mark.root

BIG = tars.archive([file("big", os.urandom(1 << 20))])
PACKED = gzip.compress(BIG, 1, mtime=0)
LAYER_PATH = f"/blobs/{digest(PACKED)}"
CONFIG_PATH = f"/blobs/{digest(config_of([BIG]))}"
MANIFEST = "/manifests/1"


def wrong(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def claim(status: int, length: int, body: bytes, **headers: str) -> Callable[[Exchange], None]:
    """Answer with a Content-Length that may be another than the body's, and hang up."""

    def answer(exchange: Exchange) -> None:
        exchange.send_response(status)
        exchange.send_header("Content-Length", str(length))
        for name, value in headers.items():
            exchange.send_header(name.replace("_", "-"), value)
        exchange.end_headers()
        exchange.wfile.write(body)
        exchange.close_connection = True

    return answer


def endless(exchange: Exchange) -> None:
    """A body without an end."""
    exchange.send_response(200)
    exchange.send_header("Transfer-Encoding", "chunked")
    exchange.end_headers()
    piece = bytes(1 << 16)
    try:
        while True:
            exchange.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
    except OSError:
        exchange.close_connection = True  # the client has had enough


def stall(size: int) -> Callable[[Exchange], None]:
    """Send so many bytes of what was promised, and no more for longer than anybody waits."""

    def answer(exchange: Exchange) -> None:
        exchange.send_response(200)
        exchange.send_header("Content-Length", str(len(PACKED)))
        exchange.end_headers()
        exchange.wfile.write(PACKED[:size])
        time.sleep(2.5)
        exchange.close_connection = True

    return answer


def other_part(exchange: Exchange) -> None:
    """Break off once, and answer the Range request with another part."""
    if "Range" not in exchange.headers:
        breaking_off(PACKED, 5000)(exchange)
    else:
        where = f"bytes 0-{len(PACKED) - 1}/{len(PACKED)}"
        exchange.reply(206, PACKED, Content_Range=where)


def other_bytes(exchange: Exchange) -> None:
    """Break off once, and answer the Range request with the right head and wrong bytes."""
    if "Range" not in exchange.headers:
        breaking_off(PACKED, 5000)(exchange)
    else:
        exchange.blob(wrong(PACKED))


def many_headers(exchange: Exchange) -> None:
    exchange.send_response(200)
    for number in range(20_000):
        exchange.send_header(f"X-{number}", "y" * 500)
    exchange.end_headers()


def json_of(document: object) -> Callable[[Exchange], None]:
    data = json.dumps(document).encode()
    return lambda exchange: exchange.reply(200, data, Content_Type=exchange.server.manifests["1"][1])


def changed(**change: object) -> Callable[[Exchange], None]:
    """The manifest, with some fields of its first layer or its own changed."""

    def answer(exchange: Exchange) -> None:
        document = json.loads(exchange.server.manifests["1"][0])
        for name, value in change.items():
            if name in ("digest", "size", "urls"):
                document["layers"][0][name] = value
            elif name == "layerType":
                document["layers"][0]["mediaType"] = value
            elif name == "configType":
                document["config"]["mediaType"] = value
            else:
                document[name] = value
        json_of(document)(exchange)

    return answer


def redirect(location: str) -> Callable[[Exchange], None]:
    return lambda exchange: exchange.reply(307, Location=location)


def around(exchange: Exchange) -> None:
    exchange.reply(302, Location=exchange.path)


SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
TEA = b'{"errors":[{"code":"UNAVAILABLE","message":"tea\\u001b[2J"}]}'
HELM = "application/vnd.cncf.helm.config.v1+json"

CASES: dict[str, tuple[str, Callable[[Exchange], None], str]] = {
    "wrong digest of a layer": (LAYER_PATH, lambda e: e.reply(200, wrong(PACKED)), "verification failed for digest"),
    "truncated layer": (LAYER_PATH, claim(200, 1000, PACKED[:1000]), "where the manifest says"),
    "layer longer than it may be": (LAYER_PATH, claim(200, len(PACKED) + 1, PACKED + b"x"), "where the manifest says"),
    "length that does not come": (LAYER_PATH, claim(200, len(PACKED), PACKED[:-7]), "broke off|ended at"),
    "endless layer": (LAYER_PATH, endless, "sent more than|verification failed|damaged compressed data|not a"),
    "endless manifest": (MANIFEST, endless, "more than 4194304 bytes"),
    "endless config": (CONFIG_PATH, endless, "more than 4194304 bytes"),
    "huge manifest": (MANIFEST, lambda e: e.reply(200, b" " * (4 << 20) + b"{}"), "more than 4194304 bytes"),
    "manifest that is no JSON": (MANIFEST, lambda e: e.reply(200, b"<html>"), "invalid manifest of"),
    "manifest of nothing": (MANIFEST, json_of({"schemaVersion": 2}), "neither an index nor a manifest"),
    "manifest that is both": (MANIFEST, changed(manifests=[]), "both an index and a manifest"),
    "schema 1": (MANIFEST, lambda e: e.reply(200, b"{}", Content_Type=SCHEMA1), "schema 1, which has no digests"),
    "wrong digest header": (
        MANIFEST, lambda e: e.reply(200, e.server.manifests["1"][0], Docker_Content_Digest=digest(b"x")),
        "manifest verification failed for digest",
    ),
    "unknown digest algorithm": (
        MANIFEST, changed(digest="sha512:" + "0" * 128), "unsupported digest algorithm 'sha512'",
    ),
    "digest that is a path": (MANIFEST, changed(digest="sha256:../../etc/passwd"), "invalid digest"),
    "negative size": (MANIFEST, changed(size=-1), "invalid size -1"),
    "other size": (MANIFEST, changed(size=len(PACKED) - 1), "where the manifest says"),
    "foreign layer": (
        MANIFEST, changed(layerType="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", urls=["http://x"]),
        "is a foreign layer",
    ),
    "unknown layer": (MANIFEST, changed(layerType="application/zip"), "unknown media type 'application/zip'"),
    "something that is no image": (
        MANIFEST, changed(configType=HELM), 'Encountered remote "application/vnd.cncf',
    ),
    "fewer layers than the config says": (MANIFEST, changed(layers=[]), "has 0 layers, its config 1"),
    "wrong config": (CONFIG_PATH, lambda e: e.reply(200, wrong(config_of([BIG]))), "image config verification failed"),
    "range that is another": (LAYER_PATH, other_part, "another part of"),
    "range with other bytes": (LAYER_PATH, other_bytes, "verification failed for digest"),
    "206 that nobody asked for": (LAYER_PATH, lambda e: e.reply(206, PACKED), "another part of"),
    "stall before the answer": (LAYER_PATH, lambda e: time.sleep(2.5), "timeout|broke off|closed"),
    "stall within the body": (LAYER_PATH, stall(1000), "broke off at 1000 bytes"),
    "ten megabytes of headers": (MANIFEST, many_headers, "headers"),
    "redirect around": (MANIFEST, around, "stopped after 10 redirects"),
    "redirect to a file": (LAYER_PATH, redirect("file:///etc/passwd"), "only http and https are followed"),
    "redirect to a socket": (LAYER_PATH, redirect("unix:///run/docker.sock"), "only http and https are followed"),
    "redirect to the cloud's own": (
        LAYER_PATH, redirect("http://169.254.169.254/latest/meta-data"), "where a registry may not send anybody",
    ),
    "redirect to nowhere": (LAYER_PATH, lambda e: e.reply(307), "a redirect to nowhere"),
    "redirect with a password": (LAYER_PATH, redirect("http://a:b@127.0.0.1/x"), "refusing the URL"),
    "429": (LAYER_PATH, lambda e: e.reply(429, Retry_After="0"), "429"),
    "500": (LAYER_PATH, lambda e: e.reply(500), "500"),
    "503 for an hour": (LAYER_PATH, lambda e: e.reply(503, Retry_After="3600"), "503"),
    "503 for the manifest": (MANIFEST, lambda e: e.reply(503, TEA), r"unavailable: tea \[2J"),
    "404 for the layer": (LAYER_PATH, lambda e: e.reply(404), "404|unknown"),
    "gzip of a gzip by the way": (
        LAYER_PATH, lambda e: e.reply(200, gzip.compress(PACKED), Content_Encoding="gzip"), "where the manifest says",
    ),
}  # fmt: skip


@pytest.fixture
def offered(registry: Liar) -> str:
    registry.put_image([BIG])
    return f"{registry.host}/a/b:1"


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_left_and_the_next_try_works(desk: Desk, registry: Liar, offered: str, case: str) -> None:
    before = desk.state()
    path, answer, words = CASES[case]
    registry.tricks.append(on(path, answer))
    with pytest.raises(EngineError, match=words):
        desk.pull(offered)
    assert desk.state() == before
    registry.tricks.clear()
    desk.pull(offered)
    assert desk.store.tags() == [offered]


@pytest.mark.parametrize("answer", [
    lambda e: e.reply(429, Retry_After="0"), lambda e: e.reply(503), breaking_off(PACKED, 1000),
    claim(200, len(PACKED), b""),
])  # fmt: skip
def test_what_passes_is_tried_again(
    desk: Desk, registry: Liar, offered: str, answer: Callable[[Exchange], None]
) -> None:
    registry.tricks.append(on(LAYER_PATH, answer, times=2))
    desk.pull(offered)
    assert desk.store.tags() == [offered]


def test_retry_after_is_kept(desk: Desk, registry: Liar, offered: str) -> None:
    registry.tricks.append(on(MANIFEST, lambda e: e.reply(429, Retry_After="1"), times=1))
    began = time.monotonic()
    desk.pull(offered)
    assert time.monotonic() - began >= 1


def test_a_config_that_lies_about_its_layers(desk: Desk, registry: Liar) -> None:
    """The layer is what the manifest says, and not what the config says: the digest of the config would name others."""
    before = desk.state()
    registry.put_image([LAYER], config=config_of([UPPER]))
    with pytest.raises(EngineError, match="layers from manifest don't match image configuration"):
        desk.pull(f"{registry.host}/a/b:1")
    assert desk.state() == before


def test_the_second_layer_is_bad(desk: Desk, registry: Liar) -> None:
    """The first has been made by then, and goes again."""
    before = desk.state()
    registry.put_image([LAYER, BIG])
    registry.tricks.append(on(LAYER_PATH, lambda e: e.reply(200, wrong(PACKED))))
    with pytest.raises(EngineError, match="verification failed"):
        desk.pull(f"{registry.host}/a/b:1")
    assert desk.state() == before


def test_a_layer_that_is_no_tar(desk: Desk, registry: Liar) -> None:
    before = desk.state()
    registry.put_image([b"not a tar at all" * 100])
    with pytest.raises(EngineError):
        desk.pull(f"{registry.host}/a/b:1")
    assert desk.state() == before


def test_a_byte_a_second_is_too_slow(
    desk: Desk, registry: Liar, offered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It never waits as long as a timeout takes."""
    monkeypatch.setattr("wherry.registry.reader.PACE_SECONDS", 0.5)

    def drip(exchange: Exchange) -> None:
        exchange.send_response(200)
        exchange.send_header("Content-Length", str(len(PACKED)))
        exchange.end_headers()
        for place in range(12):
            exchange.wfile.write(PACKED[place : place + 1])
            exchange.wfile.flush()
            time.sleep(0.1)
        exchange.close_connection = True

    registry.tricks.append(on(LAYER_PATH, drip))
    with pytest.raises(EngineError, match="less than 256 bytes per second"):
        desk.pull(offered)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """256 MiB, of which 192 are held back."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_bomb_stops_before_the_disk_is_full(small_disk: Path, registry: Liar) -> None:
    """A megabyte that unpacks to more than there is."""
    compressor = zlib.compressobj(1, zlib.DEFLATED, 31)
    bomb = b"".join(compressor.compress(bytes(1 << 20)) for _ in range(300)) + compressor.flush()
    registry.put_image([b""], compress=lambda _: bomb)
    with Desk(small_disk) as desk:
        before = desk.state()
        with pytest.raises(EngineError, match="MiB are free"):
            desk.pull(f"{registry.host}/a/b:1")
        assert desk.state() == before
        state = os.statvfs(small_disk)
        assert state.f_bavail * state.f_frsize > 240 << 20
        registry.put_image([LAYER], "2")
        desk.pull(f"{registry.host}/a/b:2")


def test_a_disk_that_becomes_full(small_disk: Path, registry: Liar) -> None:
    plain = {"compress": lambda data: data, "layer_type": "application/vnd.oci.image.layer.v1.tar"}
    registry.put_image([tars.archive([file("much", os.urandom(80 << 20))])], **plain)
    with Desk(small_disk) as desk:
        before = desk.state()
        with pytest.raises(EngineError, match="MiB are free"):
            desk.pull(f"{registry.host}/a/b:1")
        assert desk.state() == before


def test_poison_of_a_failed_pull_is_not_used_later(desk: Desk, registry: Liar, offered: str) -> None:
    """RG-07: a bad blob under a good digest; then a good pull, whose content is what it should be."""
    registry.tricks.append(on(LAYER_PATH, lambda e: e.reply(200, gzip.compress(LAYER))))
    with pytest.raises(EngineError):
        desk.pull(offered)
    registry.tricks.clear()
    desk.pull(offered)
    chain = desk.store.images.resolve(offered).chain_id
    assert (desk.root / "snapshots/overlay2/layers" / chain / "fs/big").read_bytes() == BIG[512 : 512 + (1 << 20)]


def test_the_type_of_a_config_is_not_a_reason_to_fail(desk: Desk, registry: Liar, offered: str) -> None:
    registry.tricks.append(on(MANIFEST, changed(configType=DOCKER_CONFIG)))
    desk.pull(offered)
