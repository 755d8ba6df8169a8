"""`docker exec CONTAINER true` in a running container."""

from bench import harness

NAME = "wherry-bench-exec"
WORK, BUDGET = "exec true", 18.0


def measure(options: harness.argparse.Namespace) -> list[harness.Line]:
    """The line of this script."""
    with harness.sides(options) as (ours, peer):
        for side in filter(None, (ours, peer)):
            side.run("run", "-d", "--name", NAME, harness.IMAGE, "sleep", "100000")
        return [harness.compare_on(ours, peer, WORK, BUDGET, ["exec", NAME, "true"], options.rounds)]


if __name__ == "__main__":
    harness.show(measure(harness.arguments(__doc__ or "")))
