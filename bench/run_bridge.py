"""`docker run --rm IMAGE true` on the default bridge."""

from bench import harness

WORK, BUDGET = "run --rm true, bridge network", 24.0


def measure(options: harness.argparse.Namespace) -> list[harness.Line]:
    """The line of this script."""
    return [harness.compare(options, WORK, BUDGET, ["run", "--rm", harness.IMAGE, "true"])]


if __name__ == "__main__":
    harness.show(measure(harness.arguments(__doc__ or "")))
