"""`docker exec CONTAINER true` in a running container: through the docker command, and the engine's part of it alone.

The docker command itself takes a large part of the first line: the third line is the command against a server that
answers at once.
"""

from __future__ import annotations

from bench import canned, harness, requests

NAME = "wherry-bench-exec"
WORK, BUDGET = "exec true", 18.0


def measure(options: harness.argparse.Namespace) -> list[harness.Line]:
    """The lines of this script."""
    with harness.sides(options) as (ours, peer), canned.running() as nothing:
        both = [side for side in (ours, peer) if side]
        for side in both:
            side.run("run", "-d", "--name", NAME, harness.IMAGE, "sleep", "100000")
        calls = [lambda side=side: harness.timed(side.docker("exec", NAME, "true")) for side in (*both, nothing)]
        *command, floor = harness.in_turns(calls, options.rounds)
        engine = harness.engines(lambda side: requests.exec_true(side, NAME), ours, peer, options.rounds)
    return [
        harness.Line.of(WORK, command, peer, BUDGET),
        engine,
        harness.Line.of("  the docker command against no engine", [floor], None, None),
    ]


if __name__ == "__main__":
    harness.show(measure(harness.arguments(__doc__ or "")))
