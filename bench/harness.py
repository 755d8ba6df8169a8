"""What the benchmarks share: two sides measured in turns, medians, and the table's line.

Every measurement alternates between the sides within one run, so that whatever else the machine does meets both
alike. A figure without its peer's beside it is not printed as a comparison.
"""

from __future__ import annotations

import argparse
import io
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench import account

IMAGE = "wherry-bench"
# With it a program compiles itself at every start, which is not what is measured.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@dataclass(frozen=True)
class Side:
    """An engine: its name, and the address that the docker CLI is given."""

    name: str
    host: str

    def docker(self, *words: str) -> list[str]:
        """A docker command line for this engine."""
        return ["docker", "-H", self.host, *words]

    def run(self, *words: str, data: bytes | None = None) -> str:
        """Run docker and return what it prints."""
        result = subprocess.run(self.docker(*words), input=data, capture_output=True, check=False)
        if result.returncode:
            raise SystemExit(f"{self.name}: docker {' '.join(words)}: {result.stderr.decode().strip()}")
        return result.stdout.decode().strip()

    def prepare(self) -> None:
        """Make the benchmarks' image: a root file system of one static busybox."""
        self.run("import", "-", IMAGE, data=busybox_tar())

    def clean_containers(self) -> None:
        """Remove the containers that the benchmarks made."""
        containers = self.run("ps", "-aq", "--filter", f"ancestor={IMAGE}").split()
        if containers:
            self.run("rm", "-f", *containers)

    def clean(self) -> None:
        """Remove what the benchmarks made."""
        self.clean_containers()
        self.run("rmi", "-f", IMAGE)


@dataclass(frozen=True)
class Line:
    """One line of the table. unit: "ms", "s" or "MB"; peer: None when there was none to measure.

    quartiles: between which half of the values are, ours and the peer's; "" for a line that does not show them.
    margin: how far the median of as many values of the same kind may be from ours, 19 times out of 20.
    """

    work: str
    ours: float
    peer: float | None
    peer_name: str
    budget: float | None
    unit: str = "ms"
    quartiles: str = ""
    margin: float = 0.0

    @classmethod
    def of(cls, work: str, medians: Sequence[float], peer: Side | None, budget: float | None) -> Line:
        """Return the line of two medians in milliseconds, ours and the peer's; of one when there is no peer."""
        return cls(work, medians[0], medians[1] if peer else None, peer.name if peer else "", budget)

    @classmethod
    def spread(cls, work: str, values: Sequence[Sequence[float]], peer: Side | None, budget: float | None) -> Line:
        """Return the line of the medians of values in milliseconds, ours and the peer's, that shows their quartiles."""
        line = cls.of(work, [statistics.median(each) for each in values], peer, budget)
        cuts = [statistics.quantiles(each, n=4) for each in values]
        shown = ", ".join(f"{low:.1f}..{high:.1f}" for low, _, high in cuts)
        return replace(line, quartiles=shown, margin=1.57 * (cuts[0][2] - cuts[0][0]) / len(values[0]) ** 0.5)

    def _verdict(self) -> str:
        """Return whether the budget is kept; what the machine's other work may have decided is not decided."""
        if self.budget is None:
            return ""
        if self.margin > self.budget or abs(self.ours - self.budget) < self.margin:
            return f"unclear, +-{self.margin:.1f}"
        return "kept" if self.ours <= self.budget else "missed"

    def __str__(self) -> str:
        peer = f"{self.peer:9.1f} {self.unit:<2} {self.peer_name}" if self.peer is not None else f"{'-':>9}"
        ratio = f"1/{self.peer / self.ours:.1f}" if self.peer and not self.quartiles else "-"
        budget = "-" if self.budget is None else f"{self.budget:g} {self.unit}"
        spread = f"  [{self.quartiles}]" if self.quartiles else ""
        line = f"{self.work:<44}{self.ours:9.1f} {self.unit:<3}{peer:<30}{ratio:>8}  {budget:>9} {self._verdict()}"
        return line + spread


HEADER = f"{'work':<44}{'wherry':>12} {'peer':<30}{'ratio':>7}  {'budget':>9}"


def busybox_tar() -> bytes:
    """A tar of the machine's static busybox with a link for each of its commands."""
    path = shutil.which("busybox")
    if not path:
        raise SystemExit("bench: no busybox; install busybox-static")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(os.path.realpath(path), "bin/busybox")
        for applet in subprocess.run([path, "--list"], capture_output=True, text=True, check=True).stdout.split():
            if applet != "busybox":
                entry = tarfile.TarInfo(f"bin/{applet}")
                entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(entry)
    return buffer.getvalue()


