"""GET /images/search: the index of Docker Hub, or of a registry that has one (/v1/search)."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec

from wherry.errors import InvalidArgument, SystemFailure
from wherry.registry.api import HUB
from wherry.registry.failures import Answered, Broken
from wherry.registry.origins import Origin
from wherry.registry.remote import Access, told
from wherry.registry.session import Request, Session

_INDEX = Origin("https", "index.docker.io", 443)
_DEFAULT = 25
_MOST = 100


class _Found(msgspec.Struct):
    name: str = ""
    description: str | None = ""
    star_count: int = 0
    is_official: bool = False
    is_automated: bool = False


class _Results(msgspec.Struct):
    results: list[_Found] = []


def split(term: str) -> tuple[str, str]:
    """Return the host that a term names, and what to look for there."""
    if "://" in term:
        raise InvalidArgument(f"invalid repository name: repository name ({term[:200]}) should not have a scheme")
    first, slash, rest = term.partition("/")
    if slash and (set(first) & set(".:") or first == "localhost"):
        return (HUB if first in (HUB, "index.docker.io") else first), rest
    return HUB, term


def search(access: Access, term: str, limit: int) -> list[dict[str, Any]]:
    """Return what an index has, in the form of the API. limit: 0 for the usual."""
    if limit < 0 or limit > _MOST:
        raise InvalidArgument(f"limit {limit} is outside the range of [1, {_MOST}]")
    host, words = split(term)
    path = f"/v1/search?q={quote(words.removeprefix('library/'), safe='')}&n={limit or _DEFAULT}"

    def work(session: Session) -> bytes:
        return session.small(Request("GET", path))[1]

    try:
        data = work(access.session(_INDEX)) if host == HUB else access.first(host, work)
    except Answered as error:
        raise SystemFailure(f"Unexpected status code {error.status}") from error
    except Broken as error:
        raise told(error) from error
    try:
        found = msgspec.json.decode(data, type=_Results).results
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise SystemFailure(f"cannot read what the index of {host} answers: {error}") from error
    prefix = "" if host == HUB else f"{host}/"
    return [
        {
            "name": prefix + each.name,
            "description": each.description or "",
            "star_count": each.star_count,
            "is_official": each.is_official,
            "is_automated": each.is_automated,
        }
        for each in found[: limit or _DEFAULT]
    ]
