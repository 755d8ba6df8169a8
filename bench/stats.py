"""`docker stats --no-stream` of one running container; the docker command shows its table after 500 ms at least."""

from __future__ import annotations

from bench import harness, requests

NAME = "wherry-bench-stats"
WORK, BUDGET = "stats --no-stream", 50.0
ROUNDS = 7  # a second or two each on the other side


def measure(options: harness.argparse.Namespace) -> list[harness.Line]:
    """The lines of this script."""
    with harness.sides(options) as (ours, peer):
        for side in filter(None, (ours, peer)):
            side.run("run", "-d", "--name", NAME, harness.IMAGE, "sleep", "100000")
        words = ["stats", "--no-stream", NAME]
        line = harness.compare_on(ours, peer, WORK, None, words, ROUNDS)
        return [line, harness.engines(lambda side: requests.stats(side, NAME), ours, peer, ROUNDS, BUDGET)]


if __name__ == "__main__":
    harness.show(measure(harness.arguments(__doc__ or "")))
