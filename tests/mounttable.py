"""The mount table, to compare before and after: without what comes and goes with engines beside a test."""

from __future__ import annotations

from pathlib import Path


def lines() -> list[str]:
    """Return the mounts of this namespace but the files and folders of sandboxes, and what others mounted meanwhile."""
    table = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in table if " - nsfs " not in line and not line.split()[4].endswith("/netns")]
