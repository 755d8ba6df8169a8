"""Method and path to route. Patterns are written as in the Engine API: "/containers/{id}/json".

A parameter matches one path segment; {name...} matches several, because image names hold slashes. A container is also
known as what another one links to, "other/alias".
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from urllib.parse import quote, unquote

from wherry.api import versions
from wherry.api.answers import Answer, Reply
from wherry.api.request import Request
from wherry.api.versions import Version
from wherry.errors import InvalidArgument, NotFound

Endpoint = Callable[[Request], Awaitable[Answer]]
PARAMETER = re.compile(r"\{(\w+)(\.\.\.)?\}")


@dataclass(frozen=True, slots=True)
class Route:
    """One operation.

    follows: it may wait for long on something else, and ends when the client goes away. instant: the answer, when it
    is always the same; it needs no endpoint and no task.
    """

    method: str
    pattern: str
    endpoint: Endpoint | None = None
    follows: bool = False
    instant: Reply | None = None


class Moved(Exception):
    """The path is not in its normal form; `to` is."""

    def __init__(self, to: str) -> None:
        super().__init__(to)
        self.to = to


@dataclass(frozen=True, slots=True)
class Match:
    """A route, the values of its parameters, and the version and path that the client named."""

    route: Route
    params: dict[str, str]
    version: Version
    path: str


def split_target(target: str) -> tuple[str, str]:
    """Return the decoded path and the query text; raises InvalidArgument or Moved.

    Only the origin form is taken: what stands in a log or before an authorization plugin is what is executed.
    """
    raw, _, query = target.partition("?")
    if not raw.startswith("/"):
        raise InvalidArgument("the request target must be a path")
    try:
        path = unquote(raw, errors="strict") if "%" in raw else raw
    except UnicodeDecodeError:
        raise InvalidArgument("the path is not UTF-8") from None
    if not path.isprintable():
        raise InvalidArgument("the path holds control characters")
    if "//" in path or "/." in path:
        _check_normal(path, query)
    return path, query


def _check_normal(path: str, query: str) -> None:
    normal = "/" + posixpath.normpath(path).lstrip("/")
    if path.endswith("/") and normal != "/":
        normal += "/"
    if normal != path:
        raise Moved(quote(normal) + (f"?{quote(query, safe='=&%+')}" if query else ""))


class Router:
    """All routes, found by method and first segment, then by pattern in the order given."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._exact: dict[tuple[str, str], Route] = {}
        self._patterns: dict[tuple[str, str], list[tuple[re.Pattern[str], Route]]] = {}
        for route in routes:
            if "{" not in route.pattern:
                self._exact[route.method, route.pattern] = route
                continue
            first = route.pattern.split("/", 2)[1]
            first = "" if "{" in first else first
            self._patterns.setdefault((route.method, first), []).append((_compile(route.pattern), route))

    def match(self, method: str, path: str) -> Match:
        """Return what serves a decoded path; raises NotFound, or InvalidArgument for a version not spoken."""
        version, rest = versions.split(path)
        if route := self._exact.get((method, rest)):
            return Match(route, {}, version, rest)
        first = rest.split("/", 2)[1]
        for pattern, route in self._patterns.get((method, first), self._patterns.get((method, ""), [])):
            if found := pattern.fullmatch(rest):
                return Match(route, found.groupdict(), version, rest)
        raise NotFound("page not found")


_ONE, _SEVERAL = "[^/]+", ".+"
_CONTAINER = "[^/]+(?:/[^/]+)?"


def _compile(pattern: str) -> re.Pattern[str]:
    one = _CONTAINER if pattern.startswith("/containers/{id}") else _ONE
    parts = PARAMETER.split(pattern)
    text = re.escape(parts[0])
    for name, many, literal in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        text += f"(?P<{name}>{_SEVERAL if many else one}){re.escape(literal)}"
    return re.compile(text)
