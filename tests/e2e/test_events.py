"""Every type of event, in order, and every filter of docker events."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.engine import Engine, busybox_tar

pytestmark = [pytest.mark.root, pytest.mark.engine]


def now() -> str:
    return f"{time.time():.9f}"


def events(engine: Engine, since: str, *filters: str, until: str = "") -> list[dict[str, Any]]:
    words = [word for each in filters for word in ("--filter", each)]
    text = engine.docker("events", "--since", since, "--until", until or now(), "--format", "json", *words)
    return [json.loads(line) for line in text.splitlines()]


def told(found: list[dict[str, Any]]) -> list[str]:
    return [f"{each['Type']} {each['Action'].split(':')[0]}" for each in found]


@contextmanager
def story(engine: Engine) -> Iterator[list[dict[str, Any]]]:
    """Fill the list with what happened within."""
    found: list[dict[str, Any]] = []
    since = now()
    yield found
    found += events(engine, since)


def test_a_container(engine: Engine, tmp_path: Path) -> None:
    with story(engine) as found:
        engine.docker("run", "-d", "--name", "aa", "--label", "l=v", "busybox", "sleep", "1000")
        engine.docker("exec", "aa", "true")
        engine.docker("top", "aa")
        engine.docker("cp", "aa:/etc/passwd", "-")
        engine.docker("pause", "aa")
        engine.docker("unpause", "aa")
        engine.docker("update", "--cpu-shares", "100", "aa")
        engine.docker("rename", "aa", "bb")
        engine.docker("export", "-o", str(tmp_path / "tree.tar"), "bb")
        engine.docker("restart", "-t", "0", "bb")
        engine.docker("stop", "-t", "0", "bb")
        engine.docker("rm", "bb")
        engine.docker("container", "prune", "-f")
    assert [each for each in told(found) if each.startswith("container")] == [
        "container create", "container start", "container exec_create", "container exec_start", "container exec_die",
        "container top", "container archive-path", "container pause", "container unpause", "container update",
        "container rename", "container export", "container kill", "container kill", "container die", "container stop",
        "container start", "container restart", "container kill", "container kill", "container die", "container stop",
        "container destroy", "container prune",
    ]  # fmt: skip
    die = next(each for each in found if each["Action"] == "die")
    assert die["Actor"]["Attributes"]["exitCode"] == "137"
    assert die["Actor"]["Attributes"]["l"] == "v"
    assert die["from"] == die["Actor"]["Attributes"]["image"] == "busybox"
    assert found == sorted(found, key=lambda each: each["timeNano"])
    assert told(found).count("network connect") == told(found).count("network disconnect") == 2


def test_images(engine: Engine) -> None:
    with story(engine) as found:
        image = engine.docker("import", "-", "evented:1", input=busybox_tar())
        engine.docker("tag", "evented:1", "evented:2")
        engine.docker("create", "--name", "aa", "evented:1", "true")
        made = engine.docker("commit", "aa", "evented:3")
        engine.docker("rm", "aa")
        engine.docker("rmi", "evented:3", "evented:2", "evented:1")
        engine.docker("image", "prune", "-f")
    images = [each for each in found if each["Type"] == "image"]
    assert [each["Action"] for each in images] == [
        "import", "tag", "create", "tag", "untag", "delete", "untag", "untag", "delete", "prune",
    ]  # fmt: skip
    assert [each["Actor"]["ID"] for each in images] == [image, image, made, made, made, made, image, image, image, ""]
    commit = next(each for each in found if each["Action"] == "commit")
    assert commit["Actor"]["Attributes"]["imageRef"] == "evented:3"


def test_volumes_and_networks(engine: Engine) -> None:
    with story(engine) as found:
        engine.docker("volume", "create", "vv")
        engine.docker("network", "create", "nn")
        engine.docker("run", "--rm", "-v", "vv:/v", "--network", "nn", "busybox", "true")
        engine.docker("volume", "rm", "vv")
        engine.docker("network", "rm", "nn")
        engine.docker("volume", "prune", "-f")
        engine.docker("network", "prune", "-f")
    assert [each for each in told(found) if not each.startswith("container")] == [
        "volume create", "network create", "volume mount", "network connect", "network disconnect", "volume unmount",
        "volume destroy", "network destroy", "volume prune", "network prune",
    ]  # fmt: skip


def test_the_engine_itself(engine: Engine) -> None:
    assert engine.process
    with story(engine) as found:
        os.kill(engine.process.pid, signal.SIGHUP)
        while "configuration reloaded" not in engine.log.read_text():
            time.sleep(0.01)
    (event,) = found
    assert (event["Type"], event["Action"]) == ("daemon", "reload")
    assert event["Actor"]["ID"] == engine.docker("info", "-f", "{{.ID}}")


def test_health_and_oom(engine: Engine) -> None:
    with story(engine) as found:
        hungry = "x=a; while :; do x=$x$x; done"
        assert engine.run("run", "--name", "aa", "-m", "8m", "busybox", "sh", "-c", hungry).returncode == 137
        engine.docker(
            "run", "-d", "--name", "bb", "--health-cmd", "true", "--health-interval", "50ms", "busybox", "sleep", "1000"
        )
        while engine.docker("inspect", "-f", "{{.State.Health.Status}}", "bb") != "healthy":
            time.sleep(0.05)
    assert "container oom" in told(found)
    assert any(each["Action"] == "health_status: healthy" for each in found)


def test_filters(engine: Engine) -> None:
    since = now()
    engine.docker("run", "--name", "one", "--label", "a=1", "busybox", "true")
    middle = now()
    engine.docker("run", "--name", "two", "--label", "a=2", "busybox", "true")
    engine.docker("volume", "create", "vv")
    engine.docker("volume", "rm", "vv")
    one = engine.docker("inspect", "-f", "{{.Id}}", "one")

    def names(*filters: str) -> set[str]:
        actors = [each["Actor"] for each in events(engine, since, *filters)]
        return {actor["Attributes"].get("name", actor["ID"]) for actor in actors}

    assert names("container=one") == names("container=" + one) == names("container=" + one[:12]) == {"one"}
    assert names("container=one", "container=two") == {"one", "two"}
    assert names("label=a=2") == {"two"}
    assert names("label=a") == {"one", "two"}
    assert names("image=busybox", "event=die") == {"one", "two"}
    assert names("type=volume") == names("volume=vv") == {"vv"}
    assert names("type=network") == names("network=bridge") == {"bridge"}
    assert names("event=create", "type=container") == {"one", "two"}
    assert names("type=container", "container=one", "event=start") == {"one"}
    assert names("scope=swarm") == set()
    assert names("scope=local", "type=container") == {"one", "two"}
    assert {each["Actor"]["Attributes"]["name"] for each in events(engine, since, "type=container", until=middle)} == {
        "one"
    }
    assert {each["Actor"]["Attributes"]["name"] for each in events(engine, middle, "type=container")} == {"two"}
    refused = engine.run("events", "--since", since, "--until", now(), "--filter", "nothing=1")
    assert "invalid filter 'nothing'" in refused.stderr
