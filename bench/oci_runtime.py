"""`RUNTIME run` of a bundle whose process is true: wherry-runtime alone against crun and runc."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

from bench import harness

WORK = "OCI runtime alone: run true"
BUDGET = None  # the budget of 6 ms is that of a start through the zygote, which run_true.py contains
CAPABILITIES = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]


def config() -> dict[str, object]:
    """A usual bundle: six namespaces, the default mounts, no cgroup limits."""
    caps = {kind: CAPABILITIES for kind in ("bounding", "effective", "permitted")}
    tmpfs = ["nosuid", "strictatime", "mode=755", "size=65536k"]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/true"],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "capabilities": caps,
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "bench",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": tmpfs},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "mode=0620"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue"},
        ],
        "linux": {
            "cgroupsPath": f"/wherry-bench-oci/{os.getpid()}",
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network", "cgroup")],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    }


def _bundle(folder: Path) -> Path:
    bundle = folder / "bundle"
    rootfs = bundle / "rootfs"
    rootfs.mkdir(parents=True)
    for name in ("proc", "dev", "sys"):
        (rootfs / name).mkdir()
    with tarfile.open(fileobj=BytesIO(harness.busybox_tar())) as tar:
        tar.extractall(rootfs, filter="fully_trusted")
    (bundle / "config.json").write_text(json.dumps(config()))
    return bundle


def _measure(prefix: list[str], bundle: Path, root: Path) -> float:
    command = [*prefix, "--root", str(root), "run", "--bundle", str(bundle), f"bench-{os.getpid()}"]
    return harness.timed(command)


# crun refuses a machine with both versions of control groups ("hybrid mode not supported"), so it gets a mount
# namespace without the second one. What the way to a runtime costs is measured with `true` and taken off.
HIDE_UNIFIED = ["unshare", "-m", "sh", "-c", 'umount /sys/fs/cgroup/unified && exec "$@"', "sh"]


def _peers(options: harness.argparse.Namespace) -> dict[str, list[str]]:
    """The way to each runtime to compare with: nothing when it is on the PATH, else the prefix."""
    prefix = shlex.split(options.peer_exec)
    found = {}
    for name in ("crun", "runc"):
        way: list[str] = []
        if not shutil.which(name):
            if not prefix or subprocess.run([*prefix, name, "--version"], capture_output=True).returncode:
                continue
            way = prefix
        hide = name == "crun" and os.path.ismount("/sys/fs/cgroup/unified")
        found[name] = way + (HIDE_UNIFIED if hide else [])
    return found


def measure(options: harness.argparse.Namespace) -> list[harness.Line]:
    """One line for each peer."""
    peers = _peers(options)
    ours = [str(Path(sys.executable).parent / "wherry-runtime")]
    with tempfile.TemporaryDirectory(prefix="wherry-bench-", dir=options.shared_dir or None) as name:
        folder = Path(name)
        bundle = _bundle(folder)
        runtimes = {"wherry": ours} | {label: [*way, label] for label, way in peers.items()}
        measures = [
            lambda label=label, command=command: _measure(command, bundle, folder / label)
            for label, command in runtimes.items()
        ]
        measures += [lambda way=way: harness.timed([*way, "true"]) for way in peers.values()]
        medians = harness.in_turns(measures, options.rounds)
    for group in Path("/sys/fs/cgroup").glob("*/wherry-bench-oci"):
        group.rmdir()
    own, others, ways = medians[0], medians[1 : 1 + len(peers)], medians[1 + len(peers) :]
    bare = harness.in_turns([lambda: harness.timed(["true"])], options.rounds)[0]
    lines = [
        harness.Line(WORK, own, other - max(0.0, way - bare), label, BUDGET)
        for label, other, way in zip(peers, others, ways, strict=True)
    ]
    return lines or [harness.Line(WORK, own, None, "", BUDGET)]


if __name__ == "__main__":
    harness.show(measure(harness.arguments(__doc__ or "")))
