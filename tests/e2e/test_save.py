"""docker save through the real CLI: what comes out is what went in, and loads elsewhere."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from typing import Any

import pytest

from tests import tars
from tests.engine import Engine, busybox_tar

pytestmark = [pytest.mark.root, pytest.mark.engine]


def contents(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {each.name: archive.extractfile(each).read() for each in archive if each.isfile()}  # type: ignore[union-attr]


def save(engine: Engine, *words: str) -> dict[str, bytes]:
    target = engine.root / "saved.tar"
    engine.docker("save", "-o", str(target), *words)
    return contents(target.read_bytes())


def document(files: dict[str, bytes], name: str) -> Any:
    return json.loads(files[name])


def test_there_and_back(engine: Engine) -> None:
    engine.docker("run", "--name", "c", "busybox", "sh", "-c", "echo upper > /upper")
    image = engine.docker("commit", "c", "kept:1")
    engine.docker("rm", "c")
    engine.docker("tag", "kept:1", "kept:2")
    files = save(engine, "kept", "busybox:latest")
    for name, data in files.items():
        if name.startswith("blobs/"):
            assert name == f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"
    kept, busybox = document(files, "manifest.json")
    assert kept["RepoTags"] == ["kept:1", "kept:2"]
    assert busybox["RepoTags"] == ["busybox:latest"]
    assert files[busybox["Layers"][0]] == busybox_tar()  # to the byte as it was given
    assert kept["Layers"][:1] == busybox["Layers"]
    diff_ids = json.loads(engine.docker("image", "inspect", "-f", "{{json .RootFS.Layers}}", image))
    assert [f"sha256:{name[-64:]}" for name in kept["Layers"]] == diff_ids
    assert document(files, "repositories")["kept"]["2"] == diff_ids[-1][7:]
    names = [each["annotations"]["io.containerd.image.name"] for each in document(files, "index.json")["manifests"]]
    assert names == ["docker.io/library/kept:1", "docker.io/library/kept:2", "docker.io/library/busybox:latest"]
    engine.docker("rmi", "kept:1", "kept:2")
    assert not (engine.data_root / "content/blobs/sha256" / diff_ids[-1][7:]).exists()
    assert "Loaded image: kept:1" in engine.docker("load", "-i", str(engine.root / "saved.tar"))
    assert engine.docker("image", "inspect", "-f", "{{.Id}}", "kept:2") == image
    assert engine.docker("run", "--rm", "kept:2", "cat", "/upper") == "upper"
    assert save(engine, "kept", "busybox:latest") == files
    engine.docker("rmi", "kept:1", "kept:2")


def test_one_image_by_its_name(engine: Engine) -> None:
    target = engine.root / "one.tar"
    url = "http://w/images/busybox:latest/get"
    subprocess.run(["curl", "-sf", "--unix-socket", str(engine.socket), "-o", str(target), url], check=True)
    assert document(contents(target.read_bytes()), "manifest.json")[0]["RepoTags"] == ["busybox:latest"]


def test_by_id_it_has_no_name(engine: Engine) -> None:
    image = engine.docker("image", "inspect", "-f", "{{.Id}}", "busybox")
    files = save(engine, image[7:19])
    assert document(files, "manifest.json")[0]["RepoTags"] is None
    assert "repositories" not in files
    assert "annotations" not in document(files, "index.json")["manifests"][0]


def test_refusals(engine: Engine) -> None:
    for words, text in {
        ("nothing",): "No such image: nothing",
        ("busybox:nothing",): "No such image: busybox:nothing",
        ("busybox", "nothing"): "No such image: nothing",
        ("--platform", "linux/s390x", "busybox"): "no suitable export target found for platform linux/s390x",
    }.items():
        ran = engine.run("save", "-o", str(engine.root / "bad.tar"), *words)
        assert (ran.returncode, text in ran.stderr) == (1, True), ran.stderr


def test_a_damaged_layer_is_not_given_out_as_a_whole_archive(engine: Engine) -> None:
    layer = tars.archive([tars.file("a", b"a" * 5000)])
    engine.docker("load", input=tars.docker_archive([layer], ["rotten:1"]))
    blob = engine.data_root / "content/blobs/sha256" / tars.digest(layer)[7:]
    blob.write_bytes(layer.replace(b"aaaa", b"aaab", 1))
    ran = engine.run("save", "-o", str(engine.root / "bad.tar"), "rotten:1")
    assert ran.returncode == 1
    blob.unlink()
    engine.docker("rmi", "rotten:1")