def timed(command: Sequence[str]) -> float:
    """Milliseconds that a command takes; its failure ends the benchmark."""
    begin = time.perf_counter()
    result = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    took = (time.perf_counter() - begin) * 1e3
    if result.returncode:
        raise SystemExit(f"bench: {shlex.join(command)}: {result.stderr.decode().strip()}")
    return took


def in_turns(measures: Sequence[Callable[[], float]], rounds: int, warmup: int = 2) -> list[float]:
    """The medians of several measurements taken in turns."""
    taken: list[list[float]] = [[] for _ in measures]
    for number in range(warmup + rounds):
        for place, measure in enumerate(measures):
            value = measure()
            if number >= warmup:
                taken[place].append(value)
    return [statistics.median(values) for values in taken]


def arguments(description: str) -> argparse.Namespace:
    """The command line that all benchmarks understand."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--host", default="", help="our engine; one is started and stopped when not given")
    parser.add_argument("--peer-host", default=os.environ.get("WHERRY_BENCH_PEER_HOST", ""), help="a dockerd's socket")
    parser.add_argument(
        "--peer-exec",
        default=os.environ.get("WHERRY_BENCH_PEER_EXEC", ""),
        help="prefix that runs a peer's crun, runc and podman, when they are not on the PATH",
    )
    parser.add_argument(
        "--shared-dir",
        default=os.environ.get("WHERRY_BENCH_SHARED_DIR", ""),
        help="a folder that we and --peer-exec see at the same path",
    )
    parser.add_argument("--rounds", type=int, default=15)
    return parser.parse_args()


@contextmanager
def own_engine(host: str) -> Iterator[str]:
    """The given engine, or one with roots of its own for as long as it is needed."""
    if host:
        yield host
        return
    folder = Path(tempfile.mkdtemp(prefix="wherry-bench-", dir="/tmp"))
    host = f"unix://{folder}/sock"
    (folder / "daemon.json").write_text("{}")
    flags = ["--data-root", f"{folder}/data", "--run-root", f"{folder}/run", "--config-file", f"{folder}/daemon.json"]
    flags += ["--bridge", "whbench0", "--cgroup-parent", f"/{account.PARENT}", "-H", host]
    with (folder / "log").open("wb") as log:
        engine = subprocess.Popen([sys.executable, "-I", "-m", "wherry.cmd.daemon", *flags], stdout=log, stderr=log)
    try:
        account.enter(engine.pid)
        wait_for(folder / "sock", engine, folder / "log")
        yield host
    finally:
        engine.terminate()
        engine.wait(timeout=60)
        shutil.rmtree(folder)
        account.leave()


def wait_for(path: Path, engine: subprocess.Popen[bytes], log: Path | None = None) -> None:
    """Wait until a server's socket is there."""
    deadline = time.monotonic() + 30
    while not path.exists():
        if engine.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"bench: {engine.args!r} did not start:\n{log.read_text() if log else ''}")
        time.sleep(0.02)


@contextmanager
def sides(options: argparse.Namespace) -> Iterator[tuple[Side, Side | None]]:
    """Our side and, when a dockerd was named, the peer, both with the image ready."""
    with own_engine(options.host) as host:
        ours = Side("wherry", host)
        peer = Side("dockerd", options.peer_host) if options.peer_host else None
        both = [ours] + ([peer] if peer else [])
        for side in both:
            side.prepare()
        try:
            yield ours, peer
        finally:
            for side in both:
                side.clean()


def compare_on(
    ours: Side, peer: Side | None, work: str, budget: float | None, words: Sequence[str], rounds: int
) -> Line:
    """Time one docker command on sides that are ready."""
    measures = [lambda side=side: timed(side.docker(*words)) for side in (ours, peer) if side]
    return Line.of(work, in_turns(measures, rounds), peer, budget)


def engines(
    of: Callable[[Side], float], ours: Side, peer: Side | None, rounds: int, budget: float | None = None
) -> Line:
    """Measure the engines' part of the line before, see `requests`."""
    measures = [lambda side=side: of(side) for side in (ours, peer) if side]
    return Line.of("  its part of the engine, by the API", in_turns(measures, rounds), peer, budget)


def show(lines: Sequence[Line]) -> None:
    """Print a script's lines under the header."""
    print(HEADER)
    for line in lines:
        print(line)
