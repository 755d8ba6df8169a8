"""--mount type=image: the tree of an image in a container, for reading only, with each storage driver."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_mount_add import done, inside, mounted, refused, sleeper
from tests.engine import Engine
from tests.volumes import content_image, remove_volumes

pytestmark = [pytest.mark.root, pytest.mark.engine]


@pytest.fixture(scope="module", params=["erofs", "overlay2", "vfs"])
def driven(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An engine with one of the storage drivers."""
    engine = Engine("--storage-driver", request.param)
    try:
        engine.start()
        engine.import_busybox()
        content_image(engine, "full", extra={"out": "/etc", "data/up": "../.."})
        yield engine
    finally:
        engine.destroy()


@pytest.fixture
def engine(driven: Engine) -> Iterator[Engine]:
    """One with nothing in it but images."""
    yield driven
    remove_volumes(driven)


def spec(*words: str) -> str:
    return ",".join(["type=image,source=full,target=/x", *words])


def test_what_is_in_it_and_that_it_stays(engine: Engine):
    sleeper(engine, "--mount", spec())
    assert inside(engine, "cat", "/x/data/f", "/x/data/sub/g") == "hi\ng"
    assert inside(engine, "stat", "-c", "%u:%g %a", "/x/data", "/x/data/sub").split("\n") == ["5:6 1770", "7:8 700"]
    assert "Read-only file system" in engine.run("exec", "aa", "touch", "/x/new").stderr
    assert " ro," in mounted(engine, "/x")[0]
    (found,) = json.loads(engine.docker("inspect", "-f", "{{json .Mounts}}", "aa"))
    place = found.pop("Source")
    assert found == {"Type": "image", "Name": "full", "Destination": "/x", "Mode": "", "RW": False,
                     "Propagation": "rprivate"}  # fmt: skip
    assert place not in Path("/proc/self/mountinfo").read_text()
    assert os.listdir(place) == []
    engine.docker("restart", "-t", "0", "aa")
    assert inside(engine, "cat", "/x/data/f") == "hi"


def test_an_image_that_is_mounted_is_not_removed(engine: Engine):
    content_image(engine, "other")
    engine.docker("tag", "other", "again")
    engine.docker("create", "--name", "aa", "--mount", "type=image,src=other,dst=/x", "busybox", "cat", "/x/data/f")
    assert engine.docker("rmi", "again") == "Untagged: again:latest"
    assert "is using its referenced image" in engine.run("rmi", "other").stderr
    full = engine.docker("inspect", "-f", "{{.Id}}", "other")
    assert engine.docker("rmi", "-f", "other") == "Untagged: other:latest"
    assert "cannot be forced" in engine.run("rmi", "-f", full).stderr
    engine.docker("image", "prune", "-f")
    assert engine.docker("start", "-a", "aa") == "hi"
    engine.docker("rm", "aa")
    assert f"Deleted: {full}" in engine.docker("rmi", full)


def test_parts(engine: Engine):
    def run(part: str, *command: str):
        return engine.run("run", "--rm", "--mount", spec(f"image-subpath={part}"), "busybox", *command)

    assert run("data/sub", "ls", "/x").stdout == "g\n"
    assert run("data/f", "cat", "/x").stdout == "hi\n"
    assert run("file", "cat", "/x").stdout == "not a directory"
    for part, text in (
        ("../..", "subpath must be a relative path within the volume"),
        ("/data", "subpath must be a relative path within the volume"),
        ("nosuch", "no such file or directory"),
        ("out", "path concatenation escapes the base directory"),
        ("data/up", "path concatenation escapes the base directory"),
    ):
        ran = run(part, "ls", "/x")
        assert ran.returncode != 0, part
        assert text in ran.stderr, (part, ran.stderr)


def test_added_to_a_running_container(engine: Engine):
    sleeper(engine)
    done(engine, "mount", "add", "aa", spec(), "type=image,src=full,dst=/part,image-subpath=data/sub")
    assert inside(engine, "cat", "/x/data/f", "/part/g") == "hi\ng"
    assert "Read-only" in engine.run("exec", "aa", "touch", "/part/new").stderr
    engine.docker("restart", "-t", "0", "aa")
    assert inside(engine, "cat", "/x/data/f", "/part/g") == "hi\ng"
    outside = "type=image,src=full,dst=/y,image-subpath=out"
    assert "cannot mount image full" in refused(engine, "mount", "add", "aa", outside)
    done(engine, "mount", "rm", "aa", "/x", "/part")
    assert not mounted(engine, "/x")
    assert not mounted(engine, "/part")


def test_what_is_refused_in_the_words_of_dockerd(engine: Engine):
    ran = engine.run("run", "--rm", "--mount", "type=image,target=/x", "busybox", "true")
    assert 'invalid mount config for type "image": field Source must not be empty' in ran.stderr
    mount = {"Type": "image", "Source": "full", "Target": "/x"}
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Mounts": [mount]}}
    status, text = engine.api("POST", "/v1.47/containers/create", json.dumps(body))
    assert (status, json.loads(text)["message"]) == (400, 'Mount type "Image" needs API v1.48 or newer')
    mount["BindOptions"] = {}
    status, text = engine.api("POST", "/v1.48/containers/create", json.dumps(body))
    assert (status, json.loads(text)["message"]) == (400, 'BindOptions must not be specified on mount type "image"')
    body["HostConfig"]["Mounts"] = [{"Type": "image", "Source": "nosuch:1", "Target": "/x"}]
    assert engine.api("POST", "/v1.48/containers/create", json.dumps(body))[0] == 404


def test_new_volumes_of_a_running_container_are_filled(engine: Engine):
    """From the image, whose tree each driver can show while the container has it in use."""
    sleeper(engine, image="full")
    inside(engine, "touch", "/data/later")
    done(engine, "mount", "add", "aa", "vv:/data")
    assert sorted(inside(engine, "ls", "/data").split()) == ["f", "fifo", "hard", "null", "soft", "sub", "up"]
