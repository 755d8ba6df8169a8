"""What a named volume adds to `docker run --rm IMAGE true`: with one that is there, and with one that is made for it.

The engines' part alone, in turns with the same run without a volume: the figure is the median of the differences within
a round. Who begins a round changes: what a run leaves to do, such as new spare processes, meets all alike.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence

from bench import harness, requests

BUDGET = 2.0
VOLUME = "wherry-bench-volume"


def run(side: harness.Side, binds: list[str]) -> float:
    """docker run --rm --network none -v ... IMAGE true."""
    begin = harness.time.perf_counter()
    control, stream, waiter = (requests.Connection(side) for _ in range(3))
    host = {"NetworkMode": "none", "AutoRemove": True, "Binds": binds}
    made = control.ask("POST", "/containers/create", {"Image": harness.IMAGE, **requests.STREAMS, "HostConfig": host})
    container = json.loads(made)["Id"]
    stream.upgrade(f"/containers/{container}/attach?stream=1&stdout=1&stderr=1")
    waiting = waiter.send_json("POST", f"/containers/{container}/wait?condition=removed")
    control.ask("POST", f"/containers/{container}/start")
    stream.drain()
    waiting.read()
    took = (harness.time.perf_counter() - begin) * 1e3
    for each in (control, stream, waiter):
        each.close()
    return took


def with_new(side: harness.Side) -> float:
    """As `run`, with a volume that has to be made; its removal is not counted."""
    took = run(side, [f"{VOLUME}-new:/v"])
    control = requests.Connection(side)
    control.ask("DELETE", f"/volumes/{VOLUME}-new")
    control.close()
    return took


def differences(side: harness.Side, kinds: Sequence[Callable[[harness.Side], float]], rounds: int) -> list[float]:
    """Return what each kind but the first takes longer than the first, in ms."""
    found: list[list[float]] = [[] for _ in kinds[1:]]
    for number in range(rounds):
        first = number % len(kinds)
        order = [*range(first, len(kinds)), *range(first)]
        taken = {place: kinds[place](side) for place in order}
        for place, each in enumerate(found, 1):
            each.append(taken[place] - taken[0])
    return [statistics.median(each) for each in found]


def measure(options: harness.argparse.Namespace) -> list[harness.Line]:
    """Two lines: what is added."""
    with harness.sides(options) as (ours, peer):
        both = [side for side in (ours, peer) if side]
        for side in both:
            side.run("volume", "create", VOLUME)
        kinds: list[Callable[[harness.Side], float]] = [
            lambda side: run(side, []),
            lambda side: run(side, [f"{VOLUME}:/v"]),
            with_new,
        ]
        added = [differences(side, kinds, options.rounds) for side in both]
        for side in both:
            side.run("volume", "rm", VOLUME)
    names = ("a named volume adds to a run", "a named volume that is made for it adds")
    return [harness.Line.of(work, [each[place] for each in added], peer, BUDGET) for place, work in enumerate(names)]


if __name__ == "__main__":
    harness.show(measure(harness.arguments(__doc__ or "")))
