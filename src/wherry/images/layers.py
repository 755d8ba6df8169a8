"""The layers of images: getting them into the storage driver, and out of it when nobody needs them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import BinaryIO, cast

from wherry.archive.tar import Source
from wherry.errors import Conflict, NotFound
from wherry.images.config import chain_ids
from wherry.images.content import Content
from wherry.images.rows import LayerRow, Rows
from wherry.snapshots.api import Snapshotter
from wherry.store.database import Database

OpenLayer = Callable[[int], AbstractContextManager[Source]]


class Layers:
    """Ingests and collects; what is leased stays."""

    def __init__(self, rows: Rows, snapshotter: Snapshotter, database: Database, content: Content) -> None:
        self._rows = rows
        self._snapshotter = snapshotter
        self._database = database
        self._content = content
        self._leases = content.leases

    def is_present(self, chain_id: str) -> bool:
        """Return whether the driver has a layer."""
        try:
            self._snapshotter.stat(chain_id)
        except NotFound:
            return False
        return True

    def ingest(self, diff_ids: list[str], open_layer: OpenLayer) -> list[LayerRow]:
        """Make the layers that are missing, lowest first; open_layer(index) gives the tar, which is in `content` too.
        """
        rows: list[LayerRow] = []
        parent = ""
        for index, (chain, diff_id) in enumerate(zip(chain_ids(diff_ids), diff_ids, strict=True)):
            if self.is_present(chain):
                size = self._snapshotter.usage(chain).size
            else:
                with open_layer(index) as source:
                    blob = self._content.path(diff_id)
                    size = self._snapshotter.ingest(chain, parent, cast(BinaryIO, source), blob).size
            rows.append(LayerRow(chain, parent, diff_id, size))
            parent = chain
        return rows

    def collect(self) -> list[str]:
        """Remove the layers that no image and no lease needs; return their chain IDs, topmost first."""
        with self._leases.lock:
            known = self._rows.layers()
            needed = self._needed(known)
            removed = [chain for chain in self._unneeded(known, needed) if self._remove(chain)]
            with self._database.transaction():
                for chain in removed:
                    self._rows.drop_layer(chain)
        return removed

    def _needed(self, known: dict[str, LayerRow]) -> set[str]:
        needed: set[str] = set()
        for top in (*self._leases.names(), *(image.chain_id for image in self._rows.images())):
            chain = top
            while chain and chain not in needed:
                needed.add(chain)
                chain = known[chain].parent if chain in known else ""
        return needed

    def _unneeded(self, known: dict[str, LayerRow], needed: set[str]) -> list[str]:
        parents = {chain: row.parent for chain, row in known.items()}
        for info in self._snapshotter.walk():
            if info.committed:
                parents.setdefault(info.name, info.parent)
        return [chain for chain in children_first(parents) if chain not in needed]

    def _remove(self, chain: str) -> bool:
        try:
            self._snapshotter.remove(chain)
        except Conflict:
            return False  # a container stands on it
        except NotFound:
            return True
        return True


def children_first(parents: dict[str, str]) -> list[str]:
    """Order a forest, given as child -> parent, so that every child comes before its parent."""
    children = Counter(parent for parent in parents.values() if parent in parents)
    free = [each for each in parents if not children[each]]
    ordered: list[str] = []
    while free:
        each = free.pop()
        ordered.append(each)
        parent = parents[each]
        if parent in parents:
            children[parent] -= 1
            if not children[parent]:
                free.append(parent)
    return ordered
