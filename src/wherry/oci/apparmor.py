"""The engine's own AppArmor profile, docker-default, and who gets it. Pure.

What it allows is what a container without it has anyway, but for the paths and calls denied here: the second lock on
doors that masks, read-only mounts, seccomp and capabilities keep shut. It is written without files of /etc/apparmor.d,
so that all it means stands here; apparmor.d(5) is the language.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from wherry.models.container import HostConfig
from wherry.oci import security
from wherry.oci.host import HostFacts

NAME = "docker-default"
"""dockerd's name, which clients and people's rules for other programs match on."""

_WRITE = "w"
_CHANGE = "wklx"
_ANY = "rwklx"


def profile_for(host: HostConfig, facts: HostFacts) -> str:
    """Return the profile that confines a container, "unconfined", or "" where AppArmor has no say.

    As with dockerd, a privileged container has one only if it names one, and without apparmor_parser there is no
    profile of ours that could be loaded.
    """
    if not facts.apparmor:
        return ""
    asked = security.parse(host.security_opt or ()).apparmor
    if asked:
        return asked
    if host.privileged:
        return security.UNCONFINED
    return NAME if facts.apparmor_parser else ""


def others(folder: str, kept: str) -> list[str]:
    """Return patterns for every name in a folder but one: those that leave its letters at the first, the second ...

    [^x] is any character but x, * any number of characters, ? one; none of them is "/" here, since a name goes before.
    """
    found = []
    for length, letter in enumerate(kept):
        if length:
            found.append(f"{folder}/{kept[:length]}")
        found.append(f"{folder}/{kept[:length]}[^{letter}]*")
    return [*found, f"{folder}/{kept}?*"]


def _denied() -> Iterator[tuple[str, str]]:
    """Yield patterns of paths, and what may not be done to them."""
    # /proc: only what belongs to a process may be written to, and the limits of shared memory
    yield "/proc/*", _WRITE
    yield "/proc/[^0-9s]*/**", _WRITE
    for pattern in others("/proc", "sys")[1:]:  # the first is another name that is no number: the line above
        yield f"{pattern}/**", _WRITE
    for pattern in (*others("/proc/sys", "kernel"), *others("/proc/sys/kernel", "shm")[:-1]):
        yield f"{pattern}{{,/**}}", _WRITE
    yield "/proc/sysrq-trigger", _ANY
    yield "/proc/kcore", _ANY
    # /sys: only control groups may be changed
    for pattern in (*others("/sys", "fs"), *others("/sys/fs", "cgroup")):
        yield f"{pattern}{{,/**}}", _CHANGE
    for folder in ("/sys/firmware", "/sys/devices/virtual/powercap", "/sys/kernel/security"):
        yield f"{folder}/**", _ANY


def text(*, abi: bool, peers: Iterable[str] = ()) -> str:
    """Return the profile as apparmor_parser takes it.

    abi: the machine has the file that pins the language to version 3.0; without, what a newer kernel can confine beyond
    these rules would be denied. peers: profiles, beside none, whose processes may send signals to containers: that of
    the engine, if it has one.
    """
    senders = ["unconfined", "runc", "crun", *(f'"{each}"' for each in peers if '"' not in each)]
    rules = [
        "network,",
        "deny network alg,",  # AF_ALG, CVE-2026-31431
        "capability,",
        "file,",
        "umount,",
        "deny mount,",
        *(f"signal (receive) peer={each}," for each in senders),
        f"signal (send, receive) peer={NAME},",
        f"ptrace (trace, read, tracedby, readby) peer={NAME},",
        *(f"deny {pattern} {access}," for pattern, access in _denied()),
    ]
    head = "abi <abi/3.0>,\n\n" if abi else ""
    flags = "flags=(attach_disconnected, mediate_deleted)"
    return f"{head}profile {NAME} {flags} {{\n" + "".join(f"  {rule}\n" for rule in rules) + "}\n"
