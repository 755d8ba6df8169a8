"""What plugins still have to be told: that an endpoint has ended, that an address is free.

Nobody waits for it. Each network has a queue of its own, worked off in order by a thread that is there while there is
something to do, so a plugin that hangs holds up its own networks alone. What a plugin did not hear, it is told again,
for as long as the engine runs; what it refuses is logged and over. The store knows what is left when the engine ends
(announced.py, ipam/remote.py): the next one tells it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from wherry.errors import EngineError
from wherry.plugins.api import PluginFailed

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0

Step = Callable[[], object]


@dataclass(slots=True)
class _Queue:
    """One network's. busy: somebody works it off."""

    steps: deque[tuple[str, Step, Step]] = field(default_factory=deque)
    busy: bool = False


class Errands:
    """Thread-safe. The threads live in the network namespace of the one that submits."""

    def __init__(self) -> None:
        """Have nothing to do."""
        self._changed = threading.Condition()
        self._queues: dict[str, _Queue] = {}
        self._open = True

    def submit(self, network_id: str, what: str, tell: Step, done: Step) -> None:
        """Have something told; `done` forgets it, and is not called once the engine ends. what: for the log."""
        with self._changed:
            if not self._open:
                return
            queue = self._queues.setdefault(network_id, _Queue())
            queue.steps.append((what, tell, done))
            self._changed.notify_all()
            if queue.busy:
                return
            queue.busy = True
        name = f"wherry-plugin-{network_id[:12]}"
        threading.Thread(target=self._work, args=(queue,), name=name, daemon=True).start()

    def drained(self, network_id: str, timeout: float) -> bool:
        """Wait until a network's plugins know everything; False when the time is over first."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._pending(network_id), timeout)

    def _pending(self, network_id: str) -> bool:
        queue = self._queues.get(network_id)
        return queue is not None and (queue.busy or bool(queue.steps))

    def drop(self, network_id: str) -> None:
        """Forget what is left to tell about a network that is gone."""
        with self._changed:
            queue = self._queues.pop(network_id, None)
            if queue is not None:
                queue.steps.clear()
            self._changed.notify_all()

    def stop(self, timeout: float = 1.0) -> None:
        """Tell what can be told in a moment, and no more."""
        deadline = time.monotonic() + timeout
        for network_id in list(self._queues):
            self.drained(network_id, max(0.0, deadline - time.monotonic()))
        with self._changed:
            self._open = False
            self._changed.notify_all()

    def _work(self, queue: _Queue) -> None:
        pause = FIRST_PAUSE
        while (step := self._next(queue)) is not None:
            what, tell, done = step
            if self._told(what, tell):
                pause = FIRST_PAUSE
                self._finish(queue, step, done)
                continue
            with self._changed:
                self._changed.wait_for(lambda: not self._open or not queue.steps, pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    def _next(self, queue: _Queue) -> tuple[str, Step, Step] | None:
        with self._changed:
            if self._open and queue.steps:
                return queue.steps[0]
            queue.busy = False
            self._changed.notify_all()
            return None

    def _finish(self, queue: _Queue, step: tuple[str, Step, Step], done: Step) -> None:
        """Under the lock, so that nothing is written after `stop` and nothing for a network that was dropped."""
        with self._changed:
            if self._open and queue.steps and queue.steps[0] is step:
                queue.steps.popleft()
                done()

    @staticmethod
    def _told(what: str, tell: Step) -> bool:
        try:
            tell()
        except PluginFailed as error:
            log.warning("a plugin refuses", extra={"what": what, "error": error.message})
        except EngineError as error:
            log.warning("a plugin has to be told again", extra={"what": what, "error": error.message})
            return False
        return True
