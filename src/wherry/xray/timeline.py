"""How long each phase of the last start took."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from wherry.models.times import rfc3339
from wherry.models.xray import Phase, Start


def read(phases: Sequence[tuple[str, int]], started_at: int) -> Start | None:
    """Return the phases with their lengths; None when none are recorded. started_at: Unix ns."""
    if len(phases) < 2:
        return None
    first, last = phases[0][1], phases[-1][1]
    found = tuple(
        Phase(name=name, began=at - first, lasted=max(0, following - at))
        for (name, at), (_, following) in pairwise(phases)
    )
    return Start(at=rfc3339(started_at), lasted=last - first, phases=found)
