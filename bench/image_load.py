"""`docker load` and `docker import` of a large tree of this machine's own files, and `docker load` of what is there.

The tree is a layer made of /usr/share and the Python libraries. It is loaded, removed and loaded again in turns; both
engines keep their layers on whatever file system their data roots are on, and both are given time to delete.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import statistics
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

from bench import harness
from bench.harness import Side

TREES = ("share", "lib/python3", "lib/python3.11", "include")
NAME = "wherry-bench-large:1"
LOAD_BUDGET = 4.0
ROUNDS = 3
PAUSE = 8.0


def make_layer(folder: Path) -> Path:
    """A tar of the trees that are there."""
    layer = folder / "layer.tar"
    trees = [tree for tree in TREES if Path("/usr", tree).is_dir()]
    command = ["tar", "--sort=name", "-cf", str(layer), "-C", "/usr", *trees]
    result = subprocess.run(command, stderr=subprocess.PIPE, check=False)
    if result.returncode > 1:  # 1: a file changed while it was read
        raise SystemExit(f"bench: tar: {result.stderr.decode()}")
    return layer


def make_archive(layer: Path) -> Path:
    """What docker save would write for an image of this layer."""
    with layer.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]}}
    ).encode()
    manifest = [{"Config": "config.json", "RepoTags": [NAME], "Layers": ["layer.tar"]}]
    archive = layer.with_name("archive.tar")
    with tarfile.open(archive, "w") as tar:
        tar.add(layer, "layer.tar")
        for name, data in (("config.json", config), ("manifest.json", json.dumps(manifest).encode())):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return archive


def once(side: Side, *words: str) -> float:
    """Seconds that one docker command takes, with nothing of others waiting to be written: we wait for the disk."""
    os.sync()
    return harness.timed(side.docker(*words)) / 1e3


def fresh(side: Side, *words: str) -> float:
    """The same for a command that makes the image, which is removed again."""
    took = once(side, *words)
    side.run("rmi", "-f", NAME)
    time.sleep(PAUSE)
    return took


def medians(both: list[Side], rounds: int, measure: str, *words: str) -> list[float]:
    """Medians in turns, without a warm-up: each round costs a minute."""
    function = {"fresh": fresh, "once": once}[measure]
    taken: list[list[float]] = [[] for _ in both]
    for _ in range(rounds):
        for place, side in enumerate(both):
            taken[place].append(function(side, *words))
    return [statistics.median(values) for values in taken]


def line(work: str, both: list[Side], found: list[float], budget: float | None) -> harness.Line:
    """One line of the table."""
    peer = found[1] if len(found) > 1 else None
    return harness.Line(work, found[0], peer, both[1].name if peer else "", budget, "s")


def measure(options: harness.argparse.Namespace) -> list[harness.Line]:
    """The lines of this script."""
    rounds = min(options.rounds, ROUNDS)
    with harness.own_engine(options.host) as host, tempfile.TemporaryDirectory(prefix="wherry-bench-") as folder:
        layer = make_layer(Path(folder))
        archive = make_archive(layer)
        size = f"{layer.stat().st_size / 1e6:.0f} MB"
        both = [Side("wherry", host)] + ([Side("dockerd", options.peer_host)] if options.peer_host else [])
        loads = medians(both, rounds, "fresh", "load", "-q", "-i", str(archive))
        imports = medians(both, rounds, "fresh", "import", str(layer), NAME)
        for side in both:
            side.run("load", "-q", "-i", str(archive))
        again = medians(both, rounds, "once", "load", "-q", "-i", str(archive))
        for side in both:
            side.run("rmi", "-f", NAME)
    return [
        line(f"load of {size}", both, loads, LOAD_BUDGET),
        line(f"import of {size}", both, imports, None),
        line(f"load of {size} that is there", both, again, None),
    ]


if __name__ == "__main__":
    harness.show(measure(harness.arguments(__doc__ or "")))
