"""Volumes that only their plugins know: somebody else has made them, and they are found by their names.

Who asks for a volume that has no record here may mean one of those, so all plugins are asked, at once and not for
long. One that does not answer in time is left alone for a while: what it has can still be had by naming it as driver.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from wherry.errors import EngineError
from wherry.services.pace import at_their_pace
from wherry.volumes.records import Volume
from wherry.volumes.remote import Remote, RemoteVolumes

log = logging.getLogger(__name__)
Result = TypeVar("Result")

PATIENCE = 2.0
"""Seconds for a plugin to say whether it has a volume."""
LIST_PATIENCE = 5.0
"""Seconds for a plugin to list its volumes."""
PAUSE = 60.0
"""Seconds in which a plugin that did not answer is not asked for names."""


@dataclass(frozen=True, slots=True)
class Strangers:
    """Asks the plugins that there are."""

    remote: RemoteVolumes
    _silent: dict[str, float] = field(default_factory=dict)
    """When each plugin that did not answer was asked, by the monotonic clock."""

    async def find(self, name: str) -> Volume | None:
        """Return a volume that a plugin has, None when none has said that it has it; the first by name wins."""
        now = time.monotonic()
        drivers = [each for each in self.remote.there() if now - self._silent.get(each, -PAUSE) >= PAUSE]
        answers = await _all(drivers, lambda driver: at_their_pace(self.remote.get, driver, name), PATIENCE)
        for driver, answer in zip(drivers, answers, strict=True):
            if isinstance(answer, TimeoutError):
                self._silent[driver] = now
                log.warning("a plugin does not say what it has", extra={"driver": driver, "volume": name})
            elif isinstance(answer, Remote):
                return Volume(name=name, created=0, driver=driver)
        return None

    async def listing(self, drivers: Iterable[str]) -> tuple[dict[tuple[str, str], Remote], list[str]]:
        """Return the volumes that plugins have, by driver and name, and who of `drivers` does not say.

        Others that can be found are asked too; what they cannot say nobody misses.
        """
        needed = set(drivers)
        asked = sorted({*needed, *self.remote.there()})
        answers = await _all(asked, lambda driver: at_their_pace(self.remote.listing, driver), LIST_PATIENCE)
        found: dict[tuple[str, str], Remote] = {}
        warnings = []
        for driver, answer in zip(asked, answers, strict=True):
            if isinstance(answer, list):
                found |= {(driver, each.name): each for each in answer}
            elif driver in needed or isinstance(answer, TimeoutError):
                late = f"no answer within {LIST_PATIENCE:g} seconds"
                why = answer.message if isinstance(answer, EngineError) else late
                warnings.append(f"volume driver {driver}: {why}")
        return found, warnings


async def _all(
    drivers: Iterable[str], ask: Callable[[str], asyncio.Future[Result]], patience: float
) -> list[Result | EngineError | TimeoutError]:
    jobs = [asyncio.wait_for(ask(driver), patience) for driver in drivers]
    found: list[Result | EngineError | TimeoutError] = []
    for answer in await asyncio.gather(*jobs, return_exceptions=True):
        if isinstance(answer, BaseException) and not isinstance(answer, EngineError | TimeoutError):
            raise answer
        found.append(answer)
    return found
