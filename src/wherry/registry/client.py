"""The engine's way to registries: one configuration, and the downloads and uploads of all its clients."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from wherry.registry.api import HUB, Credentials, RegistryConfig
from wherry.registry.cancellation import Cancellation
from wherry.registry.origins import Origins
from wherry.registry.remote import Access
from wherry.registry.wire import Wire


class Registries:
    """What every pull, push, login and search begins with."""

    def __init__(self, config: RegistryConfig) -> None:
        """Raises InvalidArgument for mirrors or insecure registries that are none."""
        self.config = config
        self.origins = Origins(config)
        self.uploads = ThreadPoolExecutor(config.uploads, "wherry-upload")

    def reload(self, config: RegistryConfig) -> None:
        """Take over mirrors, insecure registries and attempts; work that goes on keeps what it began with.

        How much is done at the same time stays as it was at the start. Raises InvalidArgument.
        """
        fresh = replace(self.config, mirrors=config.mirrors, insecure=config.insecure, attempts=config.attempts)
        self.origins = Origins(fresh)
        self.config = fresh

    @contextmanager
    def access(self, credentials: Credentials, cancellation: Cancellation) -> Iterator[Access]:
        """Give connections that end with the block: certificates are read anew for each piece of work."""
        wire = Wire(self.config, self.origins)
        with wire.held():
            yield Access(self.config, self.origins, wire, credentials, cancellation)

    def described(self) -> dict[str, Any]:
        """Return RegistryConfig of GET /info."""
        mirrors = [f"{mirror.rstrip('/')}/" for mirror in self.config.mirrors]
        hub = {"Name": HUB, "Mirrors": mirrors, "Secure": True, "Official": True}
        hosts = {
            host: {"Name": host, "Mirrors": [], "Secure": False, "Official": False}
            for host in self.config.insecure
            if "/" not in host
        }
        networks = ["::1/128", "127.0.0.0/8", *(each for each in self.config.insecure if "/" in each)]
        return {"IndexConfigs": {HUB: hub, **hosts}, "InsecureRegistryCIDRs": networks, "Mirrors": mirrors or None}

    def close(self) -> None:
        """Wait for the threads, whose work has been cancelled."""
        self.uploads.shutdown(cancel_futures=True)


def without_password(url: str) -> str:
    """Return a proxy's URL as it may be shown."""
    parts = urlsplit(url)
    if parts.username is None:
        return url
    return urlunsplit(parts._replace(netloc=f"xxxxx:xxxxx@{parts.netloc.rpartition('@')[2]}"))
