"""Which namespaces the first process is in, and who else is."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from wherry.kernel import nsfs
from wherry.kernel.procfs import GONE, NAMESPACES, Process
from wherry.models.xray import ClockOffset, IdRange, Namespace, Namespaces
from wherry.xray.subject import Other

SECOND = 1_000_000_000


def read(process: Process, others: Iterable[Other], modes: Mapping[str, str]) -> Namespaces:
    """Return the namespaces of a process; raises OSError. Costs eight stat(2) for each other container."""
    kinds = [kind for kind in NAMESPACES if _has(kind)]
    with Process(os.getpid()) as engine:
        host = {kind: engine.namespace(kind) for kind in kinds}
    neighbours = _inodes(others, kinds)
    entries, user_owner = [], 0
    for kind in kinds:
        fd = process.open_namespace(kind)
        try:
            inode, owner = nsfs.identity(fd), nsfs.owner(fd)
            if kind == "user":
                user_owner = nsfs.owner_uid(fd)
        finally:
            os.close(fd)
        shared = tuple(name for name, inodes in neighbours.items() if inodes.get(kind) == inode)
        entries.append(
            Namespace(
                kind=kind,
                inode=inode,
                shared_with_host=inode == host[kind],
                shared_with=() if inode == host[kind] else shared,
                owner=owner or 0,
                asked=modes.get(kind, ""),
            )
        )
    offsets = [ClockOffset(clock=name, nanoseconds=s * SECOND + ns) for name, s, ns in process.clock_offsets()]
    return Namespaces(
        entries=tuple(entries),
        user_owner=user_owner,
        uid_map=_ranges(process, "uid_map"),
        gid_map=_ranges(process, "gid_map"),
        clock_offsets=tuple(offsets),
    )


def _has(kind: str) -> bool:
    """Time namespaces came with 5.6."""
    return os.path.exists(f"/proc/self/ns/{kind}")


def _inodes(others: Iterable[Other], kinds: Iterable[str]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for other in others:
        try:
            with Process(other.pid) as process:
                found[other.name] = {kind: process.namespace(kind) for kind in kinds}
        except OSError as error:
            if error.errno not in GONE:
                raise
    return found


def _ranges(process: Process, name: str) -> tuple[IdRange, ...]:
    return tuple(IdRange(inside=a, outside=b, count=c) for a, b, c in process.id_map(name))
