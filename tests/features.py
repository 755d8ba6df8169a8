"""What the tests need of the machine, each tried for real: ``python -m tests.features`` prints what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path


def _works(*argv: str) -> str:
    """"" when the command succeeds, else why not."""
    try:
        result = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    except FileNotFoundError:
        return f"{argv[0]} is not installed"
    return "" if result.returncode == 0 else (result.stderr.strip() or f"{argv[0]} exited with {result.returncode}")


def root() -> str:
    return "" if os.geteuid() == 0 else "not root"


def namespaces() -> str:
    return _works("unshare", "--mount", "--uts", "--ipc", "--pid", "--net", "--cgroup", "--time", "--fork", "true")


def user_namespaces() -> str:
    return _works("unshare", "--user", "--map-root-user", "true")


def overlayfs() -> str:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("lower", "upper", "work", "merged"):
            os.mkdir(f"{folder}/{name}")
        options = f"lowerdir={folder}/lower,upperdir={folder}/upper,workdir={folder}/work"
        return _works("unshare", "--mount", "mount", "-t", "overlay", "overlay", "-o", options, f"{folder}/merged")


def tmpfs() -> str:
    return _works("unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt")


def cgroups() -> str:
    """A writable hierarchy with a memory, a cpu and a pids controller, v1 or v2."""
    top = Path("/sys/fs/cgroup")
    unified = (top / "cgroup.controllers").exists()
    for controller in ("memory", "cpu", "pids"):
        base = top if unified else top / controller
        if unified and controller not in (top / "cgroup.controllers").read_text().split():
            return f"no {controller} controller"
        probe = base / f"wherry-probe-{os.getpid()}"
        try:
            probe.mkdir()
            probe.rmdir()
        except OSError as error:
            return f"{controller}: {error}"
    return ""


def netlink() -> str:
    return _works("unshare", "--net", "ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1")


def bridge() -> str:
    return _works("unshare", "--net", "ip", "link", "add", "b0", "type", "bridge")


def nftables() -> str:
    rules = "add table ip t; add chain ip t c { type nat hook postrouting priority 100; }; add rule ip t c masquerade"
    return _works("unshare", "--net", "nft", rules)


def iptables() -> str:
    return _works("unshare", "--net", "iptables", "-t", "nat", "-L")


def seccomp() -> str:
    return "" if "Seccomp:" in Path("/proc/self/status").read_text() else "the kernel has no seccomp"


def docker() -> str:
    return _works("docker", "--version")


def busybox() -> str:
    path = shutil.which("busybox")
    if not path:
        return "busybox is not installed"
    return "busybox is not static" if b"/ld-linux" in Path(path).read_bytes() else ""


def tmux() -> str:
    return _works("tmux", "-V")


FEATURES: dict[str, Callable[[], str]] = {
    "root": root,
    "namespaces (mount uts ipc pid net cgroup time)": namespaces,
    "user namespaces": user_namespaces,
    "overlayfs": overlayfs,
    "tmpfs": tmpfs,
    "control groups (memory cpu pids)": cgroups,
    "netlink (veth)": netlink,
    "bridges": bridge,
    "nftables (nat)": nftables,
    "iptables (nat)": iptables,
    "seccomp": seccomp,
    "the docker CLI": docker,
    "a static busybox": busybox,
    "tmux": tmux,
}


def missing(features: dict[str, Callable[[], str]]) -> list[str]:
    """"NAME: why not" for each feature that this machine lacks."""
    return [f"{name}: {why}" for name, probe in features.items() if (why := probe())]


def main() -> int:
    """Say what the machine offers and what it lacks."""
    lacking = missing(FEATURES)
    for line in lacking:
        print(f"MISSING {line}", file=sys.stderr)
    if not lacking:
        print(f"machine: {len(FEATURES)} of {len(FEATURES)} needed features, kernel {os.uname().release}")
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main())
