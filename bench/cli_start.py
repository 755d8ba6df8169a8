"""The whole process of one short command: our CLI beside docker's, both against our engine."""

from __future__ import annotations

import sys
from pathlib import Path

from bench import harness

WORK, BUDGET = "our command line: wherry ps", 35.0


def measure(options: harness.argparse.Namespace) -> list[harness.Line]:
    """The line of this script."""
    wherry = str(Path(sys.executable).parent / "wherry")
    with harness.own_engine(options.host) as host:
        commands = [[program, "-H", host, "ps"] for program in (wherry, "docker")]
        measures = [lambda command=command: harness.timed(command) for command in commands]
        ours, docker = harness.in_turns(measures, options.rounds)
    return [harness.Line(WORK, ours, docker, "docker CLI", BUDGET)]


if __name__ == "__main__":
    harness.show(measure(harness.arguments(__doc__ or "")))
