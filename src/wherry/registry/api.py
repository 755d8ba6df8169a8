"""Registries: what the rest of the engine may ask of them, over HTTP in the words of the distribution spec.

    Remote.manifest(reference)  ->  Manifest          by tag or digest, verified
    Remote.blob(descriptor)     ->  Reader            a blob's bytes as they come, resumed and verified
    Remote.upload(...)          ->  Descriptor        a blob that is made while it is sent
    login, search                                     POST /auth, GET /images/search

All methods block and are called in worker threads; a `Cancellation` ends what they wait for. They raise EngineErrors,
with dockerd's texts.

Rules for all traffic (the names are those of the tests, tests/security/test_registry.py):

- Credentials are for one registry. They go to its own origin (scheme, host and port), and to the token server that it
  names when that is reached by https, or is the registry itself or another host that the user has called insecure. A
  redirect takes none along (RG-01, RG-02, RG-05).
- What is insecure is decided by the words of the reference, never by what a name resolves to (RG-03).
- https that fails is not tried again as http, except for hosts that are insecure (RG-04).
- Only http and https; at most ten redirects; never from a registry elsewhere to this machine or to a link-local
  address; every body, wait and header has a limit (RG-06).
- Bytes count only by their digest (RG-07).

https://github.com/opencontainers/distribution-spec, https://distribution.github.io/distribution/spec/auth/token/
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Report = Callable[[dict[str, Any]], None]
"""Is given progress records in the wire form of the Engine API."""

HUB = "docker.io"


@dataclass(frozen=True, slots=True)
class Repository:
    """host: as in the reference, with a port if it has one. path: "library/busybox"."""

    host: str
    path: str


@dataclass(frozen=True, slots=True)
class Credentials:
    """For one registry. identity_token: for a token server. registry_token: what a token server would answer."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    def __bool__(self) -> bool:
        return bool(self.username or self.identity_token or self.registry_token)


ANONYMOUS = Credentials()


@dataclass(frozen=True, slots=True)
class RegistryConfig:
    """mirrors: URLs, for Docker Hub only. insecure: hosts and networks. certificates: folders as dockerd's certs.d.

    patience: seconds without a byte. pause: seconds before a second attempt, twice that before a third.
    """

    mirrors: tuple[str, ...] = ()
    insecure: tuple[str, ...] = ()
    certificates: tuple[Path, ...] = (Path("/etc/wherry/certs.d"), Path("/etc/docker/certs.d"))
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""
    downloads: int = 3
    uploads: int = 5
    attempts: int = 5
    patience: float = 30.0
    pause: float = 1.0
