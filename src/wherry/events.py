"""The bus: what happened, in order, to whoever listens, and a short memory for latecomers.

Publishing never blocks and never fails: a subscriber that does not read is cut off once it is BACKLOG events
behind, so a dead client cannot hold memory or anybody else up.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

REMEMBERED = 1024
BACKLOG = 4096


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. at: Unix time in ns. kind: container, image, network, volume, daemon."""

    kind: str
    action: str
    id: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    at: int = field(default_factory=time.time_ns)

    def to_wire(self) -> dict[str, Any]:
        """Return the event in the Engine API's form (with the fields that end at 1.51)."""
        wire: dict[str, Any] = {}
        if self.kind in ("container", "image"):
            wire = {"status": self.action, "id": self.id}
            if self.kind == "container":
                wire["from"] = self.attributes.get("image", "")
        return wire | {
            "Type": self.kind,
            "Action": self.action,
            "Actor": {"ID": self.id, "Attributes": dict(self.attributes)},
            "scope": "local",
            "time": self.at // 1_000_000_000,
            "timeNano": self.at,
        }


@dataclass(frozen=True, slots=True)
class Subscription:
    """past: what happened before, from a point in time on. queue: what happens; None when the reader was too slow."""

    past: tuple[Event, ...]
    queue: asyncio.Queue[Event | None]


class Bus:
    """Publish and subscribe inside one event loop."""

    def __init__(self) -> None:
        self._past: deque[Event] = deque(maxlen=REMEMBERED)
        self._listeners: set[asyncio.Queue[Event | None]] = set()

    def publish(self, kind: str, action: str, actor: str, attributes: Mapping[str, str] | None = None) -> None:
        """Tell all listeners, in the order of calls."""
        event = Event(kind, action, actor, dict(attributes or {}))
        self._past.append(event)
        for queue in tuple(self._listeners):
            if queue.qsize() >= BACKLOG:
                self._listeners.discard(queue)
                queue.put_nowait(None)
            else:
                queue.put_nowait(event)

    def subscribe(self, *, since: int = 0) -> Subscription:
        """Return a subscription that already receives; since (Unix ns, 0 = none) says which past events it holds."""
        past = tuple(event for event in self._past if since and event.at >= since)
        subscription = Subscription(past, asyncio.Queue())
        self._listeners.add(subscription.queue)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Receive no more."""
        self._listeners.discard(subscription.queue)
