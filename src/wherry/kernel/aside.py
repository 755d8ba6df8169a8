"""Work in a thread of its own that ends with it: for work that goes where no other may follow.

A thread that has entered another namespace, or left what it shares with the others (namespaces(7)), must not do anybody
else's work afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def aside(work: Callable[[], T]) -> T:
    """Return what `work` returns, or raise what it raises. The thread has ended by then."""
    with ThreadPoolExecutor(1, "wherry-aside") as thread:
        return thread.submit(work).result()
