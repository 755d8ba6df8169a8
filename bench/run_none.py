"""`docker run --rm IMAGE true` without a network."""

from bench import harness

WORK, BUDGET = "run --rm true, network none", 20.0


def measure(options: harness.argparse.Namespace) -> list[harness.Line]:
    """The line of this script."""
    return [harness.compare(options, WORK, BUDGET, ["run", "--rm", "--network", "none", harness.IMAGE, "true"])]


if __name__ == "__main__":
    harness.show(measure(harness.arguments(__doc__ or "")))
