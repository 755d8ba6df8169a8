"""Ways between linked containers of the default bridge, where its containers may otherwise not talk (icc=false).

They stand in the rules of the bridge. Whoever starts an engine or a container that is linked says which there are;
those of an address go before it can be another container's.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable

from wherry.network.directory import BRIDGE, Directory
from wherry.network.drivers.bridge import BridgeDriver
from wherry.network.firewall.api import Passage


class Passages:
    """Thread-safe."""

    def __init__(self, directory: Directory) -> None:
        """Know of no way yet."""
        self._directory = directory
        self._lock = threading.Lock()
        self._held: tuple[Passage, ...] = ()

    def put(self, wanted: Iterable[Passage]) -> None:
        """Have these ways and no others. Raises OSError."""
        with self._lock:
            self._change(tuple(dict.fromkeys(wanted)))

    def forget(self, addresses: Collection[str]) -> None:
        """Have no way from these addresses, or to them. Raises OSError."""
        if self._held:
            with self._lock:
                kept = [each for each in self._held if not {each.source, each.target} & set(addresses)]
                self._change(tuple(kept))

    def _change(self, wanted: tuple[Passage, ...]) -> None:
        driver = next((entry.driver for entry in self._directory if entry.network.name == BRIDGE), None)
        if isinstance(driver, BridgeDriver) and wanted != self._held:
            driver.let_pass(wanted)
            self._held = wanted
