"""API versions: which are spoken, and in one table how answers and requests of older ones differ.

Services speak the newest version. A row says: below this version, the answer of this route is changed so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import wherry.version as release
from wherry.errors import InvalidArgument

Version = tuple[int, int]


def _parse(text: str) -> Version:
    """Return the first two numbers of "1.51"; what is left out is 0, what follows does not count."""
    major, minor, *_ = [*(int(each or 0) for each in text.split(".")), 0]
    return major, minor


NEWEST = _parse(release.API_NEWEST)
OLDEST = _parse(release.API_OLDEST)
PREFIX = re.compile(r"/v(\d{1,4}(?:\.\d{1,4}){0,3})(/.*)", re.ASCII)


def split(path: str) -> tuple[Version, str]:
    """Return the version that a path asks for (the newest when it names none) and the rest of the path.

    Raises InvalidArgument, with dockerd's text, for a version that is not spoken.
    """
    found = PREFIX.fullmatch(path)
    if found is None:
        return NEWEST, path
    text, rest = found.groups()
    version = _parse(text)
    if version < OLDEST:
        raise InvalidArgument(
            f"client version {text} is too old. Minimum supported API version is {release.API_OLDEST}, "
            "please upgrade your client to a newer version"
        )
    if version > NEWEST:
        raise InvalidArgument(
            f"client version {text} is too new. Maximum supported API version is {release.API_NEWEST}"
        )
    return version, rest


DEFAULT_NETWORKS = ("bridge", "host", "none")


def _virtual_size(image: Any) -> Any:
    return image | {"VirtualSize": image.get("Size", 0)}


def _uncounted(image: Any) -> Any:
    return image | {"Containers": -1}


def _old_names(image: Any) -> Any:
    """Until 1.42 an image without names was called <none>, and a list that was empty beside another null."""
    tags, digests = image.get("RepoTags") or None, image.get("RepoDigests") or None
    if not tags and not digests:
        tags, digests = ["<none>:<none>"], ["<none>@<none>"]
    return image | {"RepoTags": tags, "RepoDigests": digests}


def _unshared(image: Any) -> Any:
    return image | {"SharedSize": -1}


_CONTAINER_ONLY = {
    "Hostname": "", "Domainname": "", "AttachStdin": False, "AttachStdout": False, "AttachStderr": False,
    "Tty": False, "OpenStdin": False, "StdinOnce": False, "Image": "",
}  # fmt: skip
_EMPTY_CONFIG = _CONTAINER_ONLY | {"User": "", "WorkingDir": ""} | dict.fromkeys(
    ("Env", "Cmd", "Volumes", "Entrypoint", "OnBuild", "Labels")
)


def _with_container_fields(image: Any) -> Any:
    """Until 1.49 the config of an image had the fields that only a container's can mean."""
    return image | {"Config": _CONTAINER_ONLY | image["Config"]}


def _with_container_config(image: Any) -> Any:
    """Until 1.44 an image told of the container that it was committed from; nothing keeps that any more."""
    return image | {"ContainerConfig": dict(_EMPTY_CONFIG)}


def _short_id_alias(container: Any) -> Any:
    """Until 1.44 the short id stood among the aliases of user-defined networks."""
    networks = {
        name: endpoint | {"Aliases": [*(endpoint.get("Aliases") or ()), container["Id"][:12]]}
        for name, endpoint in container["NetworkSettings"]["Networks"].items()
        if name not in DEFAULT_NETWORKS
    }
    settings = container["NetworkSettings"]
    return container | {"NetworkSettings": settings | {"Networks": settings["Networks"] | networks}}


def _no_annotations(container: Any) -> Any:
    host = {name: value for name, value in container["HostConfig"].items() if name != "Annotations"}
    return container | {"HostConfig": host}


Change = Callable[[Any], Any]
ANSWERS: Mapping[str, tuple[tuple[Version, Change], ...]] = {
    "image list": (
        ((1, 42), _unshared),
        ((1, 43), _old_names),
        ((1, 44), _virtual_size),
        ((1, 51), _uncounted),
    ),
    "image inspect": (
        ((1, 44), _virtual_size),
        ((1, 45), _with_container_config),
        ((1, 50), _with_container_fields),
    ),
    "container list": (((1, 46), _no_annotations),),
    "container inspect": (((1, 45), _short_id_alias),),
    "disk usage": (((1, 42), lambda usage: usage | {"BuilderSize": 0}),),
}


def adapt(name: str, version: Version, answer: Any) -> Any:
    """Return an answer (each element of a list) as the given version of the API has it."""
    changes = [change for below, change in ANSWERS[name] if version < below]
    if not changes:
        return answer
    if isinstance(answer, list):
        return [adapt(name, version, each) for each in answer]
    for change in changes:
        answer = change(answer)
    return answer
