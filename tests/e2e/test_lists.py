"""docker ps with each of its filters, prune, system df, and the life of an image, through the real CLI."""

from __future__ import annotations

import io
import json
import tarfile

import pytest

from tests.engine import Engine, busybox_tar

pytestmark = [pytest.mark.root, pytest.mark.engine]


def ps(engine: Engine, *filters: str) -> str:
    words = [word for each in filters for word in ("-f", each)]
    return " ".join(sorted(engine.docker("ps", "-a", "--format", "{{.Names}}", *words).split()))


def test_filters_of_ps(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "one", "--label", "a=1", "--label", "b", "busybox", "sleep", "1000")
    assert engine.run("run", "--name", "two", "--label", "a=2", "busybox", "sh", "-c", "exit 3").returncode == 3
    engine.docker("create", "--name", "three", "--network", "none", "-v", "/tmp:/place", "busybox", "true")
    engine.docker("run", "-d", "--name", "four", "--health-cmd", "true", "busybox", "sleep", "1000")
    engine.docker("pause", "four")
    id_of_one = engine.docker("inspect", "-f", "{{.Id}}", "one")
    wanted = {
        ("id=" + id_of_one[:12],): "one",
        ("name=t",): "two three",
        ("name=^/two$",): "two",
        ("name=one", "name=two"): "one two",
        ("label=a",): "one two",
        ("label=a=2",): "two",
        ("label=a", "label=b"): "one",
        ("status=exited",): "two",
        ("status=created", "status=paused"): "three four",
        ("exited=3",): "two",
        ("exited=0",): "",
        ("before=two",): "one",
        ("since=two",): "three four",
        ("ancestor=busybox",): "one two three four",
        ("ancestor=nothing",): "",
        ("network=none",): "three",
        ("network=bridge",): "one two four",
        ("volume=/place",): "three",
        ("health=none",): "one two three",
        ("status=exited", "label=a=1"): "",
        ("is-task=false",): "one two three four",
    }
    for filters, names in wanted.items():
        assert ps(engine, *filters) == " ".join(sorted(names.split())), filters
    assert engine.docker("ps", "-q", "-n", "1") == engine.docker("ps", "-q", "-l")
    for bad in ("nothing=1", "status=odd", "exited=x", "health=well"):
        ran = engine.run("ps", "-f", bad)
        assert (ran.returncode, "invalid" in ran.stderr.lower()) == (1, True), bad


def test_sizes(engine: Engine) -> None:
    engine.docker("run", "--name", "aa", "busybox", "dd", "if=/dev/zero", "of=/big", "bs=1000", "count=5000")
    image = int(engine.docker("inspect", "-f", "{{.Size}}", "busybox"))
    status, text = engine.api("GET", "/containers/json?all=1&size=1")
    assert status == 200
    (entry,) = json.loads(text)
    assert entry["SizeRw"] == 5_000_000
    assert entry["SizeRootFs"] == 5_000_000 + image
    assert "5MB (virtual " in engine.docker("ps", "-a", "--size", "--format", "{{.Size}}")


def test_prune(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "kept", "busybox", "sleep", "1000")
    for name in ("old", "marked", "other"):
        label = ["--label", "keep=1"] if name == "marked" else []
        engine.docker("run", "--name", name, *label, "busybox", "sh", "-c", "yes | head -c 10000 >/f")
    assert "old" in ps(engine)
    engine.docker("container", "prune", "-f", "--filter", "until=10m")
    assert ps(engine) == "kept marked old other"
    told = engine.docker("container", "prune", "-f", "--filter", "label!=keep=1")
    assert told.count("\n") >= 3
    assert "Total reclaimed space: 20kB" in told
    assert ps(engine) == "kept marked"
    engine.docker("container", "prune", "-f", "--filter", "label=keep")
    assert ps(engine) == "kept"


def test_what_takes_space(engine: Engine) -> None:
    engine.docker("run", "--name", "aa", "busybox", "sh", "-c", "yes | head -c 7000 >/f")
    engine.docker("commit", "aa", "second")
    status, text = engine.api("GET", "/system/df")
    assert status == 200
    found = json.loads(text)
    sizes = {image["RepoTags"][0]: image for image in found["Images"]}
    below = sizes["busybox:latest"]["Size"]
    assert sizes["second:latest"]["Size"] == below + 7000
    blobs = sum(path.stat().st_size for path in (engine.data_root / "content/blobs/sha256").iterdir())
    unpacks = json.loads(engine.api("GET", "/info")[1])["Driver"] != "erofs"
    # the layers that two images share are there once
    assert found["LayersSize"] == blobs + (below + 7000 if unpacks else 0)
    assert sizes["busybox:latest"]["SharedSize"] == sizes["second:latest"]["SharedSize"] == below
    assert [each["SizeRw"] for each in found["Containers"]] == [7000]
    assert engine.docker("system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}}").splitlines()[:2] == [
        "Images 2 1",
        "Containers 1 0",
    ]
    assert set(json.loads(engine.api("GET", "/system/df?type=container")[1])) >= {"Containers"}
    assert json.loads(engine.api("GET", "/system/df?type=container")[1])["Images"] is None
    assert engine.api("GET", "/system/df?type=nothing")[0] == 400
    assert json.loads(engine.api("GET", "/v1.41/system/df?type=container")[1])["Images"]
    engine.docker("rm", "aa")
    engine.docker("rmi", "second")


def test_the_life_of_an_image(engine: Engine) -> None:
    with tarfile.open(fileobj=io.BytesIO(busybox_tar())) as archive:
        names = archive.getnames()
    image = engine.docker("import", "-m", "made here", "-c", "ENV A=b", "-", "fresh:1", input=busybox_tar())
    assert "fresh" in engine.docker("images", "--format", "{{.Repository}}").split()
    assert engine.docker("history", "--format", "{{.Comment}}", "fresh:1") == "made here"
    engine.docker("tag", "fresh:1", "fresh:2")
    assert engine.docker("image", "inspect", "-f", "{{.Id}}", "fresh:2") == image
    listed = engine.docker("run", "--rm", "fresh:2", "ls", "/bin").split()
    assert set(listed) == {name.removeprefix("bin/") for name in names if name.startswith("bin/")}
    assert engine.docker("rmi", "fresh:1").splitlines() == ["Untagged: fresh:1"]
    engine.docker("tag", "busybox", "fresh:2")
    assert image.removeprefix("sha256:")[:12] in engine.docker("images", "-q", "-f", "dangling=true")
    assert image in engine.docker("image", "prune", "-f")
    assert engine.run("image", "inspect", image).returncode == 1
    engine.docker("rmi", "fresh:2")
    refused = engine.run("load", input=b"no archive")
    assert refused.returncode == 1
    assert "cannot read the archive" in refused.stdout + refused.stderr
