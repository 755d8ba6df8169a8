"""The image store on a real driver: what comes in, what it is called, and what is left when it goes or fails."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import tars
from tests.tars import config_of, digest, docker_archive, docker_archives, file, folder
from tests.trash import settle
from wherry.errors import Conflict, InvalidArgument, NotFound, SystemFailure
from wherry.images.images import Images
from wherry.snapshots.choice import choose
from wherry.snapshots.drivers.overlay2 import Overlay2
from wherry.store.database import Database

pytestmark = pytest.mark.root

LAYER = tars.archive([folder("bin"), file("bin/sh", b"#!\n" * 10, mode=0o755)])
UPPER = tars.archive([file("etc/name", b"upper")])
NO_FILTERS: dict[str, list[str]] = {}


class Store:
    """An image store with its own root, whose state on disk and in the database can be compared."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = 1_700_000_000_000_000_000
        self.said: list[dict[str, Any]] = []
        self.open()

    def open(self) -> None:
        self.database = Database(self.root / "meta.db")
        self.driver = Overlay2(self.root / "snapshots" / "overlay2")
        self.images = Images(self.database, self.root, self.driver, clock=self.tick)

    def close(self) -> None:
        self.database.close()
        settle()

    def tick(self) -> int:
        self.now += 1_000_000_000
        return self.now

    def load(self, data: bytes) -> list[str]:
        self.said = []
        return self.images.load(io.BytesIO(data), self.said.append)

    def put(self, data: bytes = LAYER, repo: str = "", tag: str = "", **more: Any) -> str:
        options: dict[str, Any] = {"message": "", "changes": [], "platform": ""} | more
        return self.images.import_(io.BytesIO(data), repo=repo, tag=tag, **options)

    def remove(self, ref: str, *, force: bool = False, users: Any = None) -> list[dict[str, str]]:
        return self.images.remove(ref, force=force, noprune=False, users=users or (lambda _: []))

    def tags(self) -> list[str]:
        return sorted(tag for entry in self.images.listing(all=False, filters=NO_FILTERS) for tag in entry["RepoTags"])

    def state(self) -> tuple[Any, ...]:
        """Everything that an image can leave behind."""
        folders = ("content/blobs/sha256", "content/tmp", "content/spool")
        names = [sorted(os.listdir(self.root / each)) for each in folders]
        tables = [self.database.query(f"SELECT * FROM {each}") for each in ("images", "layers", "tags", "content")]
        making = [sorted(os.listdir(self.root / "snapshots/overlay2" / each)) for each in ("layers", "ingest", "new")]
        return (*names, *tables, *making)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path)
    yield made
    made.close()


# Coming


def test_load_gives_the_digest_of_the_config_as_id(store: Store) -> None:
    assert store.load(docker_archive([LAYER, UPPER], ["a:1", "b/c:2"])) == [digest(config_of([LAYER, UPPER]))]
    assert store.tags() == ["a:1", "b/c:2"]
    assert [each["stream"] for each in store.said if "stream" in each] == [
        "Loaded image: a:1\n", "Loaded image: b/c:2\n",
    ]  # fmt: skip
    assert {each["id"] for each in store.said if each.get("status") == "Loading layer"} == {
        digest(LAYER)[7:19], digest(UPPER)[7:19],
    }  # fmt: skip
    image = store.images.resolve("a:1")
    assert image.config.cmd == ["sh"]
    assert image.size == 30 + 5
    assert [info.name for info in store.driver.walk() if info.committed and info.parent] == [image.chain_id]


def test_what_is_there_already_writes_no_layer(store: Store) -> None:
    first = store.load(docker_archive([LAYER, UPPER], ["a:1"]))
    before = store.state()
    assert store.load(docker_archive([LAYER, UPPER], ["a:1"])) == first
    after = store.state()
    assert [*before[:5], before[6:]] == [*after[:5], after[6:]]
    assert not any("status" in each for each in store.said)


