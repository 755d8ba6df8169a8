"""Published ports: what many of them cost at a container's start, one more beside thousands, and each in memory.

A start is the engine's answer to POST /containers/ID/start, without create. Adding a port to a running container is
ours alone: a dockerd has nothing like it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import harness, requests

FIRST = 20000
STARTS = ((0, None), (1, None), (500, 60.0))
OTHERS = 2500
"""Ports of each of two containers that are there when one more is added."""
ADDED = 19999


def bindings(first: int, count: int) -> dict[str, list[dict[str, str]]]:
    """So many ports of the host from one on, each to its own of the container."""
    return {f"{first + number}/tcp": [{"HostPort": str(first + number)}] for number in range(count)}


def made(side: harness.Side, ports: dict[str, list[dict[str, str]]]) -> str:
    """Create a container that publishes ports when it starts."""
    host = {"PortBindings": ports, "Init": False}
    body = {"Image": harness.IMAGE, "Cmd": ["sleep", "1000"], "ExposedPorts": {key: {} for key in ports}}
    with connected(side) as engine:
        answer = engine.ask("POST", "/containers/create", {**body, "HostConfig": host})
    return str(json.loads(answer)["Id"])


@contextmanager
def connected(side: harness.Side) -> Iterator[requests.Connection]:
    """A connection to an engine."""
    engine = requests.Connection(side)
    try:
        yield engine
    finally:
        engine.close()


def started(side: harness.Side, container: str) -> float:
    """Milliseconds that a start takes."""
    with connected(side) as engine:
        begin = time.perf_counter()
        engine.ask("POST", f"/containers/{container}/start")
        return (time.perf_counter() - begin) * 1e3


def removed(side: harness.Side, container: str) -> None:
    """Kill and remove a container."""
    with connected(side) as engine:
        engine.ask("DELETE", f"/containers/{container}?force=1")


def start(side: harness.Side, count: int) -> float:
    """Milliseconds that the start of a container with so many ports takes."""
    container = made(side, bindings(FIRST, count))
    took = started(side, container)
    removed(side, container)
    return took


def added(side: harness.Side, container: str) -> float:
    """Milliseconds until one more port of a running container is published; it is taken away again."""
    body = {"PortBindings": bindings(ADDED, 1)}
    with connected(side) as engine:
        begin = time.perf_counter()
        engine.ask("POST", f"/wherry/v1/containers/{container}/ports/add", body)
        took = (time.perf_counter() - begin) * 1e3
        engine.ask("POST", f"/wherry/v1/containers/{container}/ports/remove", body)
    return took


def supervisor_bytes(side: harness.Side, container: str) -> int:
    """Memory of its own of the process that holds a container's ports (Pss), in bytes."""
    with connected(side) as engine:
        pid = json.loads(engine.ask("GET", f"/containers/{container}/json"))["State"]["Pid"]
    parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    line = next(each for each in Path(f"/proc/{parent}/smaps_rollup").read_text().splitlines() if "Pss:" in each)
    return int(line.split()[1]) * 1024


def growth(ours: harness.Side, rounds: int) -> list[harness.Line]:
    """One more port with nothing beside it, and beside thousands; what each of those takes of its holder's memory."""
    plain = made(ours, {})
    started(ours, plain)
    [alone] = harness.in_turns([lambda: added(ours, plain)], rounds)
    crowd = [made(ours, bindings(FIRST + number * OTHERS, OTHERS)) for number in range(2)]
    for each in crowd:
        started(ours, each)
    [beside] = harness.in_turns([lambda: added(ours, plain)], rounds)
    per_port = (supervisor_bytes(ours, crowd[0]) - supervisor_bytes(ours, plain)) / OTHERS
    for each in (plain, *crowd):
        removed(ours, each)
    return [
        harness.Line("add one port, none beside it", alone, None, "", None),
        harness.Line(f"add one port beside {2 * OTHERS}", beside, None, "", round(alone * 1.5, 1)),
        harness.Line("memory of the supervisor per port", per_port, None, "", None, "B"),
    ]


def measure(options: harness.argparse.Namespace) -> list[harness.Line]:
    """Starts with ports on both sides, then what is ours alone."""
    lines = []
    with harness.sides(options) as (ours, peer):
        for count, budget in STARTS:
            both = [lambda side=side, of=count: start(side, of) for side in (ours, peer) if side]
            work = f"start with {count} published ports"
            lines.append(harness.Line.of(work, harness.in_turns(both, options.rounds), peer, budget))
        lines += growth(ours, options.rounds)
    return lines


if __name__ == "__main__":
    harness.show(measure(harness.arguments(__doc__ or "")))
