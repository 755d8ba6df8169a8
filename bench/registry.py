"""`docker push` and `docker pull` of a large image of one layer, by way of a registry on loopback.

Each engine has a docker-registry of its own, in its network namespace, which is empty before each push. The layer is
that of image_load.py. The memory is that of our engine's own pages, at its highest, with what it needs without work.
"""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench import harness, image_load
from bench.harness import Side

ROUNDS = 3
MEMORY_BUDGET = 150.0
PORT = 5077
NAME = "wherry-bench-registry:1"


def process_of(side: Side) -> int:
    """The process that listens at an engine's socket (unix(7), SO_PEERCRED)."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(side.host.removeprefix("unix://"))
        credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(struct.unpack("3i", credentials)[0])


@contextmanager
def highest_memory(pid: int) -> Iterator[list[float]]:
    """Sample the anonymous memory of a process, in MB."""
    highest, over = [0.0], threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("RssAnon"):
                    highest[0] = max(highest[0], int(line.split()[1]) / 1e3)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield highest
    finally:
        over.set()
        thread.join()


class Registry:
    """A docker-registry in the network namespace of an engine."""

    def __init__(self, side: Side) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="wherry-bench-registry-", dir="/tmp"))
        self.name = f"127.0.0.1:{PORT}/bench/large:1"
        (self.folder / "config.yml").write_text(
            f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nhttp: {{addr: 127.0.0.1:{PORT}}}\n"
            f"storage: {{filesystem: {{rootdirectory: {self.folder}/data}}}}\n"
        )
        argv = ["nsenter", "-t", str(process_of(side)), "-n", "docker-registry", "serve"]
        argv.append(str(self.folder / "config.yml"))
        self.process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(1.0)

    def empty(self) -> None:
        """Forget everything."""
        shutil.rmtree(self.folder / "data", ignore_errors=True)

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(timeout=20)
        shutil.rmtree(self.folder)


def processor_seconds(pid: int) -> float:
    """Seconds of the processor that a process and its ended children have had (proc(5), stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(each) for each in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def timed(side: Side, *words: str) -> tuple[float, float]:
    """Seconds of a docker command, and of the processor for its engine."""
    os.sync()
    pid = process_of(side)
    before = processor_seconds(pid)
    took = harness.timed(side.docker(*words)) / 1e3
    return took, processor_seconds(pid) - before


def turn(side: Side, registry: Registry) -> tuple[float, ...]:
    """What a push into an empty registry and a pull into an engine that does not have the image take."""
    registry.empty()
    side.run("tag", NAME, registry.name)
    push = timed(side, "push", "-q", registry.name)
    side.run("rmi", "-f", registry.name, NAME)
    time.sleep(image_load.PAUSE)
    pull = timed(side, "pull", "-q", registry.name)
    side.run("tag", registry.name, NAME)
    side.run("rmi", registry.name)
    return (*push, *pull)


def measure(options: harness.argparse.Namespace) -> list[harness.Line]:
    """The lines of this script."""
    rounds = min(options.rounds, ROUNDS)
    with ExitStack() as stack:
        host = stack.enter_context(harness.own_engine(options.host))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wherry-bench-")))
        layer = image_load.make_layer(folder)
        size = f"{layer.stat().st_size / 1e6:.0f} MB"
        both = [Side("wherry", host)] + ([Side("dockerd", options.peer_host)] if options.peer_host else [])
        registries = []
        for side in both:
            registries.append(Registry(side))
            stack.callback(registries[-1].close)
            side.run("import", str(layer), NAME)
            stack.callback(side.run, "rmi", "-f", NAME)
        taken: list[list[tuple[float, ...]]] = [[] for _ in both]
        with highest_memory(process_of(both[0])) as memory:
            for _ in range(rounds):
                for place, side in enumerate(both):
                    taken[place].append(turn(side, registries[place]))
    found = [[statistics.median(values) for values in zip(*each, strict=True)] for each in taken]
    words = ("push", "  processor of the engine", "pull", "  processor of the engine")
    lines = []
    for place, (work, part) in enumerate(zip(words, (2, 2, 3, 3), strict=True)):
        values = [each[place] for each in found]
        name = work if work.startswith(" ") else f"{work} of {size}"
        lines.append(image_load.line(name, both, values, values[1] / part if len(values) > 1 else None))
    return [
        *lines,
        harness.Line("memory of the engine meanwhile", memory[0], None, "", MEMORY_BUDGET, "MB"),
    ]


if __name__ == "__main__":
    harness.show(measure(harness.arguments(__doc__ or "")))