def test_two_images_share_their_layers(store: Store) -> None:
    other = config_of([LAYER], author="somebody")
    data = docker_archives([([LAYER, UPPER], ["a:1"], config_of([LAYER, UPPER])), ([LAYER], ["b:1"], other)])
    store.load(data)
    assert store.tags() == ["a:1", "b:1"]
    assert len(list(store.driver.walk())) == 2
    assert store.remove("a:1")[-1]["Deleted"].startswith("sha256:")
    assert len(list(store.driver.walk())) == 1


def test_an_image_without_layers(store: Store) -> None:
    store.load(docker_archive([], ["empty:1"]))
    image = store.images.resolve("empty:1")
    assert (image.chain_id, image.size) == ("", 0)
    assert store.images.inspect("empty:1")["RootFS"] == {"Type": "layers", "Layers": []}


def test_an_image_without_names_is_reported_by_id(store: Store) -> None:
    (image_id,) = store.load(docker_archive([LAYER], []))
    assert {"stream": f"Loaded image ID: {image_id}\n"} in store.said
    assert store.images.listing(all=False, filters=NO_FILTERS)[0]["RepoTags"] == []


def test_a_name_moves_and_the_old_image_is_told(store: Store) -> None:
    (old,) = store.load(docker_archive([LAYER], ["a:1"]))
    (new,) = store.load(docker_archive([UPPER], ["a:1"]))
    assert store.images.resolve("a:1").id == new
    said = [each["stream"] for each in store.said if "stream" in each]
    assert said[0] == f"The image a:1 already exists, renaming the old one with ID {old} to empty string\n"


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_archives_and_compressed_layers(store: Store, compress: Callable[[bytes], bytes]) -> None:
    layer = compress(LAYER)
    members = [
        file("config.json", config_of([LAYER])), file("layer.tar.x", layer),
        file("manifest.json", json.dumps([{"Config": "config.json", "RepoTags": ["z:1"], "Layers": ["layer.tar.x"]}])
             .encode()),
    ]  # fmt: skip
    (image_id,) = store.load(compress(tars.archive(members)))
    assert image_id == digest(config_of([LAYER]))
    assert store.images.resolve("z:1").chain_id == digest(LAYER)[7:]


def test_an_archive_of_an_old_docker_with_linked_layers(store: Store) -> None:
    manifest = [{"Config": "c.json", "RepoTags": ["old:1"], "Layers": ["one/layer.tar", "two/layer.tar"]}]
    store.load(
        tars.archive(
            [
                folder("one"), file("one/layer.tar", LAYER), folder("two"),
                tars.link("two/layer.tar", "../one/layer.tar"), file("c.json", config_of([LAYER, LAYER])),
                file("manifest.json", json.dumps(manifest).encode()),
            ]
        )
    )  # fmt: skip
    assert len(store.images.inspect("old:1")["RootFS"]["Layers"]) == 2


def layout(*, name: str = "", break_it: Callable[[dict[str, Any]], None] | None = None) -> bytes:
    """An OCI layout with one gzip layer, reached by way of an index for two architectures."""
    layer = gzip.compress(LAYER, mtime=0)
    config = config_of([LAYER])
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _descriptor(config, "application/vnd.oci.image.config.v1+json"),
        "layers": [_descriptor(layer, "application/vnd.oci.image.layer.v1.tar+gzip")],
    }
    if break_it:
        break_it(manifest)
    manifest_bytes = json.dumps(manifest).encode()
    here = _descriptor(manifest_bytes, "application/vnd.oci.image.manifest.v1+json")
    other = here | {"digest": digest(b"not there"), "platform": {"architecture": "s390x", "os": "linux"}}
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    inner = json.dumps({"schemaVersion": 2, "manifests": [other, here | {
        "platform": {"architecture": machine, "os": "linux"}}]}).encode()  # fmt: skip
    outer = _descriptor(inner, "application/vnd.oci.image.index.v1+json")
    outer["annotations"] = {"io.containerd.image.name": name} if name else {}
    blobs = [layer, config, manifest_bytes, inner]
    members = [file(f"blobs/sha256/{digest(each)[7:]}", each) for each in blobs]
    index = json.dumps({"schemaVersion": 2, "manifests": [outer]}).encode()
    return tars.archive([*members, file("index.json", index), file("oci-layout", b"{}")])


