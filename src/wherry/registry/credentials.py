"""The headers in which clients hand credentials over: base64url of JSON, with or without padding.

    X-Registry-Auth     {"username", "password", "auth", "identitytoken", "registrytoken", "serveraddress"}
    POST /auth          the same as a JSON body
"""

from __future__ import annotations

import base64
import binascii

import msgspec

from wherry.errors import InvalidArgument
from wherry.registry.api import ANONYMOUS, HUB, Credentials

_LIMIT = 64 << 10
_HUB_HOSTS = ("", HUB, "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com", "hub.docker.com")


class AuthConfig(msgspec.Struct):
    """What a client sends. auth: base64 of NAME:PASSWORD."""

    username: str = ""
    password: str = ""
    auth: str = ""
    identitytoken: str = ""
    registrytoken: str = ""
    serveraddress: str = ""


def decode_auth(header: str) -> AuthConfig:
    """Return what a header holds; an empty one holds nothing. Raises InvalidArgument."""
    if not header:
        return AuthConfig()
    if len(header) > _LIMIT:
        raise InvalidArgument("invalid X-Registry-Auth header: it is too long")
    try:
        text = header.replace("+", "-").replace("/", "_").rstrip("=")
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars="-_", validate=True)
        return msgspec.json.decode(data or b"{}", type=AuthConfig)
    except (binascii.Error, ValueError, msgspec.DecodeError, RecursionError) as error:
        # what the error says may hold a part of a password
        raise InvalidArgument("invalid X-Registry-Auth header: it must be base64url of a JSON object") from error


def host_of(address: str) -> str:
    """Return the host of a server address as clients write them, "docker.io" for all names of Docker Hub."""
    host = address.partition("://")[2] or address
    host = host.partition("/")[0].lower()
    return HUB if host in _HUB_HOSTS else host


def for_host(auth: AuthConfig, host: str) -> Credentials:
    """Return the credentials of a client for one registry: none when they name another."""
    if auth.serveraddress and host_of(auth.serveraddress) != host_of(host):
        return ANONYMOUS
    name, password = auth.username, auth.password
    if auth.auth and not name:
        try:
            name, _, password = base64.b64decode(auth.auth, validate=True).decode().partition(":")
        except (binascii.Error, ValueError) as error:
            raise InvalidArgument("invalid auth configuration: auth must be base64 of NAME:PASSWORD") from error
    return Credentials(name, password.rstrip("\0"), auth.identitytoken, auth.registrytoken)
