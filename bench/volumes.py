"""What a named volume adds to a start: one that is there, and one that is made for it.

A start is POST create and POST start of a container without network, on a connection that is open: from the first
byte asked to the 204. The program's run and what is removed afterwards count for nothing. In each round a side has all
kinds of start in its turn, and the kind that comes first changes. Before each start the engine is left alone for PAUSE,
which is enough for it to make the spare processes that the one before has used up, and for ASIDE before the first, when
the other side's containers have just gone. A figure is the median of the differences within a round, and beside it are
their quartiles, ours and the peer's.

On a machine that does other things the time says little; what says more is shown below it: the time of the create,
where a volume is made; the CPU time, user and system, of the daemon alone (wherryd, dockerd) for both requests; and
that of our whole engine, zygote, supervisors and the children that become programs, until it has ended the container
and made its spare processes. `nice -n -20` before the command is for our engine and not for the peer, and so for a
machine that cannot be had alone: what is compared is a side with itself.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence

from bench import account, harness, requests

BUDGET = 2.0
PAUSE = 0.15
ASIDE = 0.5
VOLUME = "wherry-bench-volume"
PARTS = {
    "time": "{} adds to a start",
    "create": "  to the create",
    "daemon": "  CPU time of the daemon",
    "engine": "  CPU time of the engine, with what follows",
}
Start = dict[str, float]
"""What a start took, in milliseconds, by the names of PARTS; "engine" only where somebody counts."""
Kind = Callable[[harness.Side], Start]


def start(side: harness.Side, binds: Sequence[str] = ()) -> Start:
    """Start a container that ends at once, and remove it."""
    control = requests.Connection(side)
    control.ask("HEAD", "/_ping")
    body = {"Image": harness.IMAGE, "Cmd": ["true"], "HostConfig": {"NetworkMode": "none", "Binds": list(binds)}}
    time.sleep(PAUSE)
    engine, daemon, begin = account.engine(side.host), account.daemon(side.host), time.perf_counter()
    container = json.loads(control.ask("POST", "/containers/create", body))["Id"]
    created = time.perf_counter()
    control.ask("POST", f"/containers/{container}/start")
    started = time.perf_counter()
    took = {"time": started - begin, "create": created - begin}
    found = {part: seconds * 1e3 for part, seconds in took.items()}
    found["daemon"] = account.daemon(side.host) - daemon
    code = json.loads(control.ask("POST", f"/containers/{container}/wait"))["StatusCode"]
    if code:
        raise SystemExit(f"bench: exit code {code}")
    time.sleep(PAUSE)
    if engine is not None:
        found["engine"] = (account.engine(side.host) or 0.0) - engine
    control.ask("DELETE", f"/containers/{container}")
    control.close()
    return found


def with_new(side: harness.Side) -> Start:
    """As `start`, with a volume that has to be made; its removal is not counted."""
    found = start(side, [f"{VOLUME}-new:/v"])
    control = requests.Connection(side)
    control.ask("DELETE", f"/volumes/{VOLUME}-new")
    control.close()
    return found


KINDS: Sequence[Kind] = (start, lambda side: start(side, [f"{VOLUME}:/v"]), with_new)
NAMES = ("a named volume", "one that is made for it")


def differences(sides: Sequence[harness.Side], kinds: Sequence[Kind], rounds: int) -> list[list[list[Start]]]:
    """Return for each kind but the first and for each side what it adds to the first, in each round but one before."""
    found: list[list[list[Start]]] = [[[] for _ in sides] for _ in kinds[1:]]
    for number in range(1 + rounds):
        first = number % len(kinds)
        order = [*range(first, len(kinds)), *range(first)]
        taken = {}
        for which, side in enumerate(sides):
            time.sleep(ASIDE)
            taken |= {(place, which): kinds[place](side) for place in order}
        if number == 0:
            continue
        for place, by_side in enumerate(found, 1):
            for which, rows in enumerate(by_side):
                bare = taken[0, which]
                rows.append({part: value - bare[part] for part, value in taken[place, which].items()})
    return found


def lines(name: str, by_side: Sequence[Sequence[Start]], peer: harness.Side | None) -> Iterator[harness.Line]:
    """Yield the lines of one kind, see PARTS."""
    for part, work in PARTS.items():
        values = [[row[part] for row in rows] for rows in by_side if part in rows[0]]
        if values:
            beside = peer if len(values) == len(by_side) else None
            yield harness.Line.spread(work.format(name), values, beside, BUDGET if part in ("time", "engine") else None)


def measure(options: harness.argparse.Namespace) -> list[harness.Line]:
    """Some lines for each kind: what is added."""
    with harness.sides(options) as (ours, peer):
        both = [side for side in (ours, peer) if side]
        for side in both:
            side.run("volume", "create", VOLUME)
        found = differences(both, KINDS, options.rounds)
        for side in both:
            side.run("volume", "rm", VOLUME)
    return [line for name, by_side in zip(NAMES, found, strict=True) for line in lines(name, by_side, peer)]


if __name__ == "__main__":
    harness.show(measure(harness.arguments(__doc__ or "")))
