"""Named places where a test makes the engine fail or die, to prove that each step undoes itself.

    WHERRY_FAILPOINTS="start.sandbox=error create.record=kill"

error raises SystemFailure there, kill is SIGKILL to the engine itself. Without the variable a place costs one lookup in
an empty dictionary. Read once, at import: nothing a client sends can set one.
"""

from __future__ import annotations

import os
import signal

from wherry.errors import SystemFailure

_ARMED = dict(entry.partition("=")[::2] for entry in os.environ.get("WHERRY_FAILPOINTS", "").split() if "=" in entry)


def reach(place: str) -> None:
    """Fail or die here when a test asked for it; raises SystemFailure naming the place."""
    action = _ARMED.get(place)
    if action == "error":
        raise SystemFailure(f"failpoint {place}")
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
