"""Images between Wherry, a dockerd and a podman, by way of a docker-registry: whoever pushes, the others pull and run.

    nsenter -t PID -n python -m bench.interop --peer-host SOCKET --peer-exec 'nsenter -t PID -m -n --'

PID is the dockerd's: engine, registry, dockerd and podman have to see the same loopback. It prints what it compared,
and ends with an error at the first difference.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from contextlib import ExitStack

from bench import harness
from bench.harness import Side
from bench.registry import PORT, Registry

BASE = f"127.0.0.1:{PORT}/interop"
MARK = "wherry-interop"


class Podman:
    """A podman that the prefix runs; as a side."""

    name = "podman"

    def __init__(self, prefix: str) -> None:
        self._prefix = shlex.split(prefix)

    def run(self, *words: str, data: bytes | None = None) -> str:
        """Run podman and return what it prints."""
        # crun refuses machines with both versions of control groups
        command = [*self._prefix, "podman", "--runtime", "runc", "--cgroup-manager", "cgroupfs", *words]
        result = subprocess.run(command, input=data, capture_output=True, check=False)
        if result.returncode:
            raise SystemExit(f"podman {' '.join(words)}: {result.stderr.decode().strip()}")
        return result.stdout.decode().strip()


def look(side: Side | Podman, name: str) -> tuple[str, list[str]]:
    """The id of an image and the digests of its layers, as an engine tells them."""
    body = json.loads(side.run("image", "inspect", name))[0]
    return body["Id"].removeprefix("sha256:"), body["RootFS"]["Layers"]


def pull(side: Side | Podman, name: str) -> str:
    """Pull an image and run it."""
    side.run("pull", "-q", *(["--tls-verify=false"] if isinstance(side, Podman) else []), name)
    return side.run("run", "--rm", "--network=none", name, "/bin/busybox", "cat", "/mark")


def make(side: Side | Podman, name: str) -> None:
    """An image of two layers: busybox, and a file on top of it."""
    side.run("import", "-", f"{name}-base", data=harness.busybox_tar())
    script = f"echo made by {side.name} > /mark"
    side.run("run", "--name", MARK, "--network=none", f"{name}-base", "/bin/busybox", "sh", "-c", script)
    side.run("commit", *(["-q"] if isinstance(side, Podman) else []), MARK, name)
    side.run("rm", MARK)
    side.run("rmi", f"{name}-base")


def forget(side: Side | Podman, name: str) -> None:
    """Remove an image by its name."""
    side.run("rmi", "-f", name)


def from_to(
    source: Side | Podman, others: list[Side | Podman], *, options: tuple[str, ...] = (), tag: str = "1"
) -> None:
    """Push from one and pull at the others; compare."""
    name = f"{BASE}/from-{source.name}:{tag}"
    make(source, name)
    source.run("push", "-q", *options, name)
    wanted = look(source, name)
    print(f"{source.name} pushes {name}: id {wanted[0][:12]}, layers {' '.join(each[7:19] for each in wanted[1])}")
    for other in others:
        said = pull(other, name)
        found = look(other, name)
        same = found == wanted and said == f"made by {source.name}"
        print(f"  {other.name} pulls and runs it: {said!r}, id {found[0][:12]}, {'the same' if same else 'DIFFERENT'}")
        if not same:
            raise SystemExit(1)
        forget(other, name)
    forget(source, name)


def main() -> int:
    """Try every pair."""
    options = harness.arguments(__doc__ or "")
    with ExitStack() as stack:
        ours = Side("wherry", stack.enter_context(harness.own_engine(options.host)))
        dockerd, podman = Side("dockerd", options.peer_host), Podman(options.peer_exec)
        registry = Registry(dockerd)
        stack.callback(registry.close)
        from_to(ours, [dockerd, podman])
        from_to(dockerd, [ours, podman])
        insecure = ("--tls-verify=false",)
        from_to(podman, [ours, dockerd], options=insecure)
        zstd = (*insecure, "--compression-format", "zstd")
        from_to(podman, [ours], options=zstd, tag="zstd")
    print("all the same")
    return 0


if __name__ == "__main__":
    sys.exit(main())