def _descriptor(data: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest(data), "size": len(data)}


def test_an_oci_layout(store: Store) -> None:
    (image_id,) = store.load(layout(name="docker.io/library/oci:1"))
    assert image_id == digest(config_of([LAYER]))
    assert store.tags() == ["oci:1"]
    assert len(os.listdir(store.root / "content/blobs/sha256")) == 2  # the config and the manifest
    store.remove("oci:1")
    assert os.listdir(store.root / "content/blobs/sha256") == []


def test_import_makes_an_image_of_one_layer(store: Store) -> None:
    image_id = store.put(repo="a/b", changes=["CMD x", "ENV A=b"], message="hello", platform="linux/arm64/v8")
    body = store.images.inspect("a/b")
    assert body["Id"] == image_id == digest((store.root / "content/blobs/sha256" / image_id[7:]).read_bytes())
    assert (body["Comment"], body["Architecture"], body["Variant"]) == ("hello", "arm64", "v8")
    assert body["Config"]["Cmd"] == ["/bin/sh", "-c", "x"]
    assert body["RootFS"]["Layers"] == [digest(LAYER)]
    assert body["RepoTags"] == ["a/b:latest"]
    assert store.put(gzip.compress(LAYER)) != image_id
    assert len(list(store.driver.walk())) == 1


def test_import_refuses_before_it_reads(store: Store) -> None:
    before = store.state()
    for options in (
        {"repo": "UP"}, {"repo": "a", "tag": "-"}, {"changes": ["NO x"]}, {"platform": "a/b/c/d"},
        {"platform": "windows"},
    ):  # fmt: skip
        with pytest.raises(InvalidArgument):
            store.put(**options)  # type: ignore[arg-type]
    assert store.state() == before


# Bad archives


