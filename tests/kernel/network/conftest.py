from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wherry.network.config import NetworkConfig
from wherry.network.controller import Networks
from wherry.store.database import Database

Engine = Callable[..., Networks]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """Make the networks of an engine; call it inside of the test's namespace. Whatever is left is stopped."""
    made: list[tuple[Networks, Database]] = []

    def make(*, root: str = "a", start: bool = True, **config) -> Networks:
        folder = tmp_path / root
        folder.mkdir(exist_ok=True)
        database = Database(folder / "meta.db")
        settled = {"stock": 0, "bus": "/nowhere", "firewall_watch": False} | config
        networks = Networks(database, NetworkConfig(**settled), folder)
        made.append((networks, database))
        if start:
            networks.start()
            networks.restore([])
        return networks

    yield make
    for networks, database in made:
        for container in list(networks._members.groups()):
            networks.close_sandbox(container)  # what the name server serves keeps it alive
        networks.stop(remove=False)
        database.close()
