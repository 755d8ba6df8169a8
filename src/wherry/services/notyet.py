"""What this engine cannot do yet: refused when a client asks for it."""

from __future__ import annotations

from wherry.errors import NotImplementedHere
from wherry.models.container import HostConfig


def _wanted(host: HostConfig) -> list[tuple[bool, str]]:
    return [
        (bool(host.links), "links (--link)"),
    ]


def check(host: HostConfig) -> None:
    """Raise NotImplementedHere for what is not there yet."""
    for wanted, what in _wanted(host):
        if wanted:
            raise NotImplementedHere(f"{what}: this engine does not have that yet")
