"""Archives for several platforms, and images asked for by platform."""

from __future__ import annotations

import gzip
import io
import json
from typing import Any

import pytest

from tests import tars
from tests.kernel.images.store import LAYER, UPPER, Store
from tests.tars import config_of, digest, docker_archive, docker_archives, file
from wherry.errors import InvalidArgument, NotFound
from wherry.models.manifest import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, host_architecture

pytestmark = pytest.mark.root
HERE = host_architecture()
ARM = '{"os":"linux","architecture":"arm","variant":"v7"}'
NAME = {"io.containerd.image.name": "docker.io/library/m:1", "org.opencontainers.image.ref.name": "1"}


def descriptor(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest(data), "size": len(data), **more}


class Layout:
    """An OCI layout that is being made."""

    def __init__(self) -> None:
        self.blobs: list[bytes] = []

    def put(self, data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        self.blobs.append(data)
        return descriptor(data, media_type, **more)

    def image(self, layer: bytes, architecture: str, *, says: bool = True, **more: Any) -> dict[str, Any]:
        config = self.put(config_of([layer], architecture=architecture), OCI_CONFIG)
        blob = self.put(gzip.compress(layer, mtime=0), f"{OCI_LAYER}+gzip")
        manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [blob]}
        if says:
            more["platform"] = {"os": "linux", "architecture": architecture}
        return self.put(json.dumps(manifest).encode(), OCI_MANIFEST, **more)

    def attestation(self, of: str) -> dict[str, Any]:
        manifest = {"schemaVersion": 2, "config": self.put(b"{}", OCI_CONFIG), "layers": []}
        notes = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": of}
        where = {"os": "unknown", "architecture": "unknown"}
        return self.put(json.dumps(manifest).encode(), OCI_MANIFEST, annotations=notes, platform=where)

    def index(self, manifests: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return self.put(json.dumps({"schemaVersion": 2, "manifests": manifests}).encode(), OCI_INDEX, **more)

    def archive(self, *manifests: dict[str, Any]) -> bytes:
        members = {f"blobs/sha256/{digest(each)[7:]}": each for each in self.blobs}
        members["index.json"] = json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()
        return tars.archive([file(name, data) for name, data in members.items()])


def two(layout: Layout) -> list[dict[str, Any]]:
    arm, here = layout.image(LAYER, "arm"), layout.image(UPPER, HERE)
    return [layout.attestation(here["digest"]), arm, here]


def loaded(store: Store, data: bytes, platform: str = "") -> list[str]:
    store.said = []
    return store.images.load(io.BytesIO(data), store.said.append, platform)


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize(("platform", "layer", "architecture"), [("", UPPER, HERE), (ARM, LAYER, "arm")])
def test_the_image_for_the_machine_or_the_one_asked_for(
    store: Store, nested: bool, platform: str, layer: bytes, architecture: str
) -> None:
    layout = Layout()
    entries = two(layout)
    if nested:
        data = layout.archive(layout.index(entries, annotations=NAME))
    else:  # without an index around them; they share the name
        data = layout.archive(*[each | {"annotations": NAME} for each in entries[1:]])
    assert loaded(store, data, platform) == [digest(config_of([layer], architecture=architecture))]
    assert store.tags() == ["m:1"]
    assert store.images.inspect("m:1")["RootFS"]["Layers"] == [digest(layer)]


def test_a_platform_that_is_not_there(store: Store) -> None:
    before = store.state()
    layout = Layout()
    data = layout.archive(layout.index(two(layout), annotations=NAME))
    with pytest.raises(NotFound, match="no matching manifest for linux/s390x in the manifest list entries"):
        loaded(store, data, '{"os":"linux","architecture":"s390x"}')
    with pytest.raises(NotFound, match="the archive has no image for linux/arm/v7"):
        loaded(store, docker_archive([LAYER], ["a:1"]), ARM)
    with pytest.raises(InvalidArgument, match="failed to parse platform"):
        loaded(store, data, "arm")
    assert store.state() == before


def test_an_archive_gives_only_the_images_for_a_platform(store: Store) -> None:
    config = config_of([UPPER], architecture="arm", variant="v7")
    data = docker_archives([([LAYER], ["a:1"], config_of([LAYER])), ([UPPER], ["b:1"], config)])
    assert loaded(store, data, ARM) == [digest(config)]
    assert store.tags() == ["b:1"]


def test_an_index_of_one_that_does_not_say_for_what(store: Store) -> None:
    layout = Layout()
    image = layout.image(LAYER, HERE, says=False)
    data = layout.archive(layout.index([image, layout.attestation(image["digest"])], annotations=NAME))
    assert len(loaded(store, data)) == 1
    assert store.tags() == ["m:1"]


def test_an_image_for_another_machine_is_loaded_when_it_is_all_there_is(store: Store) -> None:
    layout = Layout()
    loaded(store, layout.archive(layout.image(LAYER, "s390x", annotations=NAME)))
    assert store.images.inspect("m:1")["Architecture"] == "s390x"


def test_the_time_of_a_name_is_when_somebody_gave_it_here(store: Store) -> None:
    """As dockerd has it, a load gives none."""
    store.load(docker_archive([LAYER], ["a:1"]))
    assert store.images.inspect("a:1")["Metadata"]["LastTagTime"] == "0001-01-01T00:00:00Z"
    store.images.tag("a:1", "a", "2")
    assert store.images.inspect("a:1")["Metadata"]["LastTagTime"].startswith("2023-11-14T22:13:")


def test_images_asked_for_by_platform(store: Store) -> None:
    image_id = store.put(repo="a", platform="linux/amd64")
    amd = '{"os":"linux","architecture":"x86_64"}'
    assert store.images.inspect("a", amd)["Id"] == image_id
    assert store.images.history("a", amd)[0]["Id"] == image_id
    with store.images.saved(["a"], amd) as (ids, _):
        assert ids == [image_id]
    text = (
        "image with reference a was found but its platform (linux/amd64) "
        "does not match the specified platform (linux/arm/v7)"
    )
    for ask in (
        lambda: store.images.inspect("a", ARM),
        lambda: store.images.history("a", ARM),
        lambda: store.images.remove("a", force=True, noprune=False, users=lambda _: [], platform=ARM),
    ):
        with pytest.raises(NotFound) as caught:
            ask()
        assert caught.value.message == text
    with pytest.raises(NotFound, match="no suitable export target found for platform linux/arm/v7"):
        store.images.saved(["a"], ARM).__enter__()
    with pytest.raises(InvalidArgument, match="both OS and Architecture must be provided"):
        store.images.inspect("a", '{"os":"linux"}')
    store.images.remove("a", force=False, noprune=False, users=lambda _: [], platform=amd)
    assert store.tags() == []
