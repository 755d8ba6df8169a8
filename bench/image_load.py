"""`docker load`, `save` and `import` of a large tree of this machine's own files, and what the engine takes for it.

The tree is a layer made of /usr/share and the Python libraries. It is loaded, removed and loaded again in turns; both
engines keep their layers on whatever file system their data roots are on, and both are given time to delete.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import statistics
import struct
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
SAVE_BUDGET = 1.5
FIRST_RUN_BUDGET = 40.0  # ms
MEMORY_BUDGET = 150.0  # MB
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
    """What docker save would write for an image of this layer, and one with a program that can be run."""
    program = layer.with_name("program.tar")
    program.write_bytes(harness.busybox_tar())
    layers = [layer, program]
    digests = []
    for each in layers:
        with each.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    system = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/true"]}}
    rootfs = {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]}
    config = json.dumps({**system, "rootfs": rootfs}).encode()
    names = [f"blobs/sha256/{digest}" for digest in digests]
    manifest = [{"Config": "config.json", "RepoTags": [NAME], "Layers": names}]
    archive = layer.with_name("archive.tar")
    with tarfile.open(archive, "w") as tar:
        for each, name in zip(layers, names, strict=True):
            tar.add(each, name)
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


def peak(side: Side) -> float:
    """MB of memory that the engine behind a socket has had at most, proc_pid_status(5)."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(side.host.removeprefix("unix://"))
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
    pid = struct.unpack("iII", credentials)[0]
    fields = Path(f"/proc/{pid}/status").read_text().split()
    return int(fields[fields.index("VmHWM:") + 1]) / 1e3


def first_run(side: Side, archive: Path) -> float:
    """Milliseconds of the first run of an image that was just loaded."""
    side.run("load", "-q", "-i", str(archive))
    took = harness.timed(side.docker("run", "--rm", "--network", "none", NAME))
    side.run("rmi", "-f", NAME)
    return took


def line(work: str, both: list[Side], found: list[float], budget: float | None) -> harness.Line:
    """One line of the table."""
    peer = found[1] if len(found) > 1 else None
    return harness.Line(work, found[0], peer, both[1].name if peer else "", budget, "s")


def of_both(work: str, found: list[float], peer: str, budget: float, unit: str) -> harness.Line:
    """One line of the table in a unit of its own."""
    return harness.Line(work, found[0], found[1] if peer else None, peer, budget, unit)


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
        saves = medians(both, rounds, "once", "save", "-o", f"{folder}/saved.tar", NAME)
        memory = [peak(side) for side in both]
        for side in both:
            side.run("rmi", "-f", NAME)
        runs = [statistics.median(first_run(side, archive) for _ in range(rounds)) for side in both]
    peer = both[1].name if len(both) > 1 else ""
    return [
        line(f"load of {size}", both, loads, LOAD_BUDGET),
        line(f"import of {size}", both, imports, None),
        line(f"load of {size} that is there", both, again, None),
        line(f"save of {size}", both, saves, SAVE_BUDGET),
        of_both("first run of what was just loaded", runs, peer, FIRST_RUN_BUDGET, "ms"),
        of_both("memory of the engine, at most", memory, peer, MEMORY_BUDGET, "MB"),
    ]


if __name__ == "__main__":
    harness.show(measure(harness.arguments(__doc__ or "")))
