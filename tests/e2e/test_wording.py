"""What dockerd 28.5 says, word for word, where scripts and people read it: asked of both with the same requests."""

from __future__ import annotations

import json

import pytest

from tests.engine import Engine

pytestmark = [pytest.mark.root, pytest.mark.engine]

HEALTH = "none, starting, healthy, unhealthy"
STATES = "created, running, paused, restarting, removing, exited, dead"


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ({}, "config cannot be empty in order to create a container"),
        ({"HostConfig": {}}, "config cannot be empty in order to create a container"),
        ({"Image": "", "Labels": {"a": "b"}}, "no command specified"),
        ({"Image": "nosuch", "HostConfig": {"Memory": 1}}, "Minimum memory limit allowed is 6MB"),
        (
            {"Image": "nosuch", "WorkingDir": "x"},
            "the working directory 'x' is invalid, it needs to be an absolute path",
        ),
    ],
)
def test_of_a_creation(engine: Engine, wanted: dict[str, object], text: str) -> None:
    status, said = engine.api("POST", "/containers/create", json.dumps(wanted))
    assert (status, json.loads(said)) == (400, {"message": text})


@pytest.mark.parametrize(
    ("platform", "text"),
    [
        ("bogus", '"bogus": unknown operating system or architecture: invalid argument'),
        ("a/b/c/d", '"a/b/c/d": cannot parse platform specifier: invalid argument'),
    ],
)
def test_of_a_platform(engine: Engine, platform: str, text: str) -> None:
    wanted = json.dumps({"Image": "busybox", "Cmd": ["true"]})
    status, said = engine.api("POST", f"/containers/create?platform={platform}", wanted)
    assert (status, json.loads(said)["message"]) == (400, text)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("status", "x", f"invalid filter 'status=x': invalid value for state (x): must be one of {STATES}"),
        ("exited", "x", "invalid filter 'exited=x': strconv.Atoi: parsing \"x\": invalid syntax"),
        (
            "health",
            "x",
            f"invalid filter 'health=x': invalid value for health (x): must be one of {HEALTH}",
        ),
        ("is-task", "x", "invalid filter 'is-task=[x]'"),
    ],
)
def test_of_a_filter(engine: Engine, name: str, value: str, text: str) -> None:
    engine.docker("create", "busybox", "true")
    refused = engine.run("ps", "-a", "--filter", f"{name}={value}")
    assert (refused.returncode, refused.stderr.strip()) == (1, f"Error response from daemon: {text}")


def test_a_name_that_is_no_pattern_matches_nothing(engine: Engine) -> None:
    engine.docker("create", "--name", "aa", "busybox", "true")
    assert engine.docker("ps", "-a", "--filter", "name=(", "-q") == ""


def test_of_renaming_killing_and_pausing(engine: Engine) -> None:
    engine.docker("run", "-d", "--name", "aa", "busybox", "sleep", "1000")
    other = engine.docker("create", "--name", "bb", "busybox", "true")
    taken = f'The container name "/bb" is already in use by container "{other}".'
    for words, text in (
        (("rename", "aa", "bb"), f"Error when allocating new name: Conflict. {taken}"),
        (("rename", "aa", "a b"), "Error when allocating new name: Invalid container name (/a b), only"),
        (("kill", "nosuch"), "cannot kill container: nosuch: No such container: nosuch"),
        (("kill", "-s", "99", "aa"), "cannot kill container: aa: the linux daemon does not support signal 99"),
        (("kill", "-s", "BOGUS", "aa"), "cannot kill container: aa: invalid signal: BOGUS"),
        (("pause", "bb"), f"container {other} is not running"),
    ):
        refused = engine.run(*words)
        assert refused.stderr.startswith(f"Error response from daemon: {text}"), refused.stderr


def test_of_a_working_directory_that_is_a_file(engine: Engine) -> None:
    refused = engine.run("run", "--rm", "-w", "/etc/passwd", "busybox", "pwd")
    assert "Error response from daemon: Cannot mkdir: /etc/passwd is not a directory" in refused.stderr
