"""Pulls and pushes without an engine around them."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from tests.kernel.images.store import Store
from wherry.events import Bus
from wherry.images.references import parse
from wherry.registry.api import ANONYMOUS, Credentials, RegistryConfig
from wherry.registry.cancellation import Cancellation
from wherry.registry.client import Registries
from wherry.services.pulling import Pulling, Wanted
from wherry.services.pushing import Pushing
from wherry.services.registries import RegistryService


class Desk:
    """An image store and registry services; a context manager."""

    def __init__(self, root: Path, *, lazy: bool = False, **config: Any) -> None:
        self.root = root
        self.store = Store(root)
        plain: dict[str, Any] = {"patience": 0.7, "pause": 0.01, "attempts": 3, "certificates": (root / "certs.d",)}
        self.registries = Registries(RegistryConfig(**plain | config))
        bus = Bus()
        self.pulling = Pulling(self.store.images, self.registries, bus, lazy=lazy)
        self.pushing = Pushing(self.store.images, self.registries, bus)
        self.service = RegistryService(self.registries, self.pulling, self.pushing)
        self.said: list[dict[str, Any]] = []

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, *_: object) -> None:
        self.service.close()
        self.store.close()

    def pull(
        self, name: str, *, platform: str = "", credentials: Credentials = ANONYMOUS, cancellation: Any = None
    ) -> list[str]:
        """Pull; return the texts of what was told."""
        said: list[dict[str, Any]] = []
        self.said = said
        self.pulling.pull(Wanted(parse(name), platform, credentials), said.append, cancellation or Cancellation())
        return [each["status"] for each in said if "status" in each]

    def push(self, name: str, *, credentials: Credentials = ANONYMOUS) -> list[str]:
        """Push; return the texts of what was told."""
        self.said = []
        self.pushing.push(parse(name), credentials, self.said.append, Cancellation())
        return [each["status"] for each in self.said if "status" in each]

    def login(self, **auth: str) -> Any:
        """POST /auth."""
        return asyncio.run(self.service.login(auth))

    def state(self) -> Any:
        """Everything that a pull can leave behind."""
        tables = [self.store.database.query("SELECT * FROM distribution")]
        return (self.store.state(), tables, sorted(os.listdir(self.root / "content")))
