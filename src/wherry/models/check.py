"""What `wherry system check` finds: the difference between what the engine's records say and what is on the disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from wherry.models.base import Model


class Finding(Model, frozen=True):
    """One thing that is not as it should be.

    kind: two words, the same for all of its kind. subject: a digest, name, id or path. remedy: what a repair does, or
    what a person has to do where it can do nothing (`mendable` false). bytes: what it takes on the disk.
    """

    kind: str
    subject: str
    problem: str
    remedy: str
    mendable: bool
    mended: bool = False
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Problem:
    """A finding, and how to mend it: None where that is not possible. `mend` may raise EngineError or OSError."""

    finding: Finding
    mend: Callable[[], None] | None = None


def problem(
    kind: str, subject: str, text: str, remedy: str, *, mend: Callable[[], None] | None = None, size: int = 0
) -> Problem:
    """Return a problem. text: what is wrong. size: bytes on the disk."""
    finding = Finding(
        kind=kind, subject=subject, problem=text, remedy=remedy, mendable=mend is not None, bytes=size
    )
    return Problem(finding, mend)
