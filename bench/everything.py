"""All benchmarks in one table, a line as soon as it is measured."""

from __future__ import annotations

from importlib import import_module

from bench import harness

SCRIPTS = (
    "run_true",
    "exec_true",
    "stats",
    "volumes",
    "many",
    "ports",
    "crowd",
    "glances",
    "copies",
    "oci_runtime",
    "memory",
    "cli_start",
    "logs",
    "names",
)


def main() -> None:
    """Measure and print; one engine of ours serves all scripts."""
    options = harness.arguments("Every benchmark in one table.")
    if not options.peer_host:
        print("no --peer-host: our figures alone\n")
    print(harness.HEADER)
    with harness.own_engine(options.host) as host:
        options.host = host
        for script in SCRIPTS:
            for line in import_module(f"bench.{script}").measure(options):
                print(line, flush=True)


if __name__ == "__main__":
    main()
