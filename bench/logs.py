"""100 MB of log lines: written by a container, and read back with docker logs; and what no engine can go below.

The floor of writing is the program with a reader that does nothing, and the two docker commands against a server that
does nothing; that of reading is docker logs against a server that has the output ready.
"""

from __future__ import annotations

import shlex

from bench import canned, harness

NAME = "wherry-bench-logs"
LINE = "x" * 79
COUNT = canned.LINES
SCRIPT = f"yes {LINE} | head -n {COUNT}"
OPTIONS = ("--log-driver", "json-file", "--log-opt", "max-size=1g", "--log-opt", "max-file=1")
WRITE, READ = 700.0, 1200.0


def measure(options: harness.argparse.Namespace) -> list[harness.Line]:
    """The lines of this script."""
    with harness.sides(options) as (ours, peer), canned.running() as nothing:
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

        def floor() -> float:
            commands = [shlex.join(nothing.docker(word, NAME)) for word in ("start", "wait")]
            program = shlex.join(["busybox", "sh", "-c", f"{SCRIPT} | cat >/dev/null"])
            return harness.timed(["sh", "-c", f"{commands[0]} && {program} && {commands[1]}"])

        rounds = max(1, options.rounds // 5)
        written = harness.in_turns([*(lambda side=side: write(side) for side in both), floor], rounds, warmup=1)
        got = harness.in_turns([*(lambda side=side: read(side) for side in (*both, nothing))], rounds, warmup=1)
    return [
        harness.Line.of("100 MB of log lines, written", written, peer, WRITE),
        harness.Line("  its floor, without an engine", written[-1], None, "", None),
        harness.Line.of("the same, read with docker logs", got, peer, READ),
        harness.Line("  its floor, without an engine", got[-1], None, "", None),
    ]


if __name__ == "__main__":
    harness.show(measure(harness.arguments(__doc__ or "")))
