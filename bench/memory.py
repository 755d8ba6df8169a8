"""Memory of an engine and of each running container: proportional set size, in MB.

The engine is the process that listens at the socket, those below it and, for dockerd, the containerd beside it.
What a container costs is what all processes outside of containers have grown by, or came with, divided by their
number; the container's own process is not counted.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from pathlib import Path

from bench import harness

COUNT = 20
DAEMON_BUDGET, CONTAINER_BUDGET = 60.0, 1.3


def pss(pid: int) -> float:
    """Proportional set size of one process in MB, 0 when it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("Pss:")), 0.0)


def processes() -> dict[int, tuple[int, str]]:
    """Parent and name of every process that shares our process id namespace."""
    ours = os.readlink("/proc/self/ns/pid")
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = Path(f"/proc/{entry}/stat").read_text()
            if os.readlink(f"/proc/{entry}/ns/pid") == ours:
                name, rest = stat.split("(", 1)[1].rsplit(")", 1)
                found[int(entry)] = (int(rest.split()[1]), name)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # ended while we looked, or not to be looked at: none of ours
    return found


def listener(host: str) -> int:
    """The process that listens at a unix socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(host.removeprefix("unix://"))
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[0])


def engine_processes(host: str) -> set[int]:
    """The listener, its descendants and a containerd that shares its mount namespace."""
    top = listener(host)
    known = processes()
    members = {top}
    grown = True
    while grown:
        more = {pid for pid, (parent, _) in known.items() if parent in members} - members
        members |= more
        grown = bool(more)
    mounts = os.readlink(f"/proc/{top}/ns/mnt")
    for pid, (_, name) in known.items():
        if name == "containerd" and os.readlink(f"/proc/{pid}/ns/mnt") == mounts:
            members.add(pid)
    return members


def _figures(side: harness.Side) -> tuple[float, float]:
    before = set(processes())
    members = engine_processes(side.host)
    daemon = sum(map(pss, members))
    for _ in range(COUNT):
        side.run("run", "-d", harness.IMAGE, "sleep", "100000")
    time.sleep(1)
    names = ("wherry", "python", "containerd-shim", "docker-proxy")
    fresh = {pid for pid, (_, name) in processes().items() if pid not in before and name.startswith(names)}
    fresh |= engine_processes(side.host) - members
    grown = sum(map(pss, members | fresh)) - daemon
    return daemon, grown / COUNT


def measure(options: harness.argparse.Namespace) -> list[harness.Line]:
    """The two lines of this script."""
    with harness.sides(options) as (ours, peer):
        own = _figures(ours)
        other = _figures(peer) if peer else (None, None)
    name = peer.name if peer else ""
    return [
        harness.Line("memory of the daemon (PSS)", own[0], other[0], name, DAEMON_BUDGET, "MB"),
        harness.Line(f"memory per running container, of {COUNT}", own[1], other[1], name, CONTAINER_BUDGET, "MB"),
    ]


if __name__ == "__main__":
    harness.show(measure(harness.arguments(__doc__ or "")))
