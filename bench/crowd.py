"""Many containers at once: `ps` with 500 of them, and the processor time that an engine takes while they only sleep.

Processor time is that of the engine's own processes, as in bench/memory.py, and of what it keeps per container, all
outside of the containers; in percent of one core, over the time given.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from bench import harness, requests
from bench.memory import engine_processes, processes

LISTED, IDLE, CHECKED = 500, 100, 50
SECONDS = 30.0
PS_BUDGET, IDLE_BUDGET, CHECKS_BUDGET = None, 0.3, 10.0
HELPERS = ("wherry", "containerd-shim", "docker-proxy", "runc")
_TICK = os.sysconf("SC_CLK_TCK")


def ticks(pid: int) -> int:
    """Processor time of a process and of its children that it has waited for, in clock ticks: proc(5)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(map(int, fields[11:15]))


def load(side: harness.Side, before: set[int]) -> float:
    """Percent of a core that the engine takes; before: the processes that were there without it."""
    fresh = {pid for pid, (_, name) in processes().items() if pid not in before and name.startswith(HELPERS)}
    members = engine_processes(side.host) | fresh
    start = sum(map(ticks, members))
    time.sleep(SECONDS)
    return (sum(map(ticks, members)) - start) / _TICK / SECONDS * 100


def _idle(side: harness.Side, count: int, *options: str) -> float:
    before = set(processes())
    for _ in range(count):
        side.run("run", "-d", *options, harness.IMAGE, "sleep", "100000")
    time.sleep(3)
    found = load(side, before)
    side.run("rm", "-f", *side.run("ps", "-q").split())
    return found


def measure(options: harness.argparse.Namespace) -> list[harness.Line]:
    """The lines of this script."""
    with harness.sides(options) as (ours, peer):
        both = [side for side in (ours, peer) if side]
        name = peer.name if peer else ""
        lines = []
        for work, count, words, budget in (
            (f"CPU of the engine, {IDLE} idle containers", IDLE, (), IDLE_BUDGET),
            (f"CPU of the engine, {CHECKED} checks per second", CHECKED,
             ("--health-cmd", "true", "--health-interval", "1s"), CHECKS_BUDGET),
        ):  # fmt: skip
            found = [_idle(side, count, *words) for side in both]
            lines.append(harness.Line(work, found[0], found[1] if peer else None, name, budget, "%"))
        for side in both:
            for _ in range(LISTED):
                side.run("create", harness.IMAGE, "true")
        lines.append(harness.compare_on(ours, peer, f"ps -a with {LISTED} containers", PS_BUDGET, ["ps", "-a"], 7))
        lines.append(harness.engines(lambda side: requests.listing(side, LISTED), ours, peer, 7))
        return lines


if __name__ == "__main__":
    harness.show(measure(harness.arguments(__doc__ or "")))
