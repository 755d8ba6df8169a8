"""What the kernel and the disk hold, as sets of lines, so that two moments can be compared.

A test run must leave the machine as it found it. `snapshot` reads mounts, links, firewall rules, control groups,
named network namespaces and the engine's folders; `difference` says what came and what went. Processes are found
exactly rather than by name: ``python -m tests.machine COMMAND`` runs the tests as the reaper of all orphans below
it (prctl(2), PR_SET_CHILD_SUBREAPER), so whatever outlives a test becomes its child, whoever started it.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
REAPER = "WHERRY_TEST_REAPER"
SETTLE_SECONDS = 8.0
"""Network namespaces, and with them veth pairs, are torn down by a kernel worker after the last process is gone."""

SHARED = ("control groups", "files")
"""Not private to the tests' namespaces: what went may have been another program's, and its own doing."""

Snapshot = dict[str, set[str]]


def _command(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30).stdout


def _mounts() -> set[str]:
    """Mount points with type and source; mount ids are left out, they are reused."""
    lines = set()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        filesystem, source = after.split(" ")[:2]
        lines.add(f"{before.split(' ')[4]} {filesystem} {source}")
    return lines


def _links() -> set[str]:
    return set(re.findall(r"^\d+: ([^:@]+)", _command("ip", "-o", "link"), re.MULTILINE))


_EMPTY_CHAIN = re.compile(r"\tchain [A-Z]+ \{\n\t\ttype [^\n]* policy accept;\n\t\}\n\n?")
_EMPTY_TABLE = re.compile(r"table ip6? (?:filter|nat|raw) \{\n\}\n")
"""What iptables leaves once somebody has used it."""


def _firewall() -> set[str]:
    rules = _EMPTY_TABLE.sub("", _EMPTY_CHAIN.sub("", _command("nft", "list", "ruleset")))
    return set(re.sub(r"counter packets \d+ bytes \d+", "counter", rules).splitlines())


def _cgroups() -> set[str]:
    """Control groups that an engine made: those with its name, wherever they are."""
    found = set()
    for folder, _, _ in os.walk("/sys/fs/cgroup"):
        if "wherry" in folder:
            found.add(folder)
    return found


def _folders() -> set[str]:
    """Files and sockets outside the tests' own temporary folders."""
    found = set()
    for parent in ("/run", "/run/netns", "/var/lib", "/var/run", "/tmp"):
        if os.path.isdir(parent):
            found |= {f"{parent}/{name}" for name in os.listdir(parent) if "wherry" in name or parent == "/run/netns"}
    return found


def snapshot() -> Snapshot:
    """Read everything that a test could leave behind."""
    return {
        "mounts": _mounts(),
        "links": _links(),
        "firewall": _firewall(),
        "control groups": _cgroups(),
        "files": _folders(),
    }


def difference(before: Snapshot, after: Snapshot) -> list[str]:
    """One line for each thing that came or went."""
    lines = []
    for area, old in before.items():
        new = after[area]
        lines += [f"{area}: left behind: {line.strip()}" for line in sorted(new - old)]
        if area not in SHARED:
            lines += [f"{area}: gone: {line.strip()}" for line in sorted(old - new)]
    return lines


def settled_difference(before: Snapshot, seconds: float = SETTLE_SECONDS) -> list[str]:
    """The difference once asynchronous teardown had its time."""
    deadline = time.monotonic() + seconds
    while (lines := difference(before, snapshot())) and time.monotonic() < deadline:
        time.sleep(0.2)
    return lines


def children(pid: int) -> dict[int, str]:
    """The direct children of a process with their command lines; zombies are "(name)"."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = Path(f"/proc/{entry}/stat").read_text()
            line = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended while we looked
        name, _, rest = stat.partition("(")[2].rpartition(")")[0], "", stat.rpartition(")")[2]
        if int(rest.split()[1]) == pid:
            found[int(entry)] = line or f"({name})"
    return found


def _beside_us(parent: int) -> dict[int, str]:
    return {pid: line for pid, line in children(parent).items() if pid != os.getpid()}


def orphans(reaper: int, seconds: float = SETTLE_SECONDS) -> list[str]:
    """Children of the reaper beside this process that do not end by themselves in time, killed and named."""
    deadline = time.monotonic() + seconds
    while (left := _beside_us(reaper)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # ended by itself after all, but too late
    return [f"processes: left behind: {pid} {line}" for pid, line in sorted(left.items())]


def main(command: list[str]) -> int:
    """Run a command as the reaper of all orphans below it; they are waited for at once, as init would."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    child = os.spawnvpe(os.P_NOWAIT, command[0], command, {**os.environ, REAPER: str(os.getpid())})
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the child has it too, and decides
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            return os.waitstatus_to_exitcode(status) & 0xFF


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
