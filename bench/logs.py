"""100 MB of log lines: written by a container, and read back with docker logs."""

from __future__ import annotations

import shlex

from bench import harness

NAME = "wherry-bench-logs"
LINE = "x" * 79
COUNT = 1_250_000
SCRIPT = f"yes {LINE} | head -n {COUNT}"
OPTIONS = ("--log-driver", "json-file", "--log-opt", "max-size=1g", "--log-opt", "max-file=1")
WRITE, READ = 700.0, 1200.0


def measure(options: harness.argparse.Namespace) -> list[harness.Line]:
    """The lines of this script."""
    with harness.sides(options) as (ours, peer):
        both = [side for side in (ours, peer) if side]

        def write(side: harness.Side) -> float:
            """One container from its start to its end; the one before is removed outside of the time."""
            if side.run("ps", "-aq", "--filter", f"name={NAME}"):
                side.run("rm", "-f", NAME)
            side.run("create", "--name", NAME, "--network", "none", *OPTIONS, harness.IMAGE, "sh", "-c", SCRIPT)
            commands = [shlex.join(side.docker(word, NAME)) for word in ("start", "wait")]
            return harness.timed(["sh", "-c", " && ".join(commands)])

        def read(side: harness.Side) -> float:
            return harness.timed(side.docker("logs", NAME))

        rounds = max(1, options.rounds // 5)
        written = harness.in_turns([lambda side=side: write(side) for side in both], rounds, warmup=1)
        got = harness.in_turns([lambda side=side: read(side) for side in both], rounds, warmup=1)
    return [
        harness.Line.of("100 MB of log lines, written", written, peer, WRITE),
        harness.Line.of("the same, read with docker logs", got, peer, READ),
    ]


if __name__ == "__main__":
    harness.show(measure(harness.arguments(__doc__ or "")))
