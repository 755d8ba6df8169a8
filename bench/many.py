"""`docker run -d` fifty times, four at a time; then `docker rm -f` of all fifty."""

from __future__ import annotations

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

from bench import harness

COUNT, AT_ONCE = 50, 4
START_BUDGET, REMOVE_BUDGET = 0.8, 0.5


def _start(side: harness.Side) -> tuple[float, list[str]]:
    command = side.docker("run", "-d", harness.IMAGE, "sleep", "100000")

    def one(_: int) -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    begin = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        containers = list(pool.map(one, range(COUNT)))
    return time.perf_counter() - begin, containers


def _remove(side: harness.Side, containers: list[str]) -> float:
    return harness.timed(side.docker("rm", "-f", *containers)) / 1e3


def measure(options: harness.argparse.Namespace) -> list[harness.Line]:
    """The two lines of this script; three rounds, each side in turn."""
    taken: dict[str, list[tuple[float, float]]] = {}
    with harness.sides(options) as (ours, peer):
        for _ in range(3):
            for side in filter(None, (ours, peer)):
                started, containers = _start(side)
                taken.setdefault(side.name, []).append((started, _remove(side, containers)))
    lines = []
    works = ((f"{COUNT} x run -d, {AT_ONCE} at a time", START_BUDGET), (f"rm -f of {COUNT} running", REMOVE_BUDGET))
    for place, (work, budget) in enumerate(works):
        medians = {name: harness.statistics.median(pair[place] for pair in pairs) for name, pairs in taken.items()}
        name = peer.name if peer else ""
        lines.append(harness.Line(work, medians["wherry"], medians.get(name), name, budget, "s"))
    return lines


if __name__ == "__main__":
    harness.show(measure(harness.arguments(__doc__ or "")))