def bad_archives() -> dict[str, bytes]:
    good = docker_archive([LAYER, UPPER], ["a:1"])

    def with_manifest(manifest: Any, *more: tars.Member) -> bytes:
        text = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
        return tars.archive([file("c.json", config_of([LAYER])), file("l", LAYER), *more, file("manifest.json", text)])

    entry = {"Config": "c.json", "RepoTags": ["a:1"], "Layers": ["l"]}
    return {
        "nothing": b"",
        "garbage": os.urandom(5000),
        "cut": good[: len(good) // 2],
        "no manifest": tars.archive([file("x")]),
        "manifest cut": with_manifest(b"[{"),
        "manifest of another type": with_manifest({"Config": 1}),
        "manifest too deep": with_manifest(b"[" * 100_000),
        "manifest too large": with_manifest(b" " * (5 << 20)),
        "config outside": with_manifest([entry | {"Config": "../../etc/passwd"}]),
        "layer outside": with_manifest([entry | {"Layers": ["/etc/shadow"]}]),
        "layer by a link outside": with_manifest([entry | {"Layers": ["k"]}], tars.link("k", "/etc/shadow")),
        "links in a circle": with_manifest([entry | {"Layers": ["k"]}], tars.link("k", "k")),
        "too few layers": with_manifest([entry | {"Layers": []}]),
        "too many layers": with_manifest([entry | {"Layers": ["l", "l"]}]),
        "name without a tag": with_manifest([entry | {"RepoTags": ["a"]}]),
        "name in capitals": with_manifest([entry | {"RepoTags": ["A:1"]}]),
        "second image bad": with_manifest([entry, entry | {"Config": "none"}]),
        "layer with another digest": docker_archive([LAYER], ["a:1"], config=config_of([UPPER])),
        "layer that is no tar": docker_archive([b"x" * 5000], ["a:1"]),
        "member that leads out": tars.archive([file("../x"), file("manifest.json", b"[]")]),
        "blob that is not its name": tars.archive(
            [file("blobs/sha256/" + "0" * 64, config_of([LAYER])), file("l", LAYER),
             file("manifest.json", json.dumps([entry | {"Config": "blobs/sha256/" + "0" * 64}]).encode())]
        ),
        "layout with a wrong size": layout(break_it=lambda m: m["config"].update(size=1)),
        "layout with a wrong digest": layout(break_it=lambda m: m["layers"][0].update(digest=digest(b"x"))),
        "layout with a digest that is a path": layout(break_it=lambda m: m["config"].update(digest="sha256:../../x")),
        "layout both index and manifest": layout(break_it=lambda m: m.update(manifests=[])),
        "layout with the wrong type": layout(
            break_it=lambda m: m.update(mediaType="application/vnd.oci.image.index.v1+json")
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", bad_archives())
def test_a_bad_archive_leaves_nothing(store: Store, name: str) -> None:
    before = store.state()
    with pytest.raises(InvalidArgument) as caught:
        store.load(bad_archives()[name])
    assert len(caught.value.message) < 1000
    assert store.state() == before


CONFIGS = {
    "no rootfs": {"rootfs": None},
    "diff id as a path": {"rootfs": {"type": "layers", "diff_ids": ["sha256:../../etc"]}},
    "another rootfs": {"rootfs": {"type": "base", "diff_ids": []}},
    "another system": {"os": "windows"},
    "created is no time": {"created": "yesterday"},
    "env is a number": {"config": {"Env": 5}},
    "env with a NUL": {"config": {"Env": ["A=\0"]}},
    "env with a million entries": {"config": {"Env": ["A=b"] * 200_000}},
    "history is a string": {"history": "x"},
    "labels is a list": {"config": {"Labels": ["x"]}},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_bad_config_leaves_nothing(store: Store, name: str) -> None:
    before = store.state()
    with pytest.raises(InvalidArgument):
        store.load(docker_archive([LAYER], ["a:1"], config=config_of([LAYER], **CONFIGS[name])))
    assert store.state() == before


def test_damage_to_every_json_is_an_error_and_nothing_more(store: Store) -> None:
    rng = random.Random(11)
    before = store.state()
    config = config_of([LAYER])
    for _ in range(300):
        broken = bytearray(config)
        for _ in range(rng.randrange(1, 4)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        data = docker_archive([LAYER], [], config=bytes(broken))
        try:
            store.remove(store.load(data)[0])
        except InvalidArgument:
            pass
    assert store.state() == before


def test_a_failing_disk_leaves_nothing_and_the_next_try_works(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = store.state()
    with monkeypatch.context() as patch:
        patch.setattr(Overlay2, "flush", lambda _: (_ for _ in ()).throw(SystemFailure("the disk is full")))
        with pytest.raises(SystemFailure, match="the disk is full"):
            store.load(docker_archive([LAYER], ["a:1"]))
    assert store.state() == before
    store.load(docker_archive([LAYER], ["a:1"]))
    assert store.tags() == ["a:1"]


def test_too_little_space_stops_the_load(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wherry.kernel.fsio.space.RESERVE", 1 << 62)
    before = store.state()
    with pytest.raises(SystemFailure, match="MiB are free"):
        store.load(docker_archive([LAYER], ["a:1"]))
    assert store.state() == before


@pytest.mark.parametrize("place", ["put", "put_image", "flush"])
def test_a_kill_at_any_step_leaves_what_was_or_what_should_be(store: Store, place: str) -> None:
    """The killed process shares the root; a new one finds it."""
    store.load(docker_archive([UPPER], ["kept:1"]))
    before = store.state()
    store.database.close()
    owner = {"put": "wherry.images.content:Content", "put_image": "wherry.images.rows:Rows",
             "flush": "wherry.snapshots.layout:Layout"}[place]  # fmt: skip
    module, name = owner.split(":")
    script = (
        "import io, os, sys, importlib; from pathlib import Path; from tests import tars\n"
        "from tests.kernel.images.test_images import Store, LAYER, docker_archive\n"
        f"owner = getattr(importlib.import_module('{module}'), '{name}')\n"
        f"store = Store(Path('{store.root}'))\n"
        f"setattr(owner, '{place}', lambda *a, **k: os.kill(os.getpid(), 9))\n"
        "store.load(docker_archive([LAYER], ['a:1']))\n"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[3], check=False)
    assert result.returncode == -9
    store.open()
    store.driver.sweep()
    assert store.state() == before
    store.load(docker_archive([LAYER], ["a:1"]))
    assert store.tags() == ["a:1", "kept:1"]


def test_two_loads_at_once(store: Store) -> None:
    data = docker_archive([LAYER, UPPER], ["a:1"])
    results: list[Any] = []

    def work() -> None:
        try:
            results.append(store.images.load(io.BytesIO(data), lambda _: None))
        except BaseException as error:
            results.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[digest(config_of([LAYER, UPPER]))]] * 4
    assert store.tags() == ["a:1"]


# Looking


def test_lookup_by_everything(store: Store) -> None:
    image_id = store.put(repo="name", tag="t")
    for ref in ("name:t", "docker.io/library/name:t", image_id, image_id[7:], image_id[:20], image_id[7:11]):
        assert store.images.resolve(ref).id == image_id
    for ref, text in (
        ("name", "No such image: name:latest"), ("f" * 64, f"No such image: sha256:{'f' * 64}"),
        ("sha256:zz", "No such image: sha256:zz"),
    ):  # fmt: skip
        with pytest.raises(NotFound) as caught:
            store.images.resolve(ref)
        assert caught.value.message == text
    with pytest.raises(InvalidArgument, match="must be lowercase"):
        store.images.resolve("UPPER")


def test_an_ambiguous_start_of_an_id_is_no_image(store: Store) -> None:
    seen: dict[str, str] = {}
    while True:
        image_id = store.put()
        if image_id[7] in seen:
            break
        seen[image_id[7]] = image_id
    with pytest.raises(NotFound):
        store.images.resolve(image_id[7])


def test_the_shape_of_a_list_entry(store: Store) -> None:
    store.load(docker_archive([LAYER], ["a:1"]))
    (entry,) = store.images.listing(all=False, filters=NO_FILTERS)
    assert entry == {
        "Containers": -1, "Created": 1714979289, "Id": digest(config_of([LAYER])), "Labels": {"a": "b"},
        "ParentId": "", "RepoDigests": [], "RepoTags": ["a:1"], "SharedSize": -1, "Size": 30,
    }  # fmt: skip


def test_history_counts_empty_layers(store: Store) -> None:
    steps = [
        {"created": "2024-01-01T00:00:00Z", "created_by": "ADD"},
        {"created": "2024-01-01T00:00:01+01:00", "created_by": "CMD", "empty_layer": True, "comment": "c"},
    ]
    store.load(docker_archive([LAYER], ["a:1"], config=config_of([LAYER], history=steps)))
    newest, oldest = store.images.history("a:1")
    assert (newest["Size"], newest["CreatedBy"], newest["Comment"], newest["Tags"]) == (0, "CMD", "c", ["a:1"])
    assert newest["Created"] == 1704063601
    assert (oldest["Id"], oldest["Size"], oldest["Tags"], oldest["Created"]) == ("<missing>", 30, None, 1704067200)


def test_filters(store: Store) -> None:
    first = store.put(repo="one", changes=["LABEL k=v"])
    second = store.put(repo="team/two", tag="x")
    third = store.put()

    def found(**filters: list[str]) -> list[str]:
        return [entry["Id"] for entry in store.images.listing(all=False, filters=filters)]

    assert found() == [third, second, first]
    assert found(dangling=["true"]) == [third]
    assert found(dangling=["false"]) == [second, first]
    assert found(label=["k"]) == found(label=["k=v"]) == [first]
    assert found(label=["k=w"]) == []
    assert found(reference=["o*"]) == [first]
    assert found(reference=["*"]) == [first]
    assert found(reference=["*/*:x"]) == [second]
    assert found(before=["team/two:x"]) == [first]
    assert found(since=["one"]) == [third, second]
    assert found(until=["1h"]) == []
    for filters, text in (
        ({"bogus": ["a"]}, "invalid filter 'bogus'"), ({"dangling": ["maybe"]}, "invalid filter 'dangling=[maybe]'"),
    ):  # fmt: skip
        with pytest.raises(InvalidArgument) as caught:
            store.images.listing(all=False, filters=filters)
        assert caught.value.message == text


def test_a_damaged_config_is_named(store: Store) -> None:
    image_id = store.put(repo="a")
    store.database.close()
    (store.root / "content/blobs/sha256" / image_id[7:]).write_bytes(b"{}")
    store.open()
    with pytest.raises(SystemFailure, match="is damaged"):
        store.images.resolve("a")


# Names and going


def test_tag(store: Store) -> None:
    image_id = store.put(repo="a")
    assert store.images.tag("a", "b/c", "") == "b/c:latest"
    assert store.images.tag(image_id[:20], "localhost:5000/x", "1") == "localhost:5000/x:1"
    assert store.images.tag("a", "", "") == ""
    assert store.tags() == ["a:latest", "b/c:latest", "localhost:5000/x:1"]
    with pytest.raises(NotFound, match="No such image: nope:latest"):
        store.images.tag("nope", "b", "x")


def test_names_go_one_by_one_and_the_image_with_the_last(store: Store) -> None:
    empty = store.state()
    image_id = store.put(repo="a")
    store.images.tag("a", "b", "")
    assert store.remove("a") == [{"Untagged": "a:latest"}]
    assert store.remove("b") == [
        {"Untagged": "b:latest"}, {"Deleted": image_id}, {"Deleted": digest(LAYER)},
    ]  # fmt: skip
    assert store.state() == empty


def test_by_id_with_several_names(store: Store) -> None:
    image_id = store.put(repo="a")
    store.images.tag("a", "a", "2")
    with pytest.raises(Conflict) as caught:
        store.remove(image_id)
    short = image_id[7:19]
    assert caught.value.message == (
        f"conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
    )
    assert store.remove(short, force=True)[:3] == [
        {"Untagged": "a:2"}, {"Untagged": "a:latest"}, {"Deleted": image_id},
    ]  # fmt: skip


def test_used_by_a_stopped_container(store: Store) -> None:
    image_id = store.put(repo="a")
    short = image_id[7:19]

    def users(_: str) -> list[tuple[str, bool]]:
        return [("0123456789abcdef", False)]

    with pytest.raises(Conflict) as caught:
        store.remove("a", users=users)
    assert caught.value.message == (
        'conflict: unable to remove repository reference "a" (must force) - '
        f"container 0123456789ab is using its referenced image {short}"
    )
    with pytest.raises(Conflict) as caught:
        store.remove(short, users=users)
    assert caught.value.message == (
        f"conflict: unable to delete {short} (must be forced) - image is being used by stopped container 0123456789ab"
    )
    store.driver.prepare("own", store.images.resolve("a").chain_id)
    assert store.remove("a", force=True, users=users) == [{"Untagged": "a:latest"}, {"Deleted": image_id}]
    assert len(list(store.driver.walk())) == 2  # the container still stands on its layer
    store.driver.remove("own")
    assert store.images.collect() == [digest(LAYER)[7:]]
    assert list(store.driver.walk()) == []


def test_used_by_a_running_container(store: Store) -> None:
    image_id = store.put(repo="a")

    def users(_: str) -> list[tuple[str, bool]]:
        return [("0123456789abcdef", True)]

    with pytest.raises(Conflict) as caught:
        store.remove(image_id, force=True, users=users)
    assert caught.value.message == (
        f"conflict: unable to delete {image_id[7:19]} (cannot be forced) - "
        "image is being used by running container 0123456789ab"
    )
    assert store.tags() == ["a:latest"]
    assert store.remove("a", force=True, users=users) == [{"Untagged": "a:latest"}]
    assert store.images.resolve(image_id).id == image_id


def test_prune(store: Store) -> None:
    dangling = store.put()
    used = store.put(UPPER)
    named = store.put(repo="a", changes=["LABEL keep=1"])

    def users(image_id: str) -> list[tuple[str, bool]]:
        return [("c" * 64, False)] if image_id == used else []

    assert store.images.prune(NO_FILTERS, users=users) == {
        "ImagesDeleted": [{"Deleted": dangling}], "SpaceReclaimed": 0,
    }  # fmt: skip
    kept: dict[str, list[str]] = {"dangling": ["false"], "label!": ["keep"]}
    assert store.images.prune(kept, users=users) == {"ImagesDeleted": None, "SpaceReclaimed": 0}
    answer = store.images.prune({"dangling": ["false"]}, users=users)
    assert answer == {
        "ImagesDeleted": [{"Untagged": "a:latest"}, {"Deleted": named}, {"Deleted": digest(LAYER)}],
        "SpaceReclaimed": 30,
    }
    assert store.images.resolve(used).id == used
    with pytest.raises(InvalidArgument, match="invalid filter 'bogus'"):
        store.images.prune({"bogus": ["x"]}, users=users)


def test_everything_is_found_again_after_a_restart(store: Store) -> None:
    image_id = store.put(repo="a")
    state = store.state()
    store.database.close()
    (store.root / "content/tmp/left").write_bytes(b"x")
    (store.root / "content/blobs/sha256" / ("0" * 64)).write_bytes(b"x")
    (store.root / "content/spool/spool.x").mkdir()
    (store.root / "content/spool/spool.x/1").write_bytes(b"x")
    store.driver.ingest("1" * 64, "", io.BytesIO(tars.END))
    store.open()
    assert store.images.resolve("a").id == image_id
    assert store.state() == state


# The choice of the driver


def test_the_driver_is_chosen_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = choose("", tmp_path)
    assert (chosen.snapshotter.name, chosen.reason) == ("overlay2", "the best one that works here")
    assert list(chosen.snapshotter.walk()) == []
    assert choose("vfs", tmp_path).snapshotter.name == "vfs"
    choose("vfs", tmp_path).snapshotter.ingest("1" * 64, "", io.BytesIO(tars.END))
    assert choose("", tmp_path).snapshotter.name == "vfs"
    with pytest.raises(InvalidArgument, match="unknown storage driver 'aufs'; known are: overlay2, vfs"):
        choose("aufs", tmp_path)
    monkeypatch.setattr("wherry.snapshots.drivers.overlay2.problem", lambda _: "no overlayfs")
    chosen = choose("", tmp_path / "other")
    assert (chosen.snapshotter.name, chosen.reason) == (
        "vfs", "the best one that works here; overlay2: no overlayfs",
    )  # fmt: skip
    with pytest.raises(SystemFailure, match="storage driver overlay2 does not work in"):
        choose("overlay2", tmp_path)


def test_images_of_two_drivers_lie_side_by_side(store: Store) -> None:
    store.load(docker_archive([LAYER], ["a:1"]))
    other = choose("vfs", store.root / "snapshots").snapshotter
    images = Images(store.database, store.root, other)
    assert images.listing(all=True, filters=NO_FILTERS) == []
    images.load(io.BytesIO(docker_archive([LAYER], ["a:1"])), store.said.append)
    assert images.resolve("a:1").id == store.images.resolve("a:1").id
