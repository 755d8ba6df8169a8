"""Where a registry is: the origins that are tried for a host, and which of them are trusted to be insecure.

    docker.io                 the mirrors, then https://registry-1.docker.io
    a host that is insecure   https without looking at the certificate, then http
    any other                 https

Insecure are localhost, addresses of 127.0.0.0/8 and ::1, and what `insecure-registries` lists: a host as it is written,
with its port, or a network, for hosts that are written as addresses. dockerd also looks at what a name resolves to;
then one lying answer of a name server turns verification off (CVE-2026-92543).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from wherry.errors import InvalidArgument
from wherry.registry.api import HUB, RegistryConfig

_HUB_HOST = "registry-1.docker.io"
_LOOPBACK = ("127.0.0.0/8", "::1/128")
PORTS = {"http": 80, "https": 443}

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Origin:
    """A server. path: what comes before /v2/. verified: whether its certificate must be good."""

    scheme: str
    host: str
    port: int
    verified: bool = True
    mirror: bool = False
    path: str = ""

    @property
    def netloc(self) -> str:
        """The host, with its port unless it is the usual one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The beginning of its URLs, without a slash at the end."""
        return f"{self.scheme}://{self.netloc}{self.path}"

    def serves(self, url: str) -> bool:
        """Return whether a URL is of this scheme, host and port."""
        return same_place(self.url, url)


def place(url: str) -> tuple[str, str, int]:
    """Return scheme, host in small letters and port. Raises InvalidArgument for what is no URL of http or https."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidArgument(f"invalid URL {url[:200]!r}: {error}") from error
    if parts.scheme not in PORTS or not parts.hostname or parts.username is not None:
        raise InvalidArgument(f"refusing the URL {url[:200]!r}: only http and https are followed")
    if any(character <= " " or character == "\x7f" for character in url):
        raise InvalidArgument(f"refusing the URL {url[:200]!r}: it has control characters or blanks")
    return parts.scheme, parts.hostname, PORTS[parts.scheme] if port is None else port


def same_place(first: str, second: str) -> bool:
    """Return whether two URLs have the same origin."""
    return place(first) == place(second)


def literal(host: str) -> Address | None:
    """Return the address that a host is written as, None for a name."""
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Return whether a host, as it is written, is this machine."""
    address = literal(host)
    return host == "localhost" or (address is not None and address.is_loopback)


class Origins:
    """The origins of registries under one configuration."""

    def __init__(self, config: RegistryConfig) -> None:
        """Raises InvalidArgument for an entry that is none."""
        self._hosts = {each.lower() for each in config.insecure if "/" not in each}
        networks = [*_LOOPBACK, *(each for each in config.insecure if "/" in each)]
        try:
            self._networks = [ipaddress.ip_network(each) for each in networks]
        except ValueError as error:
            raise InvalidArgument(f"insecure registry {error}: give HOST, HOST:PORT or a network") from error
        self._mirrors = [self._mirror(url) for url in config.mirrors]

    def _mirror(self, url: str) -> Origin:
        parts = urlsplit(url)
        try:
            scheme, host, port = place(url)
        except InvalidArgument as error:
            raise InvalidArgument(f'invalid mirror: "{url}": {error.message}') from error
        if parts.query or parts.fragment:
            raise InvalidArgument(f'invalid mirror: query or fragment at end of the URI "{url}"')
        verified = not self.is_insecure(parts.netloc)
        return Origin(scheme, host, port, verified, True, parts.path.rstrip("/"))

    def is_insecure(self, netloc: str) -> bool:
        """Return whether a host, with or without port, may be used without a good certificate, or by http."""
        host = urlsplit(f"//{netloc}").hostname or ""
        if netloc.lower() in self._hosts or host in self._hosts or host == "localhost":
            return True
        address = literal(host)
        return address is not None and any(address in network for network in self._networks)

    def of(self, host: str, *, mirrors: bool = False) -> Iterator[Origin]:
        """Yield the origins of a registry in the order in which they are tried. mirrors: for pulls."""
        if host == HUB:
            if mirrors:
                yield from self._mirrors
            yield Origin("https", _HUB_HOST, 443)
            return
        parts = urlsplit(f"//{host}")
        name = parts.hostname or host
        if not self.is_insecure(host):
            yield Origin("https", name, parts.port or 443)
            return
        yield Origin("https", name, parts.port or 443, verified=False)
        yield Origin("http", name, parts.port or 80, verified=False)
