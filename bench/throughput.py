"""TCP through a published port: iperf3 in a container, its client on the engine's host, at the host's own address.

    python -m bench.throughput --peer-host unix:///PATH/docker.sock --peer-exec 'nsenter -t PID -m -n --'

The figure is in Gbit/s, so more is better: 1/1 means that the peer has the same. Both ways of the host to its
container are led by rules alone: at this address dockerd's proxy has no part. Needs iperf3.
"""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import statistics
import subprocess
import tarfile

from bench import harness

IMAGE = "wherry-bench-iperf"
NAME = "wherry-bench-iperf"
PORT = 25201
SECONDS = 2


def image() -> bytes:
    """A tar of iperf3 with the libraries that it needs."""
    program = shutil.which("iperf3")
    if program is None:
        raise SystemExit("bench: no iperf3; install it")
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(os.path.realpath(program), "usr/bin/iperf3")
        for path in dict.fromkeys(re.findall(r"(/\S+)", listed)):
            tar.add(os.path.realpath(path), path.lstrip("/"))
        tmp = tarfile.TarInfo("tmp")
        tmp.type, tmp.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(tmp)
    return buffer.getvalue()


def once(side: harness.Side, prefix: list[str]) -> float:
    """Gbit/s to the container, of one run."""
    address = side.run("network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "bridge")
    command = [*prefix, "iperf3", "-c", address, "-p", str(PORT), "-t", str(SECONDS), "-J"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"bench: {shlex.join(command)}: {done.stdout}{done.stderr}")
    return float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]) / 1e9


def measure(options: harness.argparse.Namespace) -> list[harness.Line]:
    """One line."""
    with harness.sides(options) as (ours, peer):
        both = [side for side in (ours, peer) if side]
        prefixes = {ours.name: [], "dockerd": shlex.split(options.peer_exec)}
        for side in both:
            side.run("import", "-", IMAGE, data=image())
            side.run("run", "-d", "--name", NAME, "-p", f"{PORT}:5201", IMAGE, "/usr/bin/iperf3", "-s")
        try:
            taken: list[list[float]] = [[] for _ in both]
            for _ in range(max(3, options.rounds // 3)):
                for place, side in enumerate(both):
                    taken[place].append(once(side, prefixes[side.name]))
        finally:
            for side in both:
                side.run("rm", "-f", NAME)
                side.run("rmi", "-f", IMAGE)
    medians = [statistics.median(each) for each in taken]
    return [harness.Line("iperf3 through a published port", medians[0], medians[1] if peer else None,
                         peer.name if peer else "", None, "Gb")]  # fmt: skip


if __name__ == "__main__":
    harness.show(measure(harness.arguments(__doc__ or "")))
