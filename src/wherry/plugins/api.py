"""Plugins: programs beside the engine that do a part of its work, asked by HTTP as Docker's plugin protocol says.

    Plugins.get(name, kind)            ->  Plugin      found, activated, and of that kind
    Plugin.call(method, request, Answer)  ->  Answer   one exchange
    Plugins.known(kind)                ->  names       those that have been used so far

A plugin is a socket NAME.sock in one of the folders for sockets, or a file NAME.spec or NAME.json with its address in
one of those for descriptions; also NAME/NAME.sock and so on. It is looked for each time somebody asks for it, so one
that was restarted, or came later, is simply there.

    POST /Plugin.Activate                    ->  {"Implements": ["NetworkDriver", ...]}
    POST /NetworkDriver.Join   {...}         ->  {...}, or {"Err": "why not"}

Rules:

- A plugin is trusted: it runs as root, and what it says of links and addresses is done. What it says is still read
  strictly: bounded in size and in time, and of the types that the protocol names.
- One that does not answer holds up those who ask it and nobody else. Nothing that others need is locked meanwhile.
- Nothing but a failed connection is tried again: only then is it certain that nothing was done.

https://docs.docker.com/engine/extend/plugin_api/
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wherry.errors import SystemFailure, Unavailable

NETWORK = "NetworkDriver"
IPAM = "IpamDriver"
VOLUME = "VolumeDriver"
"""What a plugin may implement, of which the engine makes use."""

MEDIA_TYPE = "application/vnd.docker.plugins.v1.2+json"


@dataclass(frozen=True, slots=True)
class Roots:
    """Where plugins are looked for, what is first wins."""

    sockets: tuple[Path, ...] = (Path("/run/wherry/plugins"), Path("/run/docker/plugins"))
    descriptions: tuple[Path, ...] = (
        Path("/etc/wherry/plugins"),
        Path("/etc/docker/plugins"),
        Path("/usr/lib/docker/plugins"),
    )


@dataclass(frozen=True, slots=True)
class Limits:
    """connect: seconds in which a connection is tried, after 1, 2, 4 ... seconds; answer: to wait for the whole answer.

    dockerd tries for the same time, and waits for an answer for ever.
    """

    connect: float = 30.0
    answer: float = 30.0
    first_pause: float = 1.0


class PluginFailed(SystemFailure):
    """A plugin said that it could not do something; `reason` in its own words."""

    def __init__(self, message: str, reason: str, status: int) -> None:
        """status: of HTTP. Most plugins say in a 200 that they failed."""
        super().__init__(message)
        self.reason = reason
        self.status = status

    @property
    def unknown(self) -> bool:
        """Whether the plugin does not know the method, which is fine for those that came later."""
        return self.status == 404


class PluginSilent(Unavailable):
    """A plugin does not answer, or not in words of the protocol."""
