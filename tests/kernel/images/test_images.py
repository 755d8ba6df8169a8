"""What docker load and docker import make, and the choice of the driver that holds it."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import json
import lzma
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from tests import tars
from tests.kernel.images.store import LAYER, NO_FILTERS, UPPER, Store, layout
from tests.tars import config_of, digest, docker_archive, docker_archives, file, folder
from tests.trash import settle
from wherry.errors import Conflict, InvalidArgument, NotFound, SystemFailure
from wherry.images.images import Images
from wherry.images.spool import Member, Spool
from wherry.models.parts import Part
from wherry.snapshots.api import SnapshotInfo
from wherry.snapshots.choice import choose
from wherry.snapshots.drivers import erofs

pytestmark = pytest.mark.root


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


def joined(parts: Iterable[Part]) -> bytes:
    """What a client is sent."""
    return b"".join(each if isinstance(each, bytes) else each.path.read_bytes()[: each.size] for each in parts)


def test_what_is_there_already_is_compared_and_not_written(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    large = tars.archive([file("large", os.urandom(3 << 20))])
    data = docker_archive([LAYER, large], ["a:1"])
    (image_id,) = store.load(data)
    written: list[int] = []
    real = Spool._store

    def watched(self: Spool, entry: Any, reader: Any, stored: Path | None) -> Member:
        if stored is None:
            written.append(entry.size)
        return real(self, entry, reader, stored)

    monkeypatch.setattr(Spool, "_store", watched)
    assert store.load(data) == [image_id]
    assert len(written) == 1  # manifest.json
    assert written[0] < 1000
    place = data.index(large) + 1000
    with pytest.raises(InvalidArgument, match="is damaged: its bytes are not those of its digest"):
        store.load(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    with store.images.saved(["a:1"]) as (_, chunks):
        assert large in joined(chunks)


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


def test_an_oci_layout(store: Store) -> None:
    (image_id,) = store.load(layout(name="docker.io/library/oci:1"))
    assert image_id == digest(config_of([LAYER]))
    assert store.tags() == ["oci:1"]
    assert len(os.listdir(store.root / "content/blobs/sha256")) == 3  # the config, the manifest and the layer
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


def test_the_driver_is_chosen_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(name: str, root: Path = tmp_path) -> tuple[str, str, list[SnapshotInfo]]:
        found = choose(name, root)
        found.snapshotter.close()
        return found.snapshotter.name, found.reason, list(found.snapshotter.walk())

    assert chosen("") == ("erofs", "the best one that works here", [])
    assert chosen("vfs") == ("vfs", "set by storage-driver", [])
    choose("vfs", tmp_path).snapshotter.ingest("1" * 64, "", io.BytesIO(tars.END), tmp_path / "none")
    assert chosen("")[:2] == ("vfs", "it has layers already")
    with pytest.raises(InvalidArgument, match="unknown storage driver 'aufs'; known are: erofs, overlay2, vfs"):
        choose("aufs", tmp_path)
    monkeypatch.setattr("wherry.snapshots.drivers.erofs.problem", lambda _: "no erofs")
    assert chosen("", tmp_path / "older")[:2] == ("overlay2", "the best one that works here; erofs: no erofs")
    monkeypatch.setattr("wherry.snapshots.drivers.overlay2.problem", lambda _: "no overlayfs")
    reason = "the best one that works here; erofs: no erofs; overlay2: no overlayfs"
    assert chosen("", tmp_path / "other")[:2] == ("vfs", reason)
    with pytest.raises(SystemFailure, match="storage driver overlay2 does not work in"):
        choose("overlay2", tmp_path)
    settle()


def test_why_a_kernel_cannot_have_layers_by_their_tars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert erofs.problem(tmp_path) == ""
    settle()
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == []
    monkeypatch.setattr(erofs, "_archive", lambda _: tars.archive([file("probe", b"other bytes")]))
    assert "has other bytes than its tar" in erofs.problem(tmp_path)
    refused = OSError(errno.EOPNOTSUPP, "no block size of 512")
    monkeypatch.setattr("wherry.snapshots.erofs.mounting.make_layer", lambda *_: (_ for _ in ()).throw(refused))
    assert "no block size of 512" in erofs.problem(tmp_path)
    monkeypatch.setattr("wherry.snapshots.drivers.overlay2.takes_layers_one_by_one", lambda: False)
    assert "Linux 6.8" in erofs.problem(tmp_path)
    settle()


def test_images_of_two_drivers_lie_side_by_side(store: Store) -> None:
    store.load(docker_archive([LAYER], ["a:1"]))
    other = choose("vfs", store.root / "snapshots").snapshotter
    images = Images(store.database, store.root, other)
    assert images.listing(all=True, filters=NO_FILTERS) == []
    images.load(io.BytesIO(docker_archive([LAYER], ["a:1"])), store.said.append)
    assert images.resolve("a:1").id == store.images.resolve("a:1").id


def test_an_image_of_another_driver_is_invisible_and_stays_whole(store: Store) -> None:
    store.load(docker_archive([LAYER, UPPER], ["a:1"]))
    blob = store.root / "content/blobs/sha256" / digest(UPPER)[7:]
    other = choose("erofs", store.root / "snapshots").snapshotter
    images = Images(store.database, store.root, other)
    with pytest.raises(NotFound):
        images.resolve("a:1")
    images.load(io.BytesIO(docker_archive([LAYER], ["b:1"])), store.said.append)
    images.remove("b:1", force=True, noprune=False, users=lambda _: [])
    images.prune({"dangling": ["false"]}, users=lambda _: [])
    assert list(other.walk()) == []
    other.close()
    assert blob.read_bytes() == UPPER
    store.close()
    store.open()
    with store.images.saved(["a:1"]) as (_, chunks):
        assert UPPER in b"".join(chunks)
    assert len(list(store.driver.walk())) == 2


def test_an_image_is_saved_whole_though_it_is_removed_meanwhile(store: Store) -> None:
    clean = store.state()
    (image_id,) = store.load(tars.docker_archive([LAYER, UPPER], ["x:1"]))
    with store.images.saved(["x:1"]) as (ids, chunks):
        store.remove("x:1")
        data = b"".join(chunks)
    assert ids == [image_id]
    assert store.state() == clean
    assert store.load(data) == [image_id]
    with store.images.saved(["x:1"]) as (_, chunks):
        assert b"".join(chunks) == data


def test_an_archive_found_damaged_gives_way_to_the_next(store: Store) -> None:
    archive = tars.docker_archive([LAYER], ["x:1"])
    store.load(archive)
    path = store.root / "content/blobs/sha256" / digest(LAYER)[7:]
    path.write_bytes(LAYER[:-1] + b"x")
    with store.images.saved(["x:1"]) as (_, chunks), pytest.raises(SystemFailure, match="load the image again"):
        b"".join(chunks)
    store.load(archive)
    assert path.read_bytes() == LAYER
    with store.images.saved(["x:1"]) as (_, chunks):
        assert LAYER in b"".join(chunks)


def test_a_layer_whose_archive_was_not_kept_is_refused_until_it_is_loaded_again(store: Store) -> None:
    archive = tars.docker_archive([LAYER], ["x:1"])
    store.load(archive)
    with store.database.transaction():
        store.database.execute("DELETE FROM content WHERE digest = ?", (digest(LAYER),))
    store.close()
    store.open()
    with pytest.raises(Conflict, match="load the image again"), store.images.saved(["x:1"]):
        pass
    store.load(archive)
    with store.images.saved(["x:1"]) as (_, chunks):
        assert LAYER in b"".join(chunks)


def test_an_image_that_comes_while_sizes_are_counted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put(repo="early")
    look = store.images._rows.layers

    def layers() -> object:
        found = look()
        monkeypatch.undo()
        store.put(UPPER, repo="late")
        return found

    monkeypatch.setattr(type(store.images._rows), "layers", lambda rows: layers())
    assert set(store.images.shared_sizes().values()) == {0}
    assert len(store.images.shared_sizes()) == 2
