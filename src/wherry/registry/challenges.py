"""WWW-Authenticate: how a server wants to be told who asks (RFC 9110, 11.6.1; RFC 6750).

    Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull"
    Basic realm="Registry"
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_SCHEME = re.compile(r"\s*,?\s*([A-Za-z][A-Za-z0-9-]*)(?=\s|,|\Z)")
_PARAMETER = re.compile(r'\s*,?\s*([A-Za-z][A-Za-z0-9_-]*)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))')
_LIMIT = 8192


@dataclass(frozen=True, slots=True)
class Challenge:
    """scheme: in small letters. parameters: by names in small letters."""

    scheme: str
    parameters: dict[str, str]


def parse(headers: Iterable[str]) -> list[Challenge]:
    """Return what the headers of one answer offer; what cannot be read is left out."""
    found: list[Challenge] = []
    for header in headers:
        position, text = 0, header[:_LIMIT]
        while match := _SCHEME.match(text, position):
            position = match.end()
            parameters: dict[str, str] = {}
            while inner := _PARAMETER.match(text, position):
                position = inner.end()
                value = inner[3] if inner[2] is None else re.sub(r"\\(.)", r"\1", inner[2])
                parameters.setdefault(inner[1].lower(), value)
            found.append(Challenge(match[1].lower(), parameters))
    return found
