"""The mount table, to compare before and after: without what comes and goes with engines and tests beside a test."""

from __future__ import annotations

import os
import re
from pathlib import Path

_WORKER = re.compile(r"/popen-(gw\d+)/")


def lines(process: int | str = "self") -> list[str]:
    """Return the mounts that a process sees, but files and folders of sandboxes and what others mounted meanwhile."""
    table = Path(f"/proc/{process}/mountinfo").read_text().splitlines()
    return [line for line in table if not _is_anothers(line.split()[4]) and " - nsfs " not in line]


def _is_anothers(place: str) -> bool:
    worker = _WORKER.search(place)
    own = os.environ.get("PYTEST_XDIST_WORKER")
    return place.endswith("/netns") or bool(worker and own and worker[1] != own)
