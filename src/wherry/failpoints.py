"""Named places where a test makes the engine fail, wait or die, to prove that each step undoes itself.

    WHERRY_FAILPOINTS="start.sandbox=error create.record=kill mount.opened=wait:/tmp/fifo mount.patience=0.2"

error raises SystemFailure there, kill is SIGKILL to the engine itself, wait holds the thread up until somebody opens
the FIFO for writing; a number is the seconds of a limit. Without the variable a place costs one lookup in an empty
dictionary. Read once, at import: nothing a client sends can set one.
"""

from __future__ import annotations

import os
import signal

from wherry.errors import SystemFailure

_ARMED = dict(entry.partition("=")[::2] for entry in os.environ.get("WHERRY_FAILPOINTS", "").split() if "=" in entry)


def reach(place: str) -> None:
    """Fail, wait or die here when a test asked for it; raises SystemFailure naming the place."""
    action = _ARMED.get(place)
    if action == "error":
        raise SystemFailure(f"failpoint {place}")
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if action is not None and action.startswith("wait:"):
        os.close(os.open(action.removeprefix("wait:"), os.O_RDONLY | os.O_CLOEXEC))


def limit(place: str, seconds: float) -> float:
    """Return a limit in seconds, or the one that a test has set instead."""
    return float(_ARMED.get(place, seconds))
