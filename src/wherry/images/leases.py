"""What running work needs and nothing refers to yet: layers by chain ID, blobs by digest.

A collection takes neither. A lease is memory only, so it ends with the process: what a killed engine had half-made is
without a row and without a lease at the next start, and goes then. Whoever wants something that may be there already
leases it first and looks after; the other way round it could go in between.

The end of a lease asks the database, so nobody takes the lock of the leases who has a transaction open: leases first.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

Release = Callable[[str], None]
"""Is told each name that nobody leases any more, while no other lease can begin."""


class Lease:
    """Names that one piece of work holds; it may add to them as it learns what it needs."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._held: set[str] = set()

    def add(self, names: Iterable[str]) -> None:
        """Hold more names."""
        with self._leases.lock:
            fresh = set(names) - self._held
            self._held |= fresh
            self._leases.counts.update(fresh)

    def end(self) -> None:
        """Hold nothing any more."""
        with self._leases.lock:
            self._leases.counts.subtract(self._held)
            free = [name for name in self._held if self._leases.counts[name] <= 0]
            self._held.clear()
            for name in free:
                del self._leases.counts[name]
            for name in free:
                self._leases.release(name)


class Leases:
    """All leases of one engine. `lock` is held by whoever removes what is not leased."""

    def __init__(self, release: Release) -> None:
        self.lock = threading.RLock()
        self.counts: Counter[str] = Counter()
        self.release = release

    @contextmanager
    def hold(self, names: Iterable[str] = ()) -> Iterator[Lease]:
        """Keep layers and blobs, present or to come, from being collected."""
        lease = Lease(self)
        lease.add(names)
        try:
            yield lease
        finally:
            lease.end()

    def __contains__(self, name: str) -> bool:
        return name in self.counts

    def names(self) -> set[str]:
        """Return everything that is held."""
        with self.lock:
            return set(self.counts)
