"""Names in a network of the user: what a container waits for an address, and how many questions are answered.

The client enters the network namespace of a container and asks 127.0.0.11, as a program in it would. The server for all
other names is a process in the namespace of another container, which both engines reach.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import harness
from bench.harness import Line, Side

NETWORK, ASKER, UPSTREAM = "wherry-bench-names", "wherry-bench-asker", "wherry-bench-upstream"
OTHERS = 10
AT_ONCE = 100
BUDGET = 5.0
MANY = 10_000
CLIENT = Path(__file__).with_name("dnsclient.py")
_OWN, _FOREIGN = "wherry-bench-other-7", "example.org"


def pid(side: Side, name: str) -> str:
    """Return the pid of a container's first process."""
    return side.run("inspect", "-f", "{{.State.Pid}}", name)


def inside(side: Side, name: str, *words: str) -> list[str]:
    """Return the command that runs the client in a container's network namespace."""
    return ["nsenter", "-t", pid(side, name), "-n", sys.executable, str(CLIENT), *words]


def ask(side: Side, name: str, count: int) -> list[float]:
    """Return the sorted milliseconds of some questions, `AT_ONCE` under way."""
    command = inside(side, ASKER, "127.0.0.11", name, str(count), str(AT_ONCE))
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(f"{side.name}: {ran.stderr.strip()}")
    return sorted(json.loads(ran.stdout))


def middle(found: Sequence[float]) -> float:
    """Return p50."""
    return statistics.median(found)


def late(found: Sequence[float]) -> float:
    """Return p99."""
    return found[len(found) * 99 // 100 - 1]


@contextmanager
def prepared(side: Side) -> Iterator[None]:
    """Have a network with containers in it, and a server for all other names."""
    run = ("run", "-d", "--network", NETWORK, "--name")
    rest = (harness.IMAGE, "sleep", "100000")
    side.run("network", "create", NETWORK)
    with ExitStack() as undo:
        undo.callback(side.run, "network", "rm", NETWORK)
        undo.callback(side.clean_containers)
        side.run(*run, UPSTREAM, *rest)
        where = f'{{{{(index .NetworkSettings.Networks "{NETWORK}").IPAddress}}}}'
        address = side.run("inspect", "-f", where, UPSTREAM)
        server = subprocess.Popen(inside(side, UPSTREAM, address), stdout=subprocess.PIPE)
        undo.callback(server.wait)
        undo.callback(server.kill)
        assert server.stdout is not None
        server.stdout.readline()
        side.run(*run, ASKER, "--dns", address, *rest)
        for number in range(OTHERS):
            side.run(*run, f"wherry-bench-other-{number}", *rest)
        yield


def measure(options: harness.argparse.Namespace) -> list[Line]:
    """The lines of this script."""
    with harness.sides(options) as (ours, peer), ExitStack() as stack:
        both = [side for side in (ours, peer) if side]
        for side in both:
            stack.enter_context(prepared(side))
        cases: list[tuple[str, Callable[[Side], float], float | None]] = [
            ("100 names of containers at once, p50", lambda side: middle(ask(side, _OWN, AT_ONCE)), None),
            ("100 names of containers at once, p99", lambda side: late(ask(side, _OWN, AT_ONCE)), BUDGET),
            ("10,000 names, 100 under way, p99", lambda side: late(ask(side, _OWN, MANY)), None),
            ("10,000 names, 100 under way", lambda side: middle(ask(side, _OWN, MANY)) * MANY / AT_ONCE, None),
            ("100 forwarded at once, p50", lambda side: middle(ask(side, _FOREIGN, AT_ONCE)), None),
            ("100 forwarded at once, p99", lambda side: late(ask(side, _FOREIGN, AT_ONCE)), None),
        ]
        lines = []
        for work, of, budget in cases:
            rounds = 3 if "10,000" in work else options.rounds
            taken = harness.in_turns([lambda side=side, of=of: of(side) for side in both], rounds)
            lines.append(Line.of(work, taken, peer, budget))
        return lines


if __name__ == "__main__":
    harness.show(measure(harness.arguments(__doc__ or "")))
