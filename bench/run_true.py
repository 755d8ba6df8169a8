"""`docker run --rm --network NETWORK IMAGE true`: through the docker command, and the engine's part of it alone.

The last line is the docker command against a server that answers at once: no engine can go below it.
"""

from __future__ import annotations

from bench import canned, harness, requests

WORKS = (
    ("run --rm true, bridge network", "bridge", 24.0),
    ("run --rm true, network none", "none", 20.0),
    ("run --rm true, network host", "host", 20.0),
)


def measure(options: harness.argparse.Namespace) -> list[harness.Line]:
    """Two lines for each network mode."""
    lines = []
    with harness.sides(options) as (ours, peer):
        for work, network, budget in WORKS:
            words = ["run", "--rm", "--network", network, harness.IMAGE, "true"]
            lines.append(harness.compare_on(ours, peer, work, budget, words, options.rounds))
            lines.append(
                harness.engines(lambda side, of=network: requests.run_true(side, of), ours, peer, options.rounds)
            )
    with canned.running() as nothing:
        words = nothing.docker("run", "--rm", harness.IMAGE, "true")
        [floor] = harness.in_turns([lambda: harness.timed(words)], options.rounds)
    return [*lines, harness.Line.of("  the docker command against no engine", [floor], None, None)]


if __name__ == "__main__":
    harness.show(measure(harness.arguments(__doc__ or "")))
