"""What a named volume adds to `docker run --rm IMAGE true`: with one that is there, and with one that is made for it.

The engines' part alone, in turns with the same run without a volume: the figure is the difference of two medians.
"""

from __future__ import annotations

import json
from collections.abc import Callable

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
        calls = [lambda side=side, kind=kind: kind(side) for side in both for kind in kinds]
        taken = harness.in_turns(calls, options.rounds)
        for side in both:
            side.run("volume", "rm", VOLUME)
    lines = []
    for place, work in ((1, "a named volume adds to a run"), (2, "a named volume that is made for it adds")):
        added = [taken[number * 3 + place] - taken[number * 3] for number in range(len(both))]
        lines.append(harness.Line.of(work, added, peer, BUDGET))
    return lines


if __name__ == "__main__":
    harness.show(measure(harness.arguments(__doc__ or "")))
