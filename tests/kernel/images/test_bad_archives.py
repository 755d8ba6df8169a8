"""Archives, disks and kills that end a load: an error, and nothing is left."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests import tars
from tests.kernel.images.store import LAYER, UPPER, Store, layout
from tests.tars import config_of, digest, docker_archive, file
from wherry.errors import InvalidArgument, SystemFailure
from wherry.snapshots.drivers.overlay2 import Overlay2

pytestmark = pytest.mark.root


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
        "from tests.kernel.images.store import Store, LAYER\n"
        "from tests.tars import docker_archive\n"
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
