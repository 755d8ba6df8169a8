"""Paths to routes, versions, and the map of errors."""

from __future__ import annotations

import inspect

import pytest

from wherry import errors
from wherry.api import errors as api_errors
from wherry.api.router import Moved, Route, Router, split_target
from wherry.api.versions import adapt, split
from wherry.errors import InvalidArgument, NotFound


async def endpoint(request):
    """Never called."""
    raise AssertionError


ROUTER = Router(
    Route(method, pattern, endpoint)
    for method, pattern in [
        ("GET", "/images/json"),
        ("GET", "/images/{name...}/json"),
        ("DELETE", "/images/{name...}"),
        ("POST", "/containers/{id}/start"),
        ("OPTIONS", "/{path...}"),
    ]
)


def test_parameters():
    assert ROUTER.match("GET", "/v1.51/images/json").params == {}
    assert ROUTER.match("GET", "/images/reg:5000/a/b@sha256:c/json").params == {"name": "reg:5000/a/b@sha256:c"}
    assert ROUTER.match("DELETE", "/images/json/json").params == {"name": "json/json"}
    assert ROUTER.match("POST", "/v1.30/containers/a/start").version == (1, 30)
    assert ROUTER.match("POST", "/containers/a/b/start").params == {"id": "a/b"}
    assert ROUTER.match("OPTIONS", "/anything/at/all").params == {"path": "anything/at/all"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/images/json"),
        ("POST", "/containers/a/b/c/start"),
        ("POST", "/containers//start"),
        ("POST", "/containers/a/start/"),
        ("POST", "/CONTAINERS/a/start"),
        ("GET", "/"),
        ("get", "/images/json"),
        ("POST", "/v1.51/v1.51/containers/a/start"),
        ("POST", "/vx/containers/a/start"),
    ],
)
def test_what_matches_nothing_is_not_found(method, path):
    with pytest.raises(NotFound, match="page not found"):
        ROUTER.match(method, path)


def test_targets_are_decoded_once():
    assert split_target("/a%2Fb?x=%20") == ("/a/b", "x=%20")
    assert split_target("/a%252Fb") == ("/a%2Fb", "")


@pytest.mark.parametrize("target", ["http://h/a", "*", "a", "", "/a%00b", "/a%0ab", "/a%ff", "/a%1bb"])
def test_strange_targets_are_refused(target):
    with pytest.raises(InvalidArgument):
        split_target(target)


@pytest.mark.parametrize(
    ("target", "to"),
    [("//a", "/a"), ("/a/../b", "/b"), ("/%2e%2e/b?x=1", "/b?x=1"), ("/a/./b", "/a/b"), ("/a//", "/a/"), ("///", "/")],
)
def test_paths_are_not_tidied_up_silently(target, to):
    with pytest.raises(Moved) as caught:
        split_target(target)
    assert caught.value.to == to


def test_dots_within_names_are_fine():
    assert split_target("/v1.51/images/.a/json")[0] == "/v1.51/images/.a/json"


def test_versions():
    assert split("/version") == ((1, 51), "/version")
    assert split("/v1.24/version") == ((1, 24), "/version")
    assert split("/v1.24.7/version") == ((1, 24), "/version")
    for path, word in (
        ("/v1.23/x", "too old"),
        ("/v1.52/x", "too new"),
        ("/v0.9/x", "too old"),
        ("/v2.0/x", "too new"),
        ("/v1/x", "client version 1 is too old"),
    ):
        with pytest.raises(InvalidArgument, match=word):
            split(path)


def test_images_in_older_versions():
    """What dockerd 28.5 answers, asked with those versions."""
    image = {"Id": "a", "Size": 3, "Containers": 2, "SharedSize": 1, "RepoTags": ["a:1"], "RepoDigests": []}
    (old,) = adapt("image list", (1, 41), [image])
    assert (old["RepoTags"], old["RepoDigests"], old["SharedSize"]) == (["a:1"], None, -1)
    (unnamed,) = adapt("image list", (1, 42), [image | {"RepoTags": []}])
    assert (unnamed["RepoTags"], unnamed["RepoDigests"]) == (["<none>:<none>"], ["<none>@<none>"])
    body = {"Id": "a", "Size": 3, "Config": {"User": "me", "Env": ["A=b"]}}
    assert adapt("image inspect", (1, 50), body) == body
    config = adapt("image inspect", (1, 49), body)["Config"]
    assert (config["User"], config["Hostname"], config["Tty"], config["Image"]) == ("me", "", False, "")
    assert "ContainerConfig" not in adapt("image inspect", (1, 45), body)
    assert adapt("image inspect", (1, 44), body)["ContainerConfig"]["Cmd"] is None


def test_differences_between_versions():
    image = {"Id": "a", "Size": 3, "Containers": 2}
    assert adapt("image list", (1, 51), [image]) == [image]
    assert adapt("image list", (1, 43), [image]) == [image | {"VirtualSize": 3, "Containers": -1}]
    assert adapt("disk usage", (1, 41), {"Images": []}) == {"Images": [], "BuilderSize": 0}
    row = {"HostConfig": {"NetworkMode": "n", "Annotations": {"a": "b"}}}
    assert adapt("container list", (1, 45), [row]) == [{"HostConfig": {"NetworkMode": "n"}}]
    networks = {"bridge": {"Aliases": None}, "mine": {"Aliases": ["x"]}}
    found = adapt("container inspect", (1, 44), {"Id": "0123456789abcdef", "NetworkSettings": {"Networks": networks}})
    assert found["NetworkSettings"]["Networks"] == {
        "bridge": {"Aliases": None},
        "mine": {"Aliases": ["x", "0123456789ab"]},
    }
    assert networks["mine"] == {"Aliases": ["x"]}


def test_every_error_kind_has_a_status():
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.EngineError)]
    assert set(api_errors.STATUS) == set(kinds) - {errors.EngineError}
    for kind, status in api_errors.STATUS.items():
        assert f"{kind.__name__} " in errors.__doc__
        assert f" {status} " in next(line for line in errors.__doc__.splitlines() if f"+-- {kind.__name__} " in line)


def test_a_kind_made_of_another_has_its_status():
    class Special(errors.Conflict):
        """A special conflict."""

    assert api_errors.status_of(Special("x")) == 409
