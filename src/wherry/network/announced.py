"""What plugins have been told of and have not been told to forget: the table `announced`.

A row is written before a network or an endpoint is announced and deleted after the plugin has been told that it is
gone. So an engine that was killed anywhere in between leaves nothing at a plugin that the next one does not know of.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from wherry.errors import EngineError, SystemFailure, Unavailable
from wherry.network import remotewire as wire
from wherry.network.errands import Errands
from wherry.plugins.api import NETWORK as DRIVER
from wherry.plugins.registry import Nothing, Plugins
from wherry.store.database import Database

NETWORK = ""
"""In place of an endpoint: the network itself."""


class Announced:
    """Thread-safe, as the database is."""

    def __init__(self, database: Database) -> None:
        """Use this database."""
        self._database = database

    def add(self, plugin: str, network: str, endpoint: str = NETWORK) -> None:
        """Write down what is about to be announced."""
        self._database.execute("INSERT OR REPLACE INTO announced VALUES (?, ?, ?)", (plugin, network, endpoint))

    def has(self, network: str, endpoint: str = NETWORK) -> bool:
        """Whether a plugin may know a network or an endpoint."""
        query = "SELECT 1 FROM announced WHERE network = ? AND endpoint = ?"
        return bool(self._database.query(query, (network, endpoint)))

    def endpoints(self, network: str) -> list[str]:
        """Return the endpoints of a network that its plugin may know."""
        rows = self._database.query("SELECT endpoint FROM announced WHERE network = ? AND endpoint != ''", (network,))
        return [endpoint for (endpoint,) in rows]

    def networks(self) -> dict[str, str]:
        """Return the networks that plugins may know, with the plugin."""
        return dict(self._database.query("SELECT network, plugin FROM announced WHERE endpoint = ''"))

    def remove(self, network: str, endpoint: str) -> None:
        """Forget an endpoint."""
        self._database.execute("DELETE FROM announced WHERE network = ? AND endpoint = ?", (network, endpoint))

    def remove_network(self, network: str) -> None:
        """Forget a network with all its endpoints."""
        self._database.execute("DELETE FROM announced WHERE network = ?", (network,))


@dataclass(frozen=True, slots=True)
class Told:
    """What the engine has of plugins, what it has told them, and what it has yet to tell."""

    plugins: Plugins
    announced: Announced
    errands: Errands


def forget_network(told: Told, plugin: str, network_id: str) -> None:
    """Have a plugin told to forget a network that no record speaks of, in the background."""

    def tell() -> None:
        request = wire.NetworkRef(network_id=network_id)
        told.plugins.get(plugin, DRIVER).call(f"{DRIVER}.DeleteNetwork", request, Nothing)

    what = f"network {network_id[:12]} is gone"
    told.errands.submit(network_id, what, tell, partial(told.announced.remove_network, network_id))


@contextmanager
def telling(more: str = "") -> Iterator[None]:
    """Say of failures within the block, in dockerd's words, that a container's start was what they are about."""
    try:
        yield
    except EngineError as error:
        kind = Unavailable if isinstance(error, Unavailable) else SystemFailure
        raise kind(f"failed to set up container networking: {more}{error.message}") from error
