"""The demo's view from outside: what the kernel holds of a container, read from /proc and /sys by its process id.

    demo_view.py outside CONTAINER      namespaces, control groups, root file system, network
    demo_view.py clock COMMAND...       the median time of five runs
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

NAMESPACES = {
    "mnt": "mount points",
    "uts": "host name",
    "ipc": "message queues, shared memory",
    "pid": "process ids",
    "net": "network",
    "cgroup": "control group root",
    "time": "boot and monotonic clocks",
    "user": "user ids (shared: root inside is root outside)",
}
LIMITS = (
    ("memory", "memory.limit_in_bytes"),
    ("memory", "memory.usage_in_bytes"),
    ("cpu", "cpu.cfs_quota_us"),
    ("cpu", "cpu.cfs_period_us"),
    ("pids", "pids.max"),
    ("pids", "pids.current"),
)
UNIFIED_LIMITS = ("memory.max", "memory.current", "cpu.max", "pids.max", "pids.current")


def output(*command: str) -> str:
    """What a command prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def heading(text: str) -> None:
    """A line above a block."""
    bold, off = ("\033[1m", "\033[0m") if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else ("", "")
    print(f"\n{bold}{text}{off}")


def shortened(path: object) -> str:
    """A path with its 64-digit names cut, as short ids are."""
    return re.sub(r"([0-9a-f]{12})[0-9a-f]{52}", r"\1…", str(path))


def namespaces(pid: int) -> None:
    """Inode numbers of the machine's and the container's namespaces, side by side."""
    heading("Namespaces (inode numbers of /proc/PID/ns)")
    print(f"  {'':<8}{'machine':>12}{'container':>12}")
    for name, meaning in NAMESPACES.items():
        host, inside = (os.readlink(f"/proc/{who}/ns/{name}").strip(f"{name}:[]") for who in ("self", pid))
        mark = "own " if host != inside else "same"
        print(f"  {name:<8}{host:>12}{inside:>12}  {mark}  {meaning}")


def cgroup_files(pid: int) -> list[Path]:
    """The files that hold the container's limits and use, version 1 or 2."""
    paths = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            paths[controller] = path
    top = Path("/sys/fs/cgroup")
    if "memory" in paths:
        return [top / kind / paths[kind].lstrip("/") / name for kind, name in LIMITS if kind in paths]
    return [top / paths[""].lstrip("/") / name for name in UNIFIED_LIMITS]


def cgroups(pid: int) -> None:
    """The control group files with their values."""
    heading("Control groups (files on the machine)")
    folder = None
    for path in cgroup_files(pid):
        if not path.exists():
            continue
        if path.parent != folder:
            folder = path.parent
            print(f"  {shortened(folder)}")
        print(f"    {path.name:<24} {path.read_text().strip()}")


def rootfs(pid: int) -> None:
    """The overlay that is the container's root, layer by layer."""
    heading("Root file system (the container's mount of /)")
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if before.split()[4] != "/":
            continue
        kind, source, options = after.split(" ", 2)
        print(f"  {kind} on / from {source}")
        for option in options.split(","):
            key, equals, value = option.partition("=")
            if equals and key.startswith(("lowerdir", "upperdir", "workdir")):
                print(f"    {key.rstrip('+'):<9} {shortened(value)}")
    size, host = (Path(f"/proc/{who}/mountinfo").read_text().count("\n") for who in (pid, "self"))
    print(f"  {size} mounts inside, none of them in the machine's own table of {host}")


def network(pid: int) -> None:
    """Both ends of the veth pair, the bridge between, and the rule for the way out."""
    heading("Network (both ends of the veth pair)")
    inside = json.loads(output("nsenter", "-t", str(pid), "-n", "ip", "-j", "addr", "show", "dev", "eth0"))[0]
    links = json.loads(output("ip", "-j", "-d", "link"))
    outer = next(link for link in links if link["ifindex"] == inside["link_index"])
    bridge = next(link for link in links if link["ifname"] == outer["master"])
    address = next(item for item in inside["addr_info"] if item["family"] == "inet")
    name = outer["ifname"]
    print(f"  container  {'eth0@' + name:<20} {inside['address']}  {address['local']}/{address['prefixlen']}")
    print(f"  machine    {name + '@eth0':<20} {outer['address']}  in {bridge['ifname']}")
    held = json.loads(output("ip", "-j", "addr", "show", "dev", bridge["ifname"]))[0]
    for item in held["addr_info"]:
        if item["family"] == "inet":
            print(f"  bridge     {bridge['ifname']:<20} {held['address']}  {item['local']}/{item['prefixlen']}")
    for line in output("nft", "list", "ruleset").splitlines():
        if "masquerade" in line and f'"{bridge["ifname"]}"' in line:
            print(f"  way out    {line.strip()}")


def outside(container: str) -> None:
    """Everything of one container."""
    pid = int(output("wherry", "inspect", "-f", "{{.State.Pid}}", container))
    print(f"  process {pid}: {Path(f'/proc/{pid}/cmdline').read_bytes().replace(bytes(1), b' ').decode()}")
    namespaces(pid)
    cgroups(pid)
    rootfs(pid)
    network(pid)


def clock(command: list[str]) -> None:
    """How long a command takes, from the shell's point of view."""
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        subprocess.run(command, check=True)
        times.append(time.perf_counter() - begin)
    print(f"{' '.join(command)}: {statistics.median(times) * 1e3:.0f} ms, the whole command (median of 5)")


if __name__ == "__main__":
    if sys.argv[1] == "outside":
        outside(sys.argv[2])
    else:
        clock(sys.argv[2:])
