"""The layers of images: getting them into the storage driver, and out of it when nobody needs them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import BinaryIO, cast

from wherry.archive.tar import Source
from wherry.errors import Conflict, NotFound
from wherry.failpoints import reach
from wherry.images.config import chain_ids
from wherry.images.content import Content
from wherry.images.rows import ImageRow, LayerRow, Rows
from wherry.snapshots.api import Snapshotter
from wherry.store.database import Database

OpenLayer = Callable[[int], AbstractContextManager[Source]]


@dataclass(slots=True)
class _Making:
    """A layer that is being made, and how many threads are at it or wait for it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    threads: int = 0


class Layers:
    """Ingests and collects; what is leased stays."""

    def __init__(self, rows: Rows, snapshotter: Snapshotter, database: Database, content: Content) -> None:
        self._rows = rows
        self._snapshotter = snapshotter
        self._database = database
        self._content = content
        self._leases = content.leases
        self._lock = threading.Lock()
        self._making: dict[str, _Making] = {}

    def is_present(self, chain_id: str) -> bool:
        """Return whether the driver has a layer."""
        try:
            self._snapshotter.stat(chain_id)
        except NotFound:
            return False
        return True

    @property
    def unpacked(self) -> bool:
        """Whether the driver has the files of layers apart from their archives."""
        return self._snapshotter.unpacks

    def present(self) -> set[str]:
        """Return the chain IDs of the layers that the driver has."""
        return {info.name for info in self._snapshotter.walk() if info.committed}

    def usage(self, chain_id: str) -> int:
        """Return the bytes of a layer as the driver counts them. Raises EngineError, OSError."""
        return self._snapshotter.usage(chain_id).size

    def flush(self) -> None:
        """Make the layers durable against a loss of power."""
        self._snapshotter.flush()

    def ingest(self, diff_ids: list[str], open_layer: OpenLayer) -> list[LayerRow]:
        """Make the layers that are missing, lowest first; open_layer(index) gives the tar, which is in `content` too.
        """
        rows: list[LayerRow] = []
        for index, (chain, diff_id) in enumerate(zip(chain_ids(diff_ids), diff_ids, strict=True)):
            parent = rows[-1].chain_id if rows else ""
            rows.append(self.ingest_one(LayerRow(chain, parent, diff_id, 0), partial(open_layer, index)))
        return rows

    def ingest_one(self, layer: LayerRow, open_layer: Callable[[], AbstractContextManager[Source]]) -> LayerRow:
        """Make one layer, unless it is there; its parent is. Return it with its size."""
        chain = layer.chain_id
        with self._alone(chain):
            if self.is_present(chain):
                size = self._snapshotter.usage(chain).size
            else:
                with open_layer() as source:
                    blob = self._content.path(layer.diff_id)
                    size = self._snapshotter.ingest(chain, layer.parent, cast(BinaryIO, source), blob).size
        reach("image.layer")
        return replace(layer, size=size)

    @contextmanager
    def _alone(self, chain_id: str) -> Iterator[None]:
        """Let only one thread at a time make a layer: the second finds it made."""
        with self._lock:
            making = self._making.setdefault(chain_id, _Making())
            making.threads += 1
        try:
            with making.lock:
                yield
        finally:
            with self._lock:
                making.threads -= 1
                if not making.threads:
                    del self._making[chain_id]

    def collect(self) -> list[str]:
        """Remove the layers that no image and no lease needs; return their chain IDs, topmost first."""
        with self._leases.lock:
            known = self._rows.layers()
            needed = self._needed(known)
            removed = [chain for chain in self._unneeded(known, needed) if self._remove(chain)]
            if removed:
                reach("collect.removed")
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


def chain_of(chain_id: str, layers: Mapping[str, LayerRow]) -> Iterator[LayerRow]:
    """Yield a layer and all below it, topmost first, as far as they are known."""
    while chain_id in layers:
        yield layers[chain_id]
        chain_id = layers[chain_id].parent


def shared_sizes(images: list[ImageRow], layers: Mapping[str, LayerRow]) -> dict[str, int]:
    """Return for each image the bytes of those of its layers that other images have too."""
    # an image may have come between the two looks; its layers are there from the lowest to the topmost
    settled = [image for image in images if not image.chain_id or image.chain_id in layers]
    chains = {image.id: list(chain_of(image.chain_id, layers)) for image in settled}
    users = Counter(layer.chain_id for chain in chains.values() for layer in chain)
    return {
        image_id: sum(layer.size for layer in chain if users[layer.chain_id] > 1) for image_id, chain in chains.items()
    }
