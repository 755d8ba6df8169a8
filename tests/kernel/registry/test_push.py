"""Pushes to a registry that is honest, slow, or breaks off."""

from __future__ import annotations

import hashlib
import json
import zlib
from typing import Any

import pytest

from tests.kernel.images.store import LAYER, UPPER
from tests.kernel.registry.desk import Desk
from tests.liars import Exchange, Liar, digest, on
from tests.tars import config_of, docker_archive
from wherry.errors import EngineError

pytestmark = pytest.mark.root


class Shelf:
    """Uploads as the distribution spec has them, as a trick."""

    def __init__(self, registry: Liar) -> None:
        self.registry = registry
        self.parts: dict[str, bytes] = {}
        self.manifests: dict[str, Any] = {}

    def __call__(self, exchange: Exchange) -> bool:
        path, _, query = exchange.path.partition("?")
        if exchange.command == "POST":
            place = f"/upload/{len(self.parts)}"
            self.parts[place] = b""
            exchange.reply(202, Location=f"{place}?state=1")
        elif exchange.command == "PATCH":
            self.parts[path] += exchange.body
            exchange.reply(202, Location=f"{path}?state=2")
        elif exchange.command == "PUT" and path in self.parts:
            assert f"digest={digest(self.parts[path]).replace(':', '%3A')}" in query
            assert "state=2" in query
            exchange.reply(201, Docker_Content_Digest=self.registry.put_blob(self.parts.pop(path)))
        elif exchange.command == "PUT":
            self.manifests[path.rpartition("/")[2]] = json.loads(exchange.body)
            exchange.reply(201)
        elif exchange.command == "DELETE":
            self.parts.pop(path, None)
            exchange.reply(204)
        else:
            return False
        return True


@pytest.fixture
def shelf(registry: Liar) -> Shelf:
    made = Shelf(registry)
    registry.tricks.append(made)
    return made


def test_what_is_there_afterwards(desk: Desk, registry: Liar, shelf: Shelf) -> None:
    name = f"{registry.host}/a/b:1"
    desk.store.load(docker_archive([LAYER, UPPER], [name]))
    told = desk.push(name)
    manifest = shelf.manifests["1"]
    assert manifest["config"]["digest"] == digest(config_of([LAYER, UPPER]))
    assert registry.blobs[manifest["config"]["digest"]] == config_of([LAYER, UPPER])
    sent = [zlib.decompress(registry.blobs[each["digest"]], 31) for each in manifest["layers"]]
    assert sent == [LAYER, UPPER]
    sizes = {each["digest"]: each["size"] for each in manifest["layers"]}
    assert sizes == {name: len(registry.blobs[name]) for name in sizes}
    assert told[0] == f"The push refers to repository [{registry.host}/a/b]"
    assert told[1:3] == ["Preparing", "Preparing"]
    assert [each["id"] for each in desk.said[1:3]] == [digest(UPPER)[7:19], digest(LAYER)[7:19]]
    assert shelf.parts == {}
    data = json.dumps(manifest, separators=(",", ":")).encode()
    assert told[-1] == f"1: digest: {digest(data)} size: {len(data)}"
    assert desk.said[-1]["aux"] == {"Tag": "1", "Digest": digest(data), "Size": len(data)}
    assert desk.store.images.inspect(name)["RepoDigests"] == [f"{registry.host}/a/b@{digest(data)}"]


def test_the_same_layer_is_the_same_blob_each_time(desk: Desk, registry: Liar, shelf: Shelf) -> None:
    """Also when nothing is known of it any more."""
    name = f"{registry.host}/a/b:1"
    found = []
    for _ in range(2):
        desk.store.load(docker_archive([LAYER], [name]))
        desk.push(name)
        found.append(shelf.manifests.pop("1")["layers"][0]["digest"])
        desk.store.remove(name)
        registry.blobs.clear()
    assert found[0] == found[1]


def test_an_upload_that_breaks_off_begins_anew(desk: Desk, registry: Liar, shelf: Shelf) -> None:
    def hang_up(exchange: Exchange) -> None:
        exchange.close_connection = True

    registry.tricks.insert(0, on("/upload/", hang_up, times=1, method="PATCH"))
    name = f"{registry.host}/a/b:1"
    desk.store.load(docker_archive([LAYER], [name]))
    desk.push(name)
    assert zlib.decompress(registry.blobs[shelf.manifests["1"]["layers"][0]["digest"]], 31) == LAYER
    assert shelf.parts == {}  # the first one was given up


@pytest.mark.parametrize(("method", "part"), [("POST", "/uploads/"), ("PATCH", "/upload/"), ("PUT", "/upload/"),
                                              ("PUT", "/manifests/"), ("HEAD", "/blobs/")])  # fmt: skip
def test_a_refusal_is_told_and_nothing_is_noted(
    desk: Desk, registry: Liar, shelf: Shelf, method: str, part: str
) -> None:
    denied = b'{"errors":[{"code":"DENIED","message":"not yours"}]}'
    registry.tricks.insert(0, on(part, lambda e: e.reply(403, denied), method=method))
    name = f"{registry.host}/a/b:1"
    desk.store.load(docker_archive([LAYER], [name]))
    before = desk.state()
    with pytest.raises(EngineError, match="denied: not yours" if method != "HEAD" else "403"):
        desk.push(name)
    assert desk.state() == before


def test_a_registry_that_stores_something_else(desk: Desk, registry: Liar, shelf: Shelf) -> None:
    other = f"sha256:{hashlib.sha256(b'other').hexdigest()}"
    registry.tricks.insert(0, on("/upload/", lambda e: e.reply(201, Docker_Content_Digest=other), method="PUT"))
    name = f"{registry.host}/a/b:1"
    desk.store.load(docker_archive([LAYER], [name]))
    with pytest.raises(EngineError, match=f"has stored {other} where"):
        desk.push(name)
