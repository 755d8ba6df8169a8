"""`docker inspect` of one container, and how long after a `docker kill` its event is with a listener.

The latency is that of the engine: one client sends the signal, another has been listening before, both on one machine.
"""

from __future__ import annotations

from bench import harness, requests

NAME = "wherry-bench-glances"


def measure(options: harness.argparse.Namespace) -> list[harness.Line]:
    """The lines of this script."""
    with harness.sides(options) as (ours, peer):
        both = [side for side in (ours, peer) if side]
        for side in both:
            side.run("run", "-d", "--name", NAME, harness.IMAGE, "busybox", "sleep", "100000")
        inspect = harness.compare_on(ours, peer, "inspect", None, ["inspect", NAME], options.rounds)
        part = harness.engines(lambda side: requests.inspect(side, NAME), ours, peer, options.rounds)
        measures = [lambda side=side: requests.event(side, NAME) for side in both]
        heard = harness.in_turns(measures, options.rounds)
        return [inspect, part, harness.Line.of("an event, from its cause to a listener", heard, peer, None)]


if __name__ == "__main__":
    harness.show(measure(harness.arguments(__doc__ or "")))
